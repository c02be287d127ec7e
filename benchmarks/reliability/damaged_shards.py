"""Ways to damage a TFRecord file, and which of its records are lost by each."""

import random
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from trainers.data.records.tfrecord import masked_crc32c

_HEADER = 12
_FOOTER = 4


class Damaged(NamedTuple):
    """A damaged file, and the numbers of the records that cannot be read any more."""

    payload: bytes
    lost: list[int]


#: From the data of the records of a file, and the number of one of them, to the damaged file.
Damage = Callable[[list[bytes], int, random.Random], Damaged]


def frame(data: bytes) -> bytes:
    """Returns a record as it stands in a TFRecord file."""
    length = len(data).to_bytes(8, "little")
    return length + _checksum(length) + data + _checksum(data)


def records_of(payload: bytes) -> list[bytes]:
    """Returns the data of all records of an undamaged file."""
    found, offset = [], 0
    while offset < len(payload):
        length = int.from_bytes(payload[offset : offset + 8], "little")
        begin = offset + _HEADER
        found.append(payload[begin : begin + length])
        offset = begin + length + _FOOTER
    return found


def _checksum(data: bytes) -> bytes:
    return masked_crc32c(data).to_bytes(4, "little")


def _flip(begin: int, end: int) -> Damage:
    """Flips a bit of a record; negative places count from its end, `end` 0 is its end."""

    def damage(records: list[bytes], number: int, generator: random.Random) -> Damaged:
        framed = [bytearray(frame(data)) for data in records]
        size = len(framed[number])
        place = generator.randrange(begin % size, (end or size) if end > 0 else size + end)
        framed[number][place] ^= 1 << generator.randrange(8)
        return Damaged(b"".join(map(bytes, framed)), [number])

    return damage


def _cut_inside(records: list[bytes], number: int, generator: random.Random) -> Damaged:
    framed = [frame(data) for data in records]
    kept = framed[number][: generator.randrange(1, len(framed[number]))]
    return Damaged(b"".join([*framed[:number], kept]), list(range(number, len(records))))


def _cut_between(records: list[bytes], number: int, generator: random.Random) -> Damaged:
    lost = list(range(number, len(records)))
    return Damaged(b"".join(map(frame, records[:number])), lost)


def _empty(records: list[bytes], number: int, generator: random.Random) -> Damaged:
    return Damaged(b"", list(range(len(records))))


def _garbage(records: list[bytes], number: int, generator: random.Random) -> Damaged:
    return Damaged(generator.randbytes(3000), list(range(len(records))))


def _changed(kind: type, change: Callable[[Any], None]) -> Damage:
    """Changes what a record of a kind of example says, with checksums that are right."""

    def damage(records: list[bytes], number: int, generator: random.Random) -> Damaged:
        example: Any = kind.FromString(records[number])  # type: ignore[attr-defined]
        change(example)
        framed = [frame(data) for data in records]
        framed[number] = frame(example.SerializeToString())
        return Damaged(b"".join(framed), [number])

    return damage


#: Damages of the file itself; the last two leave no trace where the counts are not known.
OF_FILES: dict[str, Damage] = {
    "a bit of the data": _flip(_HEADER, -_FOOTER),
    "a bit of the length": _flip(0, 8),
    "a bit of the length's checksum": _flip(8, _HEADER),
    "a bit of the data's checksum": _flip(-_FOOTER, 0),
    "cut off in a record": _cut_inside,
    "random bytes": _garbage,
    "cut off between records": _cut_between,
    "empty": _empty,
}
WITHOUT_TRACE = {"cut off between records", "empty"}


def _no_image(example: tf.train.Example) -> None:
    example.features.feature["image"].bytes_list.value[0] = b"<!doctype html>" * 5


def _no_class(example: tf.train.Example) -> None:
    example.features.feature["label"].int64_list.value[0] = 10_000


#: Damages of files of images: of the file, and of what a record says.
OF_IMAGES: dict[str, Damage] = {
    **OF_FILES,
    "bytes that are no image": _changed(tf.train.Example, _no_image),
    "a label out of range": _changed(tf.train.Example, _no_class),
}


def _no_frame_image(example: tf.train.SequenceExample) -> None:
    for each in example.feature_lists.feature_list["image/encoded"].feature:
        each.bytes_list.value[0] = b"<!doctype html>" * 5


def _no_frames(example: tf.train.SequenceExample) -> None:
    del example.feature_lists.feature_list["image/encoded"].feature[:]


def _no_video_class(example: tf.train.SequenceExample) -> None:
    example.context.feature["clip/label/index"].int64_list.value[0] = 10_000


#: The same of files of videos.
OF_VIDEOS: dict[str, Damage] = {
    # Nobody knows how many videos there were: what leaves no trace is another set.
    **{name: each for name, each in OF_FILES.items() if name not in WITHOUT_TRACE},
    "frames that are no images": _changed(tf.train.SequenceExample, _no_frame_image),
    "a label out of range": _changed(tf.train.SequenceExample, _no_video_class),
    "no frames": _changed(tf.train.SequenceExample, _no_frames),
}
