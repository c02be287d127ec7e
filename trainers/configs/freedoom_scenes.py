"""A small ViT with TokenLearner names the kind of thing that a rendered frame shows, small in view.

    python -m trainers.train --config=trainers/configs/freedoom_scenes.py --workdir=DIR

Whole frames of 160x120 pixels, rendered once from the Freedoom maps (extra `demo`) and shown at
120x90: things of one of eight kinds, 8 to 24 pixels of the frame long. Trained on MAP01-20, every
choice made on MAP21-24, tested once on MAP25-32.
Hardware: any CPU; about a quarter of an hour on two cores.
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
        "name": "vit_ti10_d4_tl8at1_v10",
        "image_size": (90, 120),
        "width": 64,
        "num_heads": 2,
        "mlp_dim": 192,
    }
    config.data = {"source": "freedoom_scenes", "final_split": "test"}
    config.augmentation = {"crop": "none", "flip": True, "eval_crop_fraction": 1.0}
    config.optimizer = {"learning_rate": 2e-3, "weight_decay": 0.05}
    return config
