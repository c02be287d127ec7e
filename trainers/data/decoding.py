"""From an example of a source to pixels, decoding only the window that is wanted."""

from collections.abc import Callable
from collections.abc import Mapping

import tensorflow as tf

Example = Mapping[str, tf.Tensor]

#: From the height and width of an image (int32 scalars) to the window to keep,
#: int32 (4,): top, left, height, width.
ChooseWindow = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

#: Larger images are refused before they are decoded: a file of a few kilobytes may claim to
#: hold billions of pixels. As bytes these take 400 MB.
MAX_PIXELS = 2**27

_JPEG_MAGIC = b"\xff\xd8\xff"
_GIF_MAGIC = b"GIF"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_BMP_MAGIC = b"BM"
# Where these two hold width and height, four bytes each.
_PNG_SIZE = 16
_BMP_SIZE = 18


def decode_image(example: Example) -> tf.Tensor:
    """Return the whole image of an example.

    JPEG, PNG and BMP files are read; a GIF is refused because it may hold several
    frames. The orientation tag of a camera (EXIF) is not applied.

    Args:
        example: see `ExampleSource.load`.

    Returns:
        uint8 (height, width, 3).

    Raises:
        tf.errors.InvalidArgumentError: while running, if the bytes are no image;
            `trainers.data.failures` turns it into a message that names the file.
    """
    if "image" in example:
        return example["image"]
    return _decode_bytes(example["encoded"])


def decode_window(example: Example, choose_window: ChooseWindow) -> tf.Tensor:
    """Return a window of the image of an example.

    The size of a JPEG is read from its header, and the blocks outside of the window
    are never decoded: this is most of the speed of a crop-and-resize pipeline.

    Args:
        example: see `ExampleSource.load`.
        choose_window: from height and width to the window, see `ChooseWindow`.

    Returns:
        uint8 (window height, window width, 3).
    """
    if "image" in example:
        return _cut_window(example["image"], choose_window)
    encoded = example["encoded"]

    def from_jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(encoded)
        with tf.control_dependencies(_checks(shape[0], shape[1])):
            window = choose_window(shape[0], shape[1])
        return tf.io.decode_and_crop_jpeg(encoded, window, channels=3)

    def from_other_format() -> tf.Tensor:
        return _cut_window(_decode_bytes(encoded), choose_window)

    # tf.io.is_jpeg asks for the same three bytes.
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), _JPEG_MAGIC)
    image = tf.cond(is_jpeg, from_jpeg, from_other_format)
    return tf.ensure_shape(image, (None, None, 3))


def _decode_bytes(encoded: tf.Tensor) -> tf.Tensor:
    is_gif = tf.equal(tf.strings.substr(encoded, 0, 3), _GIF_MAGIC)
    refusal = tf.debugging.assert_equal(
        is_gif, False, "GIF is not supported: it may hold several frames"
    )
    # In a graph the assertion is an operation to wait for; eagerly it is None.
    refusals = [] if refusal is None else [refusal]
    with tf.control_dependencies([*refusals, *_checks(*_declared_size(encoded))]):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def _declared_size(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return width and height as the header has them, int32; 0 for what is no image."""

    def begins_with(magic: bytes) -> tf.Tensor:
        return tf.equal(tf.strings.substr(encoded, 0, len(magic)), magic)

    def at(place: int, little_endian: bool) -> tf.Tensor:
        size = tf.strings.substr(encoded, place, 8)
        return tf.io.decode_raw(size, tf.int32, little_endian=little_endian)

    is_long = tf.strings.length(encoded) >= _BMP_SIZE + 8
    size = tf.case(
        [
            (begins_with(_JPEG_MAGIC), lambda: tf.io.extract_jpeg_shape(encoded)[:2]),
            (is_long & begins_with(_PNG_MAGIC), lambda: at(_PNG_SIZE, little_endian=False)),
            (is_long & begins_with(_BMP_MAGIC), lambda: at(_BMP_SIZE, little_endian=True)),
        ],
        default=lambda: tf.zeros(2, tf.int32),
    )
    return size[0], size[1]


def _checks(width: tf.Tensor, height: tf.Tensor) -> list[tf.Operation]:
    # A BMP from the top downwards has a height below 0.
    pixels = tf.abs(tf.cast(width, tf.int64) * tf.cast(height, tf.int64))
    message = f"the image has more than {MAX_PIXELS} pixels"
    check = tf.debugging.assert_less_equal(pixels, tf.constant(MAX_PIXELS, tf.int64), message)
    return [] if check is None else [check]


def _cut_window(image: tf.Tensor, choose_window: ChooseWindow) -> tf.Tensor:
    shape = tf.shape(image)
    window = choose_window(shape[0], shape[1])
    begin = tf.pad(window[:2], [[0, 1]])
    size = tf.pad(window[2:], [[0, 1]], constant_values=3)
    return tf.slice(image, begin, size)
