"""CIFAR-100 from scratch: a small ViT at 32x32 pixels, 8 of its 64 tokens from block 2 on.

    python -c "import tensorflow_datasets as tfds; tfds.builder('cifar100').download_and_prepare()"
    python -m trainers.train --config=trainers/configs/cifar100.py --workdir=DIR

Hardware: one GPU, or a v5e:1x1 TPU (--strategy=tpu --tpu=local); on a CPU it takes hours.
Data: TFDS cifar100; the last tenth of the train split is kept to choose by, and the test split is
evaluated once, at the end.
Expected result: unknown; not measured by us.

The settings are those of `cifar10.py`.
"""

from ml_collections import ConfigDict

from trainers.configs import cifar10


def get_config() -> ConfigDict:
    """Returns the keys that differ from trainers/configuration/configuration.py."""
    config = cifar10.get_config()
    config.data.source = "tfds:cifar100"
    return config
