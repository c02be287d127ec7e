"""A small ViT with TokenLearner tells which of five handwritten digits occurs most.

    python -m trainers.train --config=trainers/configs/digit_relation.py --workdir=DIR \\
        --config.data.data_dir=MNIST

Canvases of 96x96 pixels with five small digits, three of them alike, and strokes of noise: who
reads one digit only is right in three of five cases. Digits, splits and MNIST are those of
cluttered_digits.py.
Hardware: any CPU; about a quarter of an hour on two cores.
Expected result: unknown; not measured by us.
"""

from ml_collections import ConfigDict

from trainers.configs import cluttered_digits


def get_config() -> ConfigDict:
    config = cluttered_digits.get_config()
    config.model.image_size = 96
    config.data.source = "digit_relation"
    return config
