"""AViD, 887 actions, with the paper's X(2+1)D-M and TokenLearner.

    python -m trainers.train --config=trainers/configs/avid_x2plus1d.py \\
        --config.data.data_dir=RECORDS --workdir=DIR --engine=jax --strategy=multi_worker

Hardware: v5e:4x4, 16 chips with 4 clips each, the command on each of its hosts (docs/tpu.md; on
one host, such as v6e:2x2, --strategy=tpu; `trainers.tpu_check --engine=jax --num_classes=887` says
whether it fits). Attention is that of `charades_x2plus1d.py`.
Data: TFRecords of AViD (docs/video.md) at 12 frames a second, short side 256:
`trainers.make_video_records --frames_per_second=12`.
Expected result: unknown; not measured by us. The paper's 53.8 is the mean accuracy over
classes (Table 10: TokenLearner without Conv2D, from scratch, one view).

Published: the model (docs/video_models.md), clips of 64 frames, 224 pixels in training, from
scratch, one view, the mean over classes: `mean_class_accuracy`, by which the best checkpoint
is kept; `accuracy` is the share of videos. The view of the paper has 256 pixels:
`python -m trainers.evaluate --workdir=DIR --image_size=256`.
Ours, because nothing else was published: all the rest, as in `charades_x2plus1d.py`.
"""

from ml_collections import ConfigDict

from trainers.configs import charades_x2plus1d


def get_config() -> ConfigDict:
    config = charades_x2plus1d.get_config()
    config.loss = "softmax"
    config.keep_best_metric = "mean_class_accuracy"
    config.model.module = "token_learner"
    config.model.head_bias = 0.0
    config.data.multi_label = False
    config.video.stride = 1
    config.video.temporal_views = 1
    config.video.spatial_views = 1
    config.video.view_reduction = "logits"
    return config
