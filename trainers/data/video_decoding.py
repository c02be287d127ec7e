"""From an example of a source of videos to frames, decoding only those that are wanted."""

import tensorflow as tf

from trainers.data.decoding import Example
from trainers.data.decoding import decode_image


def video_length(example: Example) -> tf.Tensor:
    """Return the number of frames of a video.

    Args:
        example: of a source of videos, with "video" or "frames".

    Returns:
        int32 (), 1 or more.

    Raises:
        tf.errors.InvalidArgumentError: while running, if the video has no frame;
            `trainers.data.failures` turns it into a message that names the file.
    """
    frames = example["video"] if "video" in example else example["frames"]
    length = tf.shape(frames)[0]
    refusal = tf.debugging.assert_positive(length, "the video holds no frames")
    # In a graph the assertion is an operation to wait for; eagerly it is None.
    with tf.control_dependencies([] if refusal is None else [refusal]):
        return tf.identity(length)


def decode_frames(example: Example, indices: tf.Tensor) -> tf.Tensor:
    """Return some frames of a video.

    Args:
        example: of a source of videos, with "video" or "frames".
        indices: of the frames, int32 (n,); one that occurs twice is decoded twice.

    Returns:
        uint8 (n, height, width, 3).

    Raises:
        tf.errors.InvalidArgumentError: while running, if the bytes of a frame are no
            image, or two of the frames differ in size; `trainers.data.failures` turns
            it into a message that names the file and the frame.
    """
    if "video" in example:
        return tf.gather(example["video"], indices)
    # Frames of different sizes cannot be stacked: the loop itself refuses them.
    return tf.map_fn(
        lambda encoded: decode_image({"encoded": encoded}),
        tf.gather(example["frames"], indices),
        fn_output_signature=tf.TensorSpec((None, None, 3), tf.uint8),
    )
