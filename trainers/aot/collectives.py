"""Counts the bytes that a compiled program moves between chips."""

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# "  %name = (f32[8,3]{1,0:T(8,128)}, bf16[]) all-reduce(%a, %b), channel_id=1, …", or in two
# parts, "…-start" and "…-done".
_COLLECTIVE = re.compile(rf"^\s*(?:ROOT )?%?[\w.-]+ = (.+?) ({'|'.join(KINDS)})(-start)?\(")
# Where communication overlaps computation, one operation appears in every part of the program
# that does a piece of it; the parts name the chain that they belong to.
_CHAIN = re.compile(r'\bchain_id="(\d+)"')
# "%all-reduce-scatter.5 (input: bf16[3072,768]) -> bf16[768,768] {": the TPU's own form of a
# reduce-scatter has an all-reduce in it.
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\) -> (.+) \{$")
_REDUCE_SCATTER = "all-reduce-scatter"
# The bits of an element, as its type names them ("bf16", "f8e4m3fn", "pred"), and the dimensions.
_ARRAY = re.compile(r"\b[a-z]+(\d*)[a-z\d]*\[([\d,]*)\]")
_COMMENT = re.compile(r"/\*.*?\*/")


@dataclasses.dataclass(frozen=True)
class Collectives:
    """The collective operations of one kind, of `KINDS`, in a program."""

    kind: str
    count: int  # the body of a loop counts once
    size: int  # bytes of all their results on a chip


def count_collectives(program: str) -> tuple[Collectives, ...]:
    """Returns the collective operations of optimised HLO by kind; absent kinds are left out."""
    sizes = dict(_operations(program))
    by_kind = {kind: [size for key, size in sizes.items() if key[0] == kind] for kind in KINDS}
    return tuple(
        Collectives(kind, len(found), sum(found)) for kind, found in by_kind.items() if found
    )


def _operations(program: str) -> Iterator[tuple[tuple[str, str], int]]:
    """Yields kind and place of each operation, and the size of its result."""
    computation, computed = "", ""
    for number, line in enumerate(program.splitlines()):
        begun, match = _COMPUTATION.match(line), _COLLECTIVE.match(line)
        if begun:
            computation, computed = begun.groups()
        if match:
            result, kind, started = match.groups()
            chain = _CHAIN.search(line)
            key = f"chain {chain[1]}" if chain else f"line {number}"
            if computation.startswith(_REDUCE_SCATTER):
                yield ("reduce-scatter", key), _size(computed)
            else:
                # A started all-reduce has only the shape of its result; the others have operands,
                # results and maybe scratch space.
                has_more = started and kind != "all-reduce"
                yield (kind, key), _size(_parts(result)[1] if has_more else result)


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
    total = 0
    for bits, dimensions in _ARRAY.findall(shape):
        elements = math.prod(int(size) for size in dimensions.split(",") if size)
        total += elements * int(bits or 8)
    return total // 8
