"""Decodes examples to pixels: only the wanted window of an image, only the wanted frames."""

import io
from collections.abc import Callable
from collections.abc import Mapping
from functools import partial
from typing import TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

Example = Mapping[str, tf.Tensor]

#: From the height and width of an image (int32 scalars) to the window to keep,
#: int32 (4,): top, left, height, width.
ChooseWindow = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

#: Height and width, int32 (2,).
Size: TypeAlias = tuple[int, int] | tf.Tensor

#: Larger images are refused before they are decoded: a file of a few kilobytes may claim to
#: hold billions of pixels. As bytes these take 400 MB.
MAX_PIXELS = 2**27

#: By which a JPEG's height and width are divided while it is decoded.
_DIVISORS = (1, 2, 4)

_JPEG_MAGIC = b"\xff\xd8\xff"
_GIF_MAGIC = b"GIF"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_BMP_MAGIC = b"BM"
# A WebP file begins with _RIFF_MAGIC, four bytes of length and _WEBP_MAGIC. Pillow reads it,
# because not every release of TensorFlow does.
_RIFF_MAGIC = b"RIFF"
_WEBP_MAGIC = b"WEBP"
_WEBP_PLACE = 8
#: JPEG XL, which some releases of TensorFlow read and others do not.
_JXL_MAGICS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL")
# The positions of width and height, four bytes each.
_PNG_SIZE = 16
_BMP_SIZE = 18
# For which values of the EXIF tag an image is mirrored left and right, or top and bottom, and
# for which its rows and columns are swapped after that.
_ORIENTATION_TAG = 0x0112
_MIRRORED_X = (2, 3, 7, 8)
_MIRRORED_Y = (3, 4, 6, 7)
_SWAPPED = (5, 6, 7, 8)
_EXIF_FORMATS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (_JPEG_MAGIC, JpegImageFile),
    (_PNG_MAGIC, PngImageFile),
    (_RIFF_MAGIC, WebPImageFile),
)


def decode_image(
    example: Example, exif_orientation: bool = False, smallest: Size | None = None
) -> tf.Tensor:
    """Returns the whole image of an example, uint8 (height, width, 3).

    JPEG, PNG, BMP and WebP files are read; a GIF or an animated WebP is refused because it
    holds several frames. The alpha channel is dropped. While running, an InvalidArgumentError says
    that the bytes are not an image; `trainers.data.decode_errors` names the file. `smallest` is as
    for `decode_window`.
    """
    if "image" in example:
        return example["image"]
    if smallest is not None:
        return decode_window(example, _whole_window, exif_orientation, smallest)
    image = _decode_bytes(example["encoded"])
    if not exif_orientation:
        return image
    # Pillow decodes a PNG to find its tag, so first make sure that it is not a bomb.
    with tf.control_dependencies([image]):
        return _turned(image, _orientation(example["encoded"]))


def decode_window(
    example: Example,
    choose_window: ChooseWindow,
    exif_orientation: bool = False,
    smallest: Size | None = None,
) -> tf.Tensor:
    """Returns a window of the image of an example, uint8 (window height, window width, 3).

    The size of a JPEG is read from its header, and the blocks outside of the window
    are never decoded: this is most of the speed of a crop-and-resize pipeline. With
    `exif_orientation` the window is one of the turned image.

    With `smallest`, a JPEG is decoded at half or quarter scale if its window still has at least
    this size then: its inverse transform makes fewer pixels, each about the mean of a square. The
    edges of the window are rounded to pixels of that scale.
    """
    if "image" in example:
        return _cut_window(example["image"], choose_window)
    encoded = example["encoded"]

    def from_jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(encoded)
        with tf.control_dependencies([_check_size(shape[0], shape[1])]):
            if not exif_orientation:
                return _decode_jpeg(encoded, choose_window(shape[0], shape[1]), smallest)
            orientation = _orientation(encoded)
            window = _stored_window(shape[0], shape[1], orientation, choose_window)
            stored_smallest = smallest
            if smallest is not None:
                swapped = _is_one_of(orientation, _SWAPPED)
                stored_smallest = tf.where(swapped, smallest[::-1], smallest)
            return _turned(_decode_jpeg(encoded, window, stored_smallest), orientation)

    def from_other_format() -> tf.Tensor:
        return _cut_window(decode_image(example, exif_orientation), choose_window)

    # tf.io.is_jpeg checks the same three bytes.
    image = tf.cond(_begins_with(encoded, _JPEG_MAGIC), from_jpeg, from_other_format)
    return tf.ensure_shape(image, (None, None, 3))


def _whole_window(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    return tf.stack([0, 0, height, width])


def _decode_jpeg(encoded: tf.Tensor, window: tf.Tensor, smallest: Size | None) -> tf.Tensor:
    if smallest is None:
        return tf.io.decode_and_crop_jpeg(encoded, window, channels=3)

    def at_scale(divisor: int) -> tf.Tensor:
        # The operation takes a window of the scaled image. Both edges are rounded alike, so at
        # least the window's size over `divisor`, rounded down, remains.
        begin, end = window[:2], window[:2] + window[2:]
        begin, end = ((edge + divisor // 2) // divisor for edge in (begin, end))
        scaled = tf.concat([begin, end - begin], axis=0)
        return tf.io.decode_and_crop_jpeg(encoded, scaled, channels=3, ratio=divisor)

    times = tf.reduce_min(window[2:] // smallest)
    branches = [partial(at_scale, divisor) for divisor in _DIVISORS]
    return tf.switch_case(tf.reduce_sum(tf.cast(times >= _DIVISORS[1:], tf.int32)), branches)


def _decode_bytes(encoded: tf.Tensor) -> tf.Tensor:
    is_webp = _begins_with(encoded, _RIFF_MAGIC)
    is_webp &= _begins_with(encoded, _WEBP_MAGIC, _WEBP_PLACE)
    image = tf.cond(
        is_webp, lambda: _decode_by_pillow(encoded), lambda: _decode_by_tensorflow(encoded)
    )
    return tf.ensure_shape(image, (None, None, 3))


# A graph, because eagerly a Python function raises its own errors instead of TensorFlow's.
@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def _decode_by_pillow(encoded: tf.Tensor) -> tf.Tensor:
    return tf.numpy_function(_decode_webp, [encoded], tf.uint8, stateful=False)


def _decode_webp(encoded: bytes) -> NDArray[np.uint8]:
    try:
        # Not Image.open, because it warns of sizes that are allowed here.
        with WebPImageFile(io.BytesIO(encoded)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"the image has more than {MAX_PIXELS} pixels")
            if image.is_animated:
                raise ValueError("an animated WebP is not supported: it holds several frames")
            return np.asarray(image.convert("RGB"))
    except DecompressionBombError as error:
        raise ValueError(f"the image has more than {MAX_PIXELS} pixels") from error
    # Pillow raises various errors for a damaged file, with little text.
    except (EOFError, OSError, SyntaxError) as error:
        raise ValueError("the WebP is damaged") from error


def _decode_by_tensorflow(encoded: tf.Tensor) -> tf.Tensor:
    is_jxl = tf.reduce_any([_begins_with(encoded, magic) for magic in _JXL_MAGICS])
    refusals = [
        tf.debugging.assert_equal(
            _begins_with(encoded, _GIF_MAGIC),
            False,
            "GIF is not supported: it may hold several frames",
        ),
        tf.debugging.assert_equal(
            is_jxl, False, "JPEG XL is not supported: expected JPEG, PNG, BMP or WebP"
        ),
        _check_size(*_declared_size(encoded)),
    ]
    with tf.control_dependencies(refusals):
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _begins_with(encoded: tf.Tensor, magic: bytes, place: int = 0) -> tf.Tensor:
    # `substr` refuses a position past the end.
    start = tf.minimum(place, tf.strings.length(encoded))
    return tf.equal(tf.strings.substr(encoded, start, len(magic)), magic)


def _declared_size(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the two sides as the header has them, int32; 0 if the bytes are not an image."""

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
    # A BMP stored from the top down has a negative height.
    pixels = tf.abs(tf.cast(height, tf.int64) * tf.cast(width, tf.int64))
    message = f"the image has more than {MAX_PIXELS} pixels"
    return tf.debugging.assert_less_equal(pixels, tf.constant(MAX_PIXELS, tf.int64), message)


def _cut_window(image: tf.Tensor, choose_window: ChooseWindow) -> tf.Tensor:
    shape = tf.shape(image)
    window = choose_window(shape[0], shape[1])
    begin = tf.pad(window[:2], [[0, 1]])
    channels = image.shape[-1]
    size = tf.pad(window[2:], [[0, 1]], constant_values=channels)
    return tf.ensure_shape(tf.slice(image, begin, size), (None, None, channels))


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def _orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the value of the EXIF tag, int32 (); 1, as stored, if there is none."""
    value = tf.numpy_function(_read_orientation, [encoded], tf.int32, stateful=False)
    return tf.ensure_shape(value, ())


def _read_orientation(encoded: bytes) -> np.int32:
    for magic, kind in _EXIF_FORMATS:
        if encoded.startswith(magic):
            try:
                value = kind(io.BytesIO(encoded)).getexif().get(_ORIENTATION_TAG)
            except Exception:  # a damaged tag may raise anything; the pixels may be fine
                break
            return np.int32(next((each for each in range(1, 9) if each == value), 1))
    return np.int32(1)


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns a stored image as it is to be shown."""
    for values, step in (
        (_MIRRORED_X, partial(tf.reverse, axis=[1])),
        (_MIRRORED_Y, partial(tf.reverse, axis=[0])),
        (_SWAPPED, partial(tf.transpose, perm=(1, 0, 2))),
    ):
        wanted = _is_one_of(orientation, values)
        image = tf.cond(wanted, partial(step, image), partial(tf.identity, image))
    return tf.ensure_shape(image, (None, None, 3))


def _stored_window(
    height: tf.Tensor, width: tf.Tensor, orientation: tf.Tensor, choose_window: ChooseWindow
) -> tf.Tensor:
    """Returns the window of the stored image that becomes the chosen one."""
    swapped = _is_one_of(orientation, _SWAPPED)
    shown = tf.where(swapped, tf.stack([width, height]), tf.stack([height, width]))
    window = choose_window(shown[0], shown[1])
    window = tf.where(swapped, tf.gather(window, (1, 0, 3, 2)), window)
    top, left, rows, columns = tf.unstack(window)
    top = tf.where(_is_one_of(orientation, _MIRRORED_Y), height - top - rows, top)
    left = tf.where(_is_one_of(orientation, _MIRRORED_X), width - left - columns, left)
    return tf.stack([top, left, rows, columns])


def _is_one_of(orientation: tf.Tensor, values: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(tf.equal(orientation, values))


def video_length(example: Example) -> tf.Tensor:
    """Returns the number of frames of a video, int32 (), 1 or more.

    An InvalidArgumentError, raised while running, says that the video has no frame;
    `trainers.data.decode_errors` turns it into a message that names the file.
    """
    frames = example["video"] if "video" in example else example["frames"]
    length = tf.shape(frames)[0]
    refusal = tf.debugging.assert_positive(length, "the video holds no frames")
    with tf.control_dependencies([refusal]):
        return tf.identity(length)


def frame_size(example: Example, index: tf.Tensor) -> tf.Tensor:
    """Returns the height and width of a frame, int32 (2,); of a JPEG from its header."""
    if "video" in example:
        return tf.shape(example["video"])[1:3]
    encoded = example["frames"][index]
    return tf.cond(
        _begins_with(encoded, _JPEG_MAGIC),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: tf.shape(_decode_bytes(encoded))[:2],
    )


def decode_frames(
    example: Example,
    indices: tf.Tensor,
    finish: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
    smallest: Size | None = None,
) -> tf.Tensor:
    """Returns some frames of a video, uint8 (n, height, width, 3), or what is made of each.

    `indices` are those of the frames, int32 (n,); a repeated index is decoded again. `finish` makes
    uint8 of frames, ([n,] height, width, 3): a frame that was just decoded is still in the
    processor's cache. `smallest` is as for `decode_window`.

    While running, an InvalidArgumentError says that the bytes of a frame are not an image, or that
    two frames differ in size; `trainers.data.decode_errors` turns it into a message that names
    both.
    """
    if "video" in example:
        return finish(tf.gather(example["video"], indices))
    size = frame_size(example, indices[0])

    def whole(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        message = "the frames of the video differ in size"
        with tf.control_dependencies([tf.debugging.assert_equal([height, width], size, message)]):
            return _whole_window(height, width)

    return tf.map_fn(
        lambda encoded: finish(decode_window({"encoded": encoded}, whole, smallest=smallest)),
        tf.gather(example["frames"], indices),
        fn_output_signature=tf.uint8,
    )
