"""Prepares the inputs that an export is checked on: evaluation examples in batches of 1 and 7."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.decode_errors import explain_data_failures
from trainers.data.preprocessing.augmentation import to_channels
from trainers.data.preprocessing.decoding import Example
from trainers.data.preprocessing.decoding import decode_frames
from trainers.data.preprocessing.decoding import decode_image
from trainers.data.preprocessing.decoding import video_length
from trainers.data.preprocessing.normalization import normalize
from trainers.data.sources import Source
from trainers.exporting.formats import NORMALIZED
from trainers.exporting.formats import SERVING
from trainers.exporting.runtime_check import Case
from trainers.exporting.served_model import ServedModel

BATCH_SIZES = (1, 7)
NUM_IMAGES = 32
# Two batches of 7: a clip costs as much as all those images.
NUM_VIDEOS = 14

Pixels = NDArray[np.uint8]


def read_examples(source: Source, served: ServedModel) -> list[Pixels]:
    """Returns images or videos, unprocessed and spread evenly over a set.

    There are `NUM_IMAGES` of (height, width, channels), or `NUM_VIDEOS` of (frames, height, width,
    channels), each of its own size; a smaller set is repeated. A long video is cut to twice the
    length of a clip.

    Raises:
        DataError: If one cannot be read.
    """
    count = NUM_VIDEOS if served.takes_videos else NUM_IMAGES
    indices = [number * source.num_examples // count for number in range(count)]

    def read(index: tf.Tensor) -> tf.Tensor:
        example = source.load(index)
        pixels = _frames(example, served) if served.takes_videos else decode_image(example)
        return to_channels(pixels, served.preprocessing.channels)

    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(indices, tf.int64)).map(read)
    with explain_data_failures(source, lambda: indices):
        return [pixels.numpy() for pixels in dataset]


def single_cases(examples: Sequence[Pixels], served: ServedModel, of_bytes: bool) -> list[Case]:
    """Returns the cases of a format that holds one function.

    With `of_bytes` the function takes bytes of the model's size, else normalised floats.
    """
    pixels = _resized(examples, served)
    inputs = pixels if of_bytes else normalize(pixels, served.normalization).numpy()
    return _cases("uint8" if of_bytes else "normalized", SERVING, inputs, _answers(pixels, served))


def saved_model_cases(examples: Sequence[Pixels], served: ServedModel) -> list[Case]:
    """Returns the cases of a SavedModel, for both signatures.

    The signature on images of any size needs images of one size in a batch. Alone, each image keeps
    its size; together, they are cut to the size of the smallest.
    """
    pixels = _resized(examples, served)
    expected = _answers(pixels, served)
    common = tuple(min(sides) for sides in zip(*(each.shape for each in examples), strict=True))
    cut = np.stack([each[tuple(map(slice, common))] for each in examples])
    expected_of_cut = _answers(_resized(cut, served), served)
    size = "x".join(map(str, common[:-1]))
    alone, together = BATCH_SIZES
    name = f"{SERVING}, uint8"
    return [
        Case(f"{name} of their own sizes, batch {alone}", SERVING, _cut(examples, alone), expected),
        Case(f"{name} {size}, batch {together}", SERVING, _cut(cut, together), expected_of_cut),
        *_cases(NORMALIZED, NORMALIZED, normalize(pixels, served.normalization).numpy(), expected),
    ]


def _cases(
    name: str, signature: str, inputs: NDArray[Any], expected: NDArray[np.float32]
) -> list[Case]:
    return [
        Case(f"{name}, batch {size}", signature, _cut(inputs, size), expected)
        for size in BATCH_SIZES
    ]


def _cut(inputs: Sequence[Any] | NDArray[Any], size: int) -> list[NDArray[Any]]:
    """Returns batches; the last one holds the remainder."""
    return [np.stack(list(inputs[begin : begin + size])) for begin in range(0, len(inputs), size)]


def _resized(examples: Sequence[Pixels] | Pixels, served: ServedModel) -> Pixels:
    return np.stack([served.resized(tf.constant(example)).numpy() for example in examples])


def _answers(pixels: Pixels, served: ServedModel) -> NDArray[np.float32]:
    """Returns the logits of the Keras model, (N, K)."""
    inputs = normalize(pixels, served.normalization)
    batches = [served.logits(inputs[begin : begin + 8]) for begin in range(0, len(pixels), 8)]
    return np.concatenate([batch.numpy() for batch in batches])


def _frames(example: Example, served: ServedModel) -> tf.Tensor:
    config = served.preprocessing
    assert isinstance(config, VideoPreprocessingConfig)
    longest = 2 * config.num_frames * config.stride
    return decode_frames(example, tf.range(tf.minimum(video_length(example), longest)))
