"""Images that claim to be too large are refused by their headers."""

from collections.abc import Callable

import pytest
import tensorflow as tf

from benchmarks.reliability.hostile_images import bombs
from trainers.data import decoding
from trainers.data.decoding import decode_image
from trainers.data.decoding import decode_window

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


def test_formats_that_not_every_release_reads() -> None:
    for payload in (b"RIFF\x00\x00\x00\x00WEBPVP8 ", b"\xff\x0a" + bytes(30)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="WebP and JPEG XL are not"):
            _whole(tf.constant(payload))
