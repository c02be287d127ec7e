"""Reads the computations of a compiled program from the text of its optimised HLO."""

import dataclasses
import math
import re
from functools import cached_property

# "  ROOT %name = (f32[8,3]{1,0:T(8,128)S(1)}, bf16[]) opcode(%a, /*index=5*/%b), key=value, …"
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.-]+) = (.*?) ([a-z][a-z\d-]*)\(([^)]*)\)?(.*)$")
# "%fused_computation.2 (param_0: f32[8,3]) -> f32[8] {"
_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) \(.*\{$")
_NAME = re.compile(r"%([\w.-]+)")
# The type of an element ("bf16", "f8e4m3fn", "pred"), dimensions and layout.
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z\d]*)\[([\d,]*)\](?:\{([^}]*)\})?")
_BITS = re.compile(r"[a-z]+(\d+)")
_TILE = re.compile(r"T\(([\d,]+)\)")
# The space of an array that is not in the device's large memory: S(1) is a TPU's VMEM.
_SPACE = re.compile(r"S\([1-9]\d*\)")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array, or a part of a tuple."""

    dtype: str  # as XLA names it, such as "bf16"
    shape: tuple[int, ...]
    layout: str  # "1,0:T(8,128)S(1)": the dimensions from the innermost on, tile, memory space

    @cached_property
    def size(self) -> int:
        """Bytes, with those that fill the tiles up."""
        order, _, rest = self.layout.partition(":")
        sizes = [self.shape[int(axis)] for axis in order.split(",") if axis]
        tile = _TILE.search(rest)
        if tile:
            edges = [int(edge) for edge in reversed(tile[1].split(","))]
            sizes += [1] * (len(edges) - len(sizes))
            sizes = [
                -(-size // edge) * edge
                for size, edge in zip(sizes, edges + [1] * len(sizes), strict=False)
            ]
        return math.prod(sizes or self.shape) * self._bits // 8

    @property
    def _bits(self) -> int:
        named = _BITS.match(self.dtype)
        return int(named[1]) if named else 8

    @property
    def hbm_size(self) -> int:
        """Bytes in HBM, 0 if it is in another memory."""
        return 0 if _SPACE.search(self.layout) else self.size


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An operation; `arguments` is the text between its parentheses."""

    name: str
    opcode: str
    result: tuple[Array, ...]
    arguments: str
    attributes: str

    @cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(_NAME.findall(self.arguments))

    def attribute(self, key: str) -> str:
        """Returns a value such as a number, a name or `{…}` without its braces; "" if absent."""
        found = re.search(rf"\b{key}=(?:\{{([^}}]*)\}}|%?([^\s,]+))", self.attributes)
        return (found[1] or found[2] or "") if found else ""

    @property
    def called(self) -> tuple[str, ...]:
        """The computations of a fusion, a call, a conditional or an asynchronous operation."""
        one = self.attribute("calls") or self.attribute("to_apply")
        if one:
            return (one,)
        branches = self.attribute("branch_computations") or ", ".join(
            "%" + self.attribute(f"{case}_computation") for case in ("true", "false")
        )
        return tuple(_NAME.findall(branches))


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order in which they run; the last one is the root."""

    instructions: dict[str, Instruction]
    root: str

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                users[operand].append(instruction)
        return users

    @cached_property
    def parameters(self) -> dict[int, str]:
        """The names of the parameters by number."""
        return {
            int(each.arguments): name
            for name, each in self.instructions.items()
            if each.opcode == "parameter"
        }


@dataclasses.dataclass(frozen=True)
class Module:
    """The computations of a program by name."""

    computations: dict[str, Computation]
    entry: str


def parse_module(text: str) -> Module:
    """Parses what `HloModule.to_string()` returns."""
    computations: dict[str, Computation] = {}
    entry = name = root = ""
    instructions: dict[str, Instruction] = {}
    for line in text.splitlines():
        begun, match = _COMPUTATION.match(line), _INSTRUCTION.match(line)
        if begun:
            name, instructions = begun[2], {}
            entry = name if begun[1] else entry
        elif match:
            is_root, of, result, opcode, arguments, attributes = match.groups()
            root = of if is_root else root
            instructions[of] = Instruction(of, opcode, _arrays(result), arguments, attributes)
        elif line == "}" and name:
            computations[name] = Computation(instructions, root)
            name = ""
        elif instructions and name:
            # The attributes of a kernel may have line breaks.
            last = instructions[next(reversed(instructions))]
            longer = dataclasses.replace(last, attributes=f"{last.attributes}\n{line}")
            instructions[last.name] = longer
    return Module(computations, entry)


def _arrays(result: str) -> tuple[Array, ...]:
    return tuple(
        Array(dtype, tuple(int(size) for size in dimensions.split(",") if size), layout)
        for dtype, dimensions, layout in _ARRAY.findall(result)
    )
