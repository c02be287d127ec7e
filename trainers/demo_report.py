"""What the image demo shows beside its accuracy: simple baselines and attention maps."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.utils.errors import ConfigurationError

#: Side of the thumbnails that the simple baselines see.
THUMBNAIL_SIDE = 8
#: Classes with pictures for everybody; the others are monsters.
ITEM_CLASSES = range(9, 20)


def baseline_accuracies(
    train: tuple[NDArray[np.uint8], NDArray[np.int64]],
    test: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> dict[str, float]:
    """Returns the test accuracy of two simple classifiers on 8x8 thumbnails.

    Args:
        train: Images `(N, H, W, 3)` and labels `(N,)`.
        test: The same of the test split.

    Returns:
        Accuracy by name: logistic regression and nearest neighbour.

    Raises:
        ConfigurationError: If scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
    except ImportError as error:
        raise ConfigurationError(
            "The demo needs scikit-learn: pip install '.[demo]' in a clone"
        ) from error
    classifiers = {
        "logistic regression on 8x8 thumbnails": LogisticRegression(max_iter=300),
        "nearest neighbour on 8x8 thumbnails": KNeighborsClassifier(1),
    }
    inputs, targets = thumbnails(train[0]), train[1]
    accuracies = {}
    for name, classifier in classifiers.items():
        with warnings.catch_warnings():
            # 300 iterations are enough for the third digit.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(inputs, targets)
        accuracies[name] = float(classifier.score(thumbnails(test[0]), test[1]))
    return accuracies


def thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns images averaged to 8x8 and flattened, floats in [0, 1], (N, 192)."""
    averaged = average_blocks(images.astype("float32") / 255, THUMBNAIL_SIDE)
    return averaged.reshape(len(images), -1)


def average_blocks(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Averages (N, H, W, ...) over equal blocks to (N, side, side, ...)."""
    count, height, width = values.shape[:3]
    if height % side or width % side:
        raise ValueError(f"{height}x{width} does not divide into {side}x{side} blocks")
    blocks = values.reshape(count, side, height // side, side, width // side, *values.shape[3:])
    return blocks.mean(axis=(2, 4))


def mass_inside(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns the share of each map's mass that lies on the object, (N, S).

    Args:
        maps: `(N, S, side, side)`, not negative; each is scaled to a sum of 1.
        masks: `(N, H, W)`, True on the object.
    """
    coverage = object_coverage(masks, maps.shape[-1])
    shares = maps / np.maximum(maps.sum(axis=(2, 3), keepdims=True), 1e-12)
    return np.einsum("nshw,nhw->ns", shares, coverage)


def object_coverage(masks: NDArray[np.bool_], side: int) -> NDArray[np.float64]:
    """Returns the share of each patch that the object covers, (N, side, side)."""
    return average_blocks(masks.astype("float64"), side)


def example_images(labels: NDArray[np.int64], seed: int) -> list[int]:
    """Returns one test image of each item class, drawn by the seed, not picked."""
    generator = np.random.default_rng(seed)
    chosen = []
    for label in ITEM_CLASSES:
        candidates = np.flatnonzero(labels == label)
        if len(candidates):
            chosen.append(int(generator.choice(candidates)))
    return chosen
