"""CIFAR-100 from scratch: a small ViT at 32x32 pixels, 8 of its 64 tokens from block 2 on.

    python -c "import tensorflow_datasets as tfds; tfds.builder('cifar100').download_and_prepare()"
    python -m trainers.train --config=trainers/configs/cifar100.py --workdir=DIR

Hardware: one GPU, or a v5e:1x1 TPU (--strategy=tpu --tpu=local); on a CPU it takes hours.
Expected result: unknown; not measured by us.
Settings and splits are those of `cifar10.py`.
"""

from ml_collections import ConfigDict

from trainers.configs import cifar10


def get_config() -> ConfigDict:
    config = cifar10.get_config()
    config.data.source = "tfds:cifar100"
    return config
