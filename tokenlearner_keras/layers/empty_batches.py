"""Convolutions of batches without examples."""

from typing import Any

from keras import ops


def convolve(convolution: Any, x: Any) -> Any:
    """Returns `convolution(x)`, also for a batch of 0 examples.

    TensorFlow's kernels for CPUs (oneDNN) give an empty batch the shape of their input.

    Args:
        convolution: A built layer, or a model of such.
        x: `(batch, ..., channels)`.
    """
    if x.shape[0] != 0:
        return convolution(x)
    return convolution(ops.pad(x, ((0, 1), *[(0, 0)] * (len(x.shape) - 1))))[:0]
