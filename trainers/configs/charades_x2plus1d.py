"""Charades, any number of 157 actions a video, with the paper's X(2+1)D-M and TokenLearner.

    python -m trainers.train --config=trainers/configs/charades_x2plus1d.py \\
        --config.data.data_dir=RECORDS --workdir=DIR --engine=jax --strategy=multi_worker

Hardware: v5e:4x4, 16 chips with 4 clips each, the command on each of its hosts (docs/tpu.md; on
one host, such as v6e:2x2, --strategy=tpu; `trainers.tpu_check --engine=jax --num_classes=157` says
whether it fits). TensorFlow: v5e:4x4 with --strategy=tpu --tpu=NAME. The vector transformer's heads
have one channel, too few for the TPU's kernel: their attention is the matrix of all weights.
Data: TFRecords of Charades (docs/video.md) at 12 frames a second, short side 256, with all
labels of a video: `trainers.make_video_records --frames_per_second=12 --multi_label`.
Expected result: unknown; not measured by us. The paper's 66.3 mAP (Table 9: 12 frames a
second, Conv2D + TokenLearner, from scratch).

Published: the model (docs/video_models.md), clips of 64 frames, 224 pixels in training,
from scratch, mean average precision.
Ours, because nothing else was published: optimizer, learning rate, length, batch,
augmentation (those of our Kinetics recipes, longer), dropout, rematerialisation, the stride
(every second of the 12 frames, to see ten seconds), ten clips x three windows in a test, and the
maximum over them, which is usual for Charades. The paper tests one view of 256 pixels:
`python -m trainers.evaluate --workdir=DIR --noviews --image_size=256`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.topology = "v5e:4x4"
    config.batch_size = 64
    config.total_epochs = 100.0
    config.warmup_epochs = 5.0
    config.log_steps = 50
    config.eval_epochs = 5.0
    config.checkpoint_steps = 500
    config.dtype_policy = "mixed_bfloat16"
    config.loss = "sigmoid"
    config.keep_best_metric = "mean_average_precision"
    config.model = {
        "name": "x2plus1d_m_tokenlearner",
        "image_size": 224,
        "num_frames": 64,
        "dropout": 0.5,
        "remat": True,
        "head_bias": -4.0,  # about the share of videos that show an action
    }
    config.data = {
        "source": "records",
        "final_split": "test",
        "normalization": "unit",
        "multi_label": True,
    }
    config.video = {
        "stride": 2,
        "min_resize": 256,
        "scale_jitter": (0.9, 1.33),
        "flip": True,
        "color_jitter": 0.8,
        "color_drop": 0.1,
        "temporal_views": 10,
        "spatial_views": 3,
        "view_reduction": "max",
    }
    config.optimizer = {
        "name": "sgd",
        "learning_rate": 0.1,
        "schedule": "cosine",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "global_clipnorm": 1.0,
    }
    return config
