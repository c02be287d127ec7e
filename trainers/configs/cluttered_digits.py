"""A small ViT with TokenLearner finds one handwritten digit among fragments of others.

    python -m trainers.train --config=trainers/configs/cluttered_digits.py --workdir=DIR \\
        --config.data.data_dir=MNIST

Canvases of 64x64 pixels, drawn once: 50,000 from the first 50,000 digits of MNIST's training file,
2,000 from the other 10,000 to choose by, and 4,000 from its test file. The folder MNIST holds its
four IDX files, or Keras' mnist.npz; docs/data.md says how to get them. On canvases of 96x96 pixels:
--config.data.source=cluttered_digits_96 --config.model.image_size=96.
Hardware: any CPU; about ten minutes on two cores.
Expected result: unknown; not measured by us.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.batch_size = 64
    config.total_steps = 9000
    config.warmup_percent = 5.0
    config.eval_percent = 10.0
    config.checkpoint_percent = 20.0
    config.model = {
        "name": "vit_ti8_d4_tl8at1_v10",
        "image_size": 64,
        "width": 64,
        "num_heads": 2,
        "mlp_dim": 192,
    }
    config.data = {"source": "cluttered_digits", "final_split": "test"}
    config.augmentation = {"crop": "none", "flip": False, "eval_crop_fraction": 1.0}
    config.optimizer = {"learning_rate": 2e-3, "weight_decay": 0.05}
    return config
