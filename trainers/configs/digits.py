"""A ViT on scikit-learn's handwritten digits: the whole trainer in half a minute.

    python -m trainers.train --config=trainers/configs/digits.py --workdir=DIR

1,797 real 8x8 digits, shown at 16x16 pixels; 16 tokens, 4 of them learned.
Hardware: any CPU.
Expected result: test accuracy of one run 0.852 (validation 0.926).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.batch_size = 64
    config.total_epochs = 30
    config.warmup_percent = 5.0
    config.eval_percent = 20.0
    config.model = {
        "name": "vit_ti4_d4_tl4at2",
        "image_size": 16,
        "width": 48,
        "num_heads": 3,
        "mlp_dim": 96,
    }
    config.data = {"source": "digits", "final_split": "test"}
    config.augmentation = {
        "crop": "pad",
        "padding": 2,
        "flip": False,
        "eval_crop_fraction": 1.0,
    }
    config.optimizer = {"learning_rate": 2e-3, "weight_decay": 0.05}
    return config
