"""CRC-32C with the mask that TFRecord files use."""

import functools
import warnings
from collections.abc import Callable

POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
MASK_DELTA = 0xA282EAD8
WORD = 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """Computes the checksum in Python; meant for a few bytes.

    Args:
        data: any bytes.

    Returns:
        The masked CRC-32C, 32 bits.
    """
    table = _table()
    crc = WORD
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return _mask(crc ^ WORD)


def masked_crc32c_if_fast(data: bytes) -> int | None:
    """Computes the checksum if a compiled implementation is installed.

    Args:
        data: any bytes.

    Returns:
        The masked CRC-32C, or None: for whole records Python would take longer than
        everything else together.
    """
    compiled = _compiled()
    return None if compiled is None else _mask(compiled(data))


def _mask(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & WORD


@functools.cache
def _table() -> tuple[int, ...]:
    return tuple(_table_entry(byte) for byte in range(256))


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


@functools.cache
def _compiled() -> Callable[[bytes], int] | None:
    try:
        import google_crc32c
    except ImportError:
        warnings.warn(
            "checksums of records are not verified: pip install google-crc32c", stacklevel=2
        )
        return None
    return google_crc32c.value  # type: ignore[no-any-return]
