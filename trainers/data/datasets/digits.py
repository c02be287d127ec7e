"""Opens the handwritten digits: 1,797 real 8x8 images that come with scikit-learn."""

import numpy as np

from trainers.data.datasets.in_memory import InMemorySource
from trainers.utils.errors import ConfigurationError

TRAIN_PART = 0.70
VALIDATION_PART = 0.15
SPLIT_SEED = 0
LARGEST_VALUE = 16  # the file counts ink from 0 to 16


def digits_source(split: str) -> InMemorySource:
    """Opens the digits: (8, 8, 3), white ink on black.

    One fixed random order is cut into 70 % train, 15 % validation and 15 % test. Raises
    ConfigurationError if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigurationError(
            f"data.source=digits needs scikit-learn, which could not be imported "
            f"({error}). Install it with: pip install scikit-learn"
        ) from error
    ink, labels = load_digits(return_X_y=True)
    images = np.round(ink * (255.0 / LARGEST_VALUE)).astype(np.uint8)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    ends = [round(part * len(order)) for part in (TRAIN_PART, TRAIN_PART + VALIDATION_PART)]
    train, validation, test = np.split(order, ends)
    chosen = {"train": train, "validation": validation, "test": test}[split]
    return InMemorySource(
        name="digits",
        split=split,
        pixels=images[chosen].reshape(-1, 8, 8),
        labels=labels[chosen].astype(np.int64),
        class_names=tuple(str(digit) for digit in range(10)),
    )
