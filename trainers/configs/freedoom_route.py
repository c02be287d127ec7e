"""A small video ViT with TokenLearner tells whether a player turns twice the same way.

    python -m trainers.train --config=trainers/configs/freedoom_route.py --workdir=DIR

Clips of 32 frames, rendered once from the Freedoom maps (extra `demo`): the player turns left or
right twice, and stands still or walks before, between and after. Any eight consecutive frames show
one turn at most, which says nothing of the label. Trained on MAP01-20, every choice made on
MAP21-24, tested once on MAP25-32.
Hardware: any CPU; about a quarter of an hour on two cores.
Expected result: unknown; not measured by us.

The clips are rendered at 48x48 pixels and shown at 32x32. Half of them are mirrored, which changes
no label: two turns the same way stay that.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.batch_size = 64
    config.total_steps = 3000
    config.warmup_percent = 5.0
    config.eval_percent = 10.0
    config.checkpoint_percent = 20.0
    config.steps_per_loop = 20
    config.model = {
        "name": "vivit_ti8x4_d4_tl4at1_v10",
        "image_size": 32,
        "num_frames": 32,
        "width": 64,
        "num_heads": 2,
        "mlp_dim": 192,
    }
    config.data = {"source": "freedoom_route", "final_split": "test", "normalization": "clip"}
    config.video = {
        "stride": 1,
        "min_resize": 32,
        "scale_jitter": None,
        "temporal_views": 1,
        "spatial_views": 1,
    }
    config.optimizer = {"learning_rate": 2e-3, "weight_decay": 0.05}
    return config
