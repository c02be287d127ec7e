"""CIFAR-10 from scratch: a small ViT at 32x32 pixels, 8 of its 64 tokens from block 2 on.

    python -c "import tensorflow_datasets as tfds; tfds.builder('cifar10').download_and_prepare()"
    python -m trainers.train --config=trainers/configs/cifar10.py --workdir=DIR

Hardware: one GPU, or a v5e:1x1 TPU (--strategy=tpu --tpu=local); on a CPU it takes hours.
Data: TFDS cifar10; the last tenth of the train split is kept to choose by, and the test split is
evaluated once, at the end.
Expected result: unknown; not measured by us.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.topology = "v5e:1x1"
    config.batch_size = 256
    config.total_epochs = 200.0
    config.warmup_percent = 5.0
    config.eval_percent = 5.0
    config.checkpoint_percent = 2.0
    config.label_smoothing = 0.1
    config.model = {
        "name": "vit_ti4_d9_tl8at2",
        "image_size": 32,
        "width": 192,
        "num_heads": 3,
        "mlp_dim": 768,
        "stochastic_depth": 0.1,
    }
    config.data = {"source": "tfds:cifar10", "final_split": "test", "mixup_alpha": 0.2}
    config.augmentation = {
        "crop": "pad",
        "padding": 4,
        "flip": True,
        "randaugment_layers": 1,
        "randaugment_magnitude": 10.0,
        "eval_crop_fraction": 1.0,
    }
    config.optimizer = {"learning_rate": 1e-3, "weight_decay": 0.05}
    return config
