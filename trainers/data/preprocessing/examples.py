"""Turns an example of any source into a model's input: an image, a clip, or views of a video."""

import tensorflow as tf

from trainers.configuration.data_options import PreprocessingConfig
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.preprocessing.decoding import Example
from trainers.data.preprocessing.images import evaluation_example
from trainers.data.preprocessing.images import train_example
from trainers.data.preprocessing.videos import evaluation_clip
from trainers.data.preprocessing.videos import evaluation_views
from trainers.data.preprocessing.videos import is_mirrored
from trainers.data.preprocessing.videos import train_clip
from trainers.data.sources import Source
from trainers.utils.errors import ConfigurationError

Preprocessing = PreprocessingConfig | VideoPreprocessingConfig


def training_input(example: Example, seed: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Returns what a model is trained on: uint8 ([frames,] height, width, channels).

    `seed` is a stateless seed, int32 or int64 (2,).
    """
    if isinstance(preprocessing, VideoPreprocessingConfig):
        return train_clip(example, seed, preprocessing)
    return train_example(example, seed, preprocessing)


def training_label(example: Example, seed: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Returns the label of what `training_input` returns for the same seed: mirrored if that is."""
    label = example["label"]
    if "mirrored_label" in example and isinstance(preprocessing, VideoPreprocessingConfig):
        label = tf.where(is_mirrored(seed, preprocessing), example["mirrored_label"], label)
    return label


def evaluation_input(example: Example, preprocessing: Preprocessing, views: bool) -> tf.Tensor:
    """Returns what a model is evaluated on.

    It is uint8 (height, width, channels) of an image. With `views` it is all views of a video,
    (views, frames, height, width, channels), else the clip in its middle, without the first axis.
    """
    if not isinstance(preprocessing, VideoPreprocessingConfig):
        return evaluation_example(example, preprocessing)
    if views:
        return evaluation_views(example, preprocessing)
    return evaluation_clip(example, preprocessing)


def num_views(preprocessing: Preprocessing) -> int:
    """Returns how many views of an example `evaluation_input` has with `views`."""
    return preprocessing.num_views if isinstance(preprocessing, VideoPreprocessingConfig) else 1


def check_kind(source: Source, preprocessing: Preprocessing) -> None:
    """Raises ConfigurationError unless a source has what the model takes: images, or videos."""
    example = tf.data.Dataset.range(1).map(source.load).element_spec
    has_videos = "video" in example or "frames" in example
    takes_videos = isinstance(preprocessing, VideoPreprocessingConfig)
    if has_videos != takes_videos:
        names = {True: "videos", False: "images"}
        family = {True: "vivit_… or x2plus1d_…", False: "vit_…"}
        raise ConfigurationError(
            f"data.source: the model takes {names[takes_videos]}, and {source.name} holds "
            f"{names[has_videos]}. Choose another source, or a model named "
            f"{family[has_videos]}."
        )
