"""Images of all formats, those turned by a camera, and those too large to be decoded."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL import ImageOps

from benchmarks.reliability.hostile_data import bombs
from trainers.data.preprocessing import decoding
from trainers.data.preprocessing.decoding import decode_image
from trainers.data.preprocessing.decoding import decode_window

pytestmark = pytest.mark.every_backend

Decode = Callable[[tf.Tensor], tf.Tensor]
BOMBS = bombs()


def _whole(encoded: tf.Tensor) -> tf.Tensor:
    return decode_image({"encoded": encoded})


def _window(encoded: tf.Tensor) -> tf.Tensor:
    return decode_window({"encoded": encoded}, lambda h, w: tf.stack([0, 0, h, w]))


@pytest.mark.parametrize("decode", [_whole, _window, tf.function(_whole), tf.function(_window)])
@pytest.mark.parametrize("ending", BOMBS)
def test_too_many_pixels(ending: str, decode: Decode) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 134217728 pixels"):
        decode(tf.constant(BOMBS[ending]))


@pytest.mark.parametrize("decode", [_whole, _window])
def test_the_size_is_read_from_the_header(monkeypatch: pytest.MonkeyPatch, decode: Decode) -> None:
    pixels = tf.zeros((3, 5, 3), tf.uint8)
    encoded = {"png": tf.io.encode_png(pixels), "jpeg": tf.io.encode_jpeg(pixels)}
    for limit, allowed in ((15, True), (14, False)):
        monkeypatch.setattr(decoding, "MAX_PIXELS", limit)
        for payload in encoded.values():
            if allowed:
                assert decode(payload).shape == (3, 5, 3)
            else:
                with pytest.raises(tf.errors.InvalidArgumentError, match="more than 14"):
                    decode(payload)


def test_what_is_no_image_is_refused_by_the_decoder() -> None:
    for payload in (b"", b"BM", b"\x89PNG\r\n\x1a\n", b"<!doctype html>" * 9):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="Unknown|Invalid|image|header|empty"
        ):
            _whole(tf.constant(payload))


def test_a_format_that_not_every_release_reads() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="JPEG XL is not supported"):
        _whole(tf.constant(b"\xff\x0a" + bytes(30)))


def _picture(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    channels = len(mode)
    values = np.random.default_rng(0).integers(0, 256, (3, 2, channels), np.uint8)
    return Image.fromarray(values, mode).resize(size)


def _bytes_of(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("decode", [_whole, _window, tf.function(_whole), tf.function(_window)])
def test_webp(decode: Decode, mode: str) -> None:
    picture = _picture(mode)
    encoded = _bytes_of(picture, format="WEBP", lossless=True, exact=True)
    np.testing.assert_array_equal(decode(tf.constant(encoded)), np.asarray(picture)[..., :3])


def test_webp_that_cannot_be_read() -> None:
    whole = _bytes_of(_picture(), format="WEBP")
    first, second = _picture(), _picture().rotate(180)
    animated = _bytes_of(first, format="WEBP", save_all=True, append_images=[second])
    bomb = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xfe\x3f\0" * 2
    for payload, reason in (
        (whole[: len(whole) // 2], "the WebP is damaged"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "the WebP is damaged"),
        (animated, "an animated WebP is not supported"),
        (bomb, "more than 134217728 pixels|damaged"),
        (b"RIFF\0\0\0\0WAVEfmt ", "."),
    ):
        for decode in (_whole, _window):
            with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
                decode(tf.constant(payload))


def _upright(encoded: tf.Tensor) -> tf.Tensor:
    return decode_image({"encoded": encoded}, exif_orientation=True)


@tf.function
def _upright_part(encoded: tf.Tensor) -> tf.Tensor:
    return decode_window({"encoded": encoded}, lambda h, w: tf.stack([1, 2, h - 5, w - 4]), True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {"WEBP": {"lossless": True}, "JPEG": {"subsampling": 0}}.get(kind, {})
    encoded = _bytes_of(_picture(), format=kind, exif=exif, **quality)
    stored = Image.fromarray(_whole(tf.constant(encoded)).numpy())
    stored.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored))
    assert expected.shape == ((24, 16, 3) if 5 <= orientation <= 8 else (16, 24, 3))
    np.testing.assert_array_equal(_upright(tf.constant(encoded)), expected)
    part = _upright_part(tf.constant(encoded))
    np.testing.assert_array_equal(part, expected[1:-4, 2:-2])


def test_images_without_a_readable_tag_stay_as_they_are() -> None:
    picture = _picture()
    for payload in (
        _bytes_of(picture, format="JPEG"),
        _bytes_of(picture, format="JPEG", exif=b"Exif\0\0II*\0nothing"),
        _bytes_of(picture, format="BMP"),
    ):
        encoded = tf.constant(payload)
        np.testing.assert_array_equal(_upright(encoded), _whole(encoded))
