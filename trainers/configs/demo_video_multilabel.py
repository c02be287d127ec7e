"""The video demo with any number of labels: which of eight motions does the camera make?

    python -m trainers.train --config=trainers/configs/demo_video_multilabel.py --workdir=DIR
    python -m trainers.demo_video --workdir=DIR

As `demo_video.py`, with several motions at once, a sigmoid for each, and mean average
precision.
Hardware: any CPU.
Expected test mean average precision: 0.79 to 0.82.
"""

from ml_collections import ConfigDict

from trainers.configs import demo_video


def get_config() -> ConfigDict:
    config = demo_video.get_config()
    config.loss = "sigmoid"
    config.label_smoothing = 0.0
    config.data.source = "freedoom_multilabel"
    config.data.multi_label = True
    config.demo.expected_accuracy = "0.79 to 0.82"  # mean average precision
    return config
