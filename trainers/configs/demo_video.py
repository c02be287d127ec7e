"""The video demo: a small video ViT with TokenLearner tells how the camera moves, on the CPU.

    python -m trainers.train --config=trainers/configs/demo_video.py --workdir=DIR
    python -m trainers.demo_video --workdir=DIR

`make demo-video` runs both. The clips are rendered from the Freedoom maps: nine motions of
the camera (none, forward, backward, aside, turning, looking up and down), which a single
frame does not tell. Trained on MAP01-20, every choice made on MAP21-24, tested once on
MAP25-32.
Hardware: any CPU.
Expected test accuracy: 0.83 to 0.90.

Eight of the sixteen frames, 32x32 pixels, each clip normalised by its own mean and
deviation; tubelets of four frames, for two frames of a tubelet hardly show a motion. Half of
the clips are mirrored, and those to the left are then labelled as to the right. One block on
all 32 tokens, then two on four tokens per time step.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.batch_size = 64
    config.total_epochs = 40.0
    config.warmup_percent = 5.0
    config.eval_percent = 20.0
    config.checkpoint_percent = 20.0
    config.steps_per_loop = 20
    config.label_smoothing = 0.1
    config.model = {
        "name": "vivit_ti8x4_d3_tl4at1",
        "image_size": 32,
        "num_frames": 8,
        "width": 96,
        "num_heads": 3,
        "mlp_dim": 192,
    }
    config.data = {
        "source": "freedoom_motion",
        "final_split": "test",
        "normalization": "clip",
    }
    config.video = {
        "stride": 2,
        "min_resize": 32,
        "scale_jitter": (1.0, 1.25),
        "color_drop": 0.5,
        "temporal_views": 1,
        "spatial_views": 1,
    }
    config.optimizer = {"learning_rate": 1.5e-3, "weight_decay": 0.05}
    config.demo = {"expected_accuracy": "0.83 to 0.90"}
    return config
