"""What a compiled program moves between chips, counted in its text."""

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# "  %name = (f32[8,3]{1,0:T(8,128)}, bf16[]) all-reduce(%a, %b), channel_id=1, …". In two
# parts, "…-start" and "…-done", where the chip works on while the data are under way.
_COLLECTIVE = re.compile(rf"^\s*(?:ROOT )?%?[\w.-]+ = (.+?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)[a-z\d]*\[([\d,]*)\]")
_BITS = re.compile(r"\d+")
_COMMENT = re.compile(r"/\*.*?\*/")


@dataclasses.dataclass(frozen=True)
class Collectives:
    """The collective operations of one kind in a program.

    Attributes:
        kind: One of `KINDS`.
        count: How many there are, the body of a loop counted once.
        size: Bytes of all their results on a chip.
    """

    kind: str
    count: int
    size: int


def count_collectives(program: str) -> tuple[Collectives, ...]:
    """Returns the collective operations of a program, by kind; kinds without any are left out.

    Args:
        program: The text of optimised HLO.
    """
    found = list(_operations(program))
    sizes = {kind: [size for each, size in found if each == kind] for kind in KINDS}
    return tuple(
        Collectives(kind, len(sizes[kind]), sum(sizes[kind])) for kind in KINDS if sizes[kind]
    )


def _operations(program: str) -> Iterator[tuple[str, int]]:
    for line in program.splitlines():
        match = _COLLECTIVE.match(line)
        if match:
            result, kind, started = match.groups()
            # An all-reduce that is started has the shape of its result alone, the others
            # have operands, results and, some of them, scratch space.
            operands_too = started is not None and kind != "all-reduce"
            yield kind, _size(_parts(result)[1] if operands_too else result)


def _parts(result: str) -> list[str]:
    """Returns the outermost parts of a tuple's shape."""
    parts, depth = [""], 0
    for character in _COMMENT.sub("", result.strip())[1:-1]:
        if character == "," and depth == 0:
            parts.append("")
            continue
        depth += (character in "([{") - (character in ")]}")
        parts[-1] += character
    return parts


def _size(shape: str) -> int:
    """Returns the bytes of an array, or of all arrays of a tuple."""
    arrays = _ARRAY.findall(shape)
    return sum(math.prod(_sizes(sizes)) * _bits(dtype) for dtype, sizes in arrays) // 8


def _sizes(sizes: str) -> list[int]:
    return [int(size) for size in sizes.split(",") if size]


def _bits(dtype: str) -> int:
    """Returns the bits of an element, by the name of its type: "bf16", "f8", "pred"."""
    bits = _BITS.search(dtype)
    return int(bits[0]) if bits else 8
