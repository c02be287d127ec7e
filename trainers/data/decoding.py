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
#: WebP and JPEG XL, which some releases of TensorFlow read and others do not.
_OTHER_MAGICS = (b"RIFF", b"\xff\x0a", b"\x00\x00\x00\x0cJXL")
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
        with tf.control_dependencies(_operations([_check_size(shape[0], shape[1])])):
            window = choose_window(shape[0], shape[1])
        return tf.io.decode_and_crop_jpeg(encoded, window, channels=3)

    def from_other_format() -> tf.Tensor:
        return _cut_window(_decode_bytes(encoded), choose_window)

    # tf.io.is_jpeg asks for the same three bytes.
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), _JPEG_MAGIC)
    image = tf.cond(is_jpeg, from_jpeg, from_other_format)
    return tf.ensure_shape(image, (None, None, 3))


def _decode_bytes(encoded: tf.Tensor) -> tf.Tensor:
    is_other = tf.reduce_any([_begins_with(encoded, magic) for magic in _OTHER_MAGICS])
    refusals = [
        tf.debugging.assert_equal(
            _begins_with(encoded, _GIF_MAGIC),
            False,
            "GIF is not supported: it may hold several frames",
        ),
        tf.debugging.assert_equal(
            is_other, False, "WebP and JPEG XL are not supported: expected JPEG, PNG or BMP"
        ),
        _check_size(*_declared_size(encoded)),
    ]
    with tf.control_dependencies(_operations(refusals)):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def _begins_with(encoded: tf.Tensor, magic: bytes) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, len(magic)), magic)


def _declared_size(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the two sides as the header has them, int32; 0 for what is no image."""

    def at(place: int, little_endian: bool) -> tf.Tensor:
        size = tf.strings.substr(encoded, place, 8)
        return tf.io.decode_raw(size, tf.int32, little_endian=little_endian)

    is_long = tf.strings.length(encoded) >= _BMP_SIZE + 8
    is_png = is_long & _begins_with(encoded, _PNG_MAGIC)
    is_bmp = is_long & _begins_with(encoded, _BMP_MAGIC)
    size = tf.case(
        [
            (_begins_with(encoded, _JPEG_MAGIC), lambda: tf.io.extract_jpeg_shape(encoded)[:2]),
            (is_png, lambda: at(_PNG_SIZE, little_endian=False)),
            (is_bmp, lambda: at(_BMP_SIZE, little_endian=True)),
        ],
        default=lambda: tf.zeros(2, tf.int32),
    )
    return size[0], size[1]


def _check_size(height: tf.Tensor, width: tf.Tensor) -> tf.Operation | None:
    # A BMP from the top downwards has a height below 0.
    pixels = tf.abs(tf.cast(height, tf.int64) * tf.cast(width, tf.int64))
    message = f"the image has more than {MAX_PIXELS} pixels"
    return tf.debugging.assert_less_equal(pixels, tf.constant(MAX_PIXELS, tf.int64), message)


def _operations(checks: list[tf.Operation | None]) -> list[tf.Operation]:
    """Return what to wait for: in a graph a check is an operation, eagerly it is None."""
    return [check for check in checks if check is not None]


def _cut_window(image: tf.Tensor, choose_window: ChooseWindow) -> tf.Tensor:
    shape = tf.shape(image)
    window = choose_window(shape[0], shape[1])
    begin = tf.pad(window[:2], [[0, 1]])
    size = tf.pad(window[2:], [[0, 1]], constant_values=3)
    return tf.slice(image, begin, size)
