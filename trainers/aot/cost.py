"""Counts the matmul operations of a compiled program, and the bytes it moves through HBM."""

import dataclasses
import math
import re
from functools import cache

import numpy as np

from trainers.aot.hlo import Array
from trainers.aot.hlo import Computation
from trainers.aot.hlo import Instruction
from trainers.aot.hlo import Module
from trainers.aot.hlo import parse_module
from trainers.aot.loops import trip_count

# The matmuls in a kernel of JAX's splash attention: queries by keys, and weights by values. The
# backward pass computes the first of them again.
_SPLASH = re.compile(r"splash_m[hq]a_(fwd|dkv|dq)_")
_MATMULS = {"fwd": 2, "dkv": 4, "dq": 3}
_ESTIMATE = re.compile(r'"cost_estimate":\{"flops":"?(\d+)')

# Operations that move nothing; "…-done" counts for "…-start".
_FREE = re.compile(
    "parameter|constant|tuple|get-tuple-element|bitcast|after-all|opt-barrier|partition-id|"
    "replica-id|add-dependency|async-update|.*-start"
)
# Custom calls of libtpu that move nothing.
_MARKER = re.compile('custom_call_target="(?:ConcatBitcast|SliceBitcast|AllocateBuffer)"')
_SLICES = ("slice", "dynamic-slice", "gather")
# The operand that an operation writes into a larger array, which it changes in place.
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one run of a program costs a device."""

    flops: int  # of matmuls, convolutions and kernels, two to a multiply-accumulate
    hbm_bytes: int  # read and written, with the filling of tiles

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.hbm_bytes + other.hbm_bytes)

    def times(self, count: int) -> "Cost":
        return Cost(self.flops * count, self.hbm_bytes * count)


_NOTHING = Cost(0, 0)


def program_cost(text: str) -> Cost:
    """Returns the cost of a program in optimised HLO, loops by their trip counts.

    Both figures are lower bounds. An operation counts each operand once, although it may read it
    several times. A kernel that is neither splash attention nor states its cost counts no FLOPs,
    and a loop whose trip count is unknown counts once.
    """
    module = parse_module(text)
    return _Counter(module).computation(module.entry)


class _Counter:
    def __init__(self, module: Module) -> None:
        self._module = module
        self.computation = cache(self._computation)

    def _computation(self, name: str) -> Cost:
        computation = self._module.computations[name]
        costs = (self._cost(each, computation) for each in computation.instructions.values())
        return sum(costs, start=_NOTHING)

    def _cost(self, instruction: Instruction, inside: Computation) -> Cost:
        opcode = instruction.opcode
        if opcode == "while":
            once = self.computation(instruction.attribute("body"))
            return once.times(trip_count(instruction, inside, self._module))
        if opcode == "call":
            return self.computation(*instruction.called)
        if opcode == "conditional":
            branches = [self.computation(name) for name in instruction.called]
            return Cost(
                min(each.flops for each in branches), min(each.hbm_bytes for each in branches)
            )
        return Cost(self._flops(instruction, inside), self._bytes(instruction, inside))

    # ------------------------------------------------------------------------ operations
    def _flops(self, instruction: Instruction, inside: Computation) -> int:
        if instruction.opcode in ("fusion", "async-start"):
            return sum(
                self._flops(each, called)
                for called in (self._module.computations[name] for name in instruction.called)
                for each in called.instructions.values()
            )
        operands = [inside.instructions[name].result for name in instruction.operands]
        if instruction.opcode == "dot":
            return _dot_flops(instruction, operands[0][0])
        if instruction.opcode == "convolution":
            return _convolution_flops(instruction, operands[0][0], operands[1][0])
        if instruction.opcode == "custom-call":
            return kernel_flops(instruction, [array for each in operands for array in each])
        return 0

    # ----------------------------------------------------------------------------- bytes
    def _bytes(self, instruction: Instruction, inside: Computation) -> int:
        opcode = instruction.opcode
        if _FREE.fullmatch(opcode) or _MARKER.search(instruction.attributes):
            return 0
        results = sum(array.hbm_size for array in instruction.result)
        if opcode.endswith("-done"):
            sources = inside.instructions[instruction.operands[0]].operands
            held = sum(self._held(source, inside) for source in sources)
            return results + min(held, sum(array.size for array in instruction.result))
        if opcode == "fusion":
            (called,) = (self._module.computations[name] for name in instruction.called)
            read = sum(
                self._read(called.parameters[index], called, self._held(name, inside))
                for index, name in enumerate(instruction.operands)
                if self._held(name, inside)
            )
            return read + self._written(instruction, instruction.result)
        if opcode in _SLICES:
            whole, *indices = instruction.operands
            taken = min(self._held(whole, inside), instruction.result[0].size)
            return results + taken + sum(self._held(each, inside) for each in indices)
        if opcode in _UPDATES:
            update = inside.instructions[instruction.operands[_UPDATES[opcode]]].result[0]
            written = min(update.size, results)
            others = sum(self._held(each, inside) for each in instruction.operands[1:])
            return written + others
        return results + sum(self._held(name, inside) for name in set(instruction.operands))

    def _held(self, name: str, inside: Computation) -> int:
        """Returns the bytes of a value that are in HBM."""
        return sum(array.hbm_size for array in inside.instructions[name].result)

    def _read(self, name: str, inside: Computation, returned: int) -> int:
        """Returns the bytes that a fused computation reads of a value.

        `returned` are those that are read of it where it is also a result.
        """
        size = sum(array.size for array in inside.instructions[name].result)
        read = returned if name == inside.root else 0
        for user in inside.users[name]:
            if user.opcode == "bitcast":
                read += self._read(user.name, inside, returned)
            elif user.opcode == "fusion":
                (called,) = (self._module.computations[each] for each in user.called)
                further = self._read(user.name, inside, returned)
                read += sum(
                    self._read(called.parameters[index], called, further)
                    for index, operand in enumerate(user.operands)
                    if operand == name
                )
            elif user.opcode in _SLICES and user.operands[0] == name:
                read += user.result[0].size
            elif user.opcode not in _UPDATES or user.operands[0] != name:
                read += size
        return min(size, read)

    def _written(self, fusion: Instruction, results: tuple[Array, ...]) -> int:
        """Returns the bytes that a fusion writes into its results in HBM."""
        (called,) = (self._module.computations[name] for name in fusion.called)
        root = called.instructions[called.root]
        parts = root.operands if root.opcode == "tuple" else (root.name,)
        if len(parts) != len(results):
            return sum(array.hbm_size for array in results)
        return sum(
            min(array.hbm_size, self._changed(name, called))
            for name, array in zip(parts, results, strict=True)
        )

    def _changed(self, name: str, inside: Computation) -> int:
        """Returns the bytes of a fused value that are not those of an array changed in place."""
        value = inside.instructions[name]
        while value.opcode == "bitcast":
            value = inside.instructions[value.operands[0]]
        if value.opcode in _UPDATES:
            return inside.instructions[value.operands[_UPDATES[value.opcode]]].result[0].size
        if value.opcode == "fusion" and len(value.result) == 1:
            (called,) = (self._module.computations[each] for each in value.called)
            return self._changed(called.root, called)
        return sum(array.size for array in value.result)


# --------------------------------------------------------------------------------- FLOPs
def kernel_flops(call: Instruction, operands: list[Array]) -> int:
    """Returns the FLOPs of a kernel, for splash attention from the shapes of its operands.

    The tables of the mask, which are integers, come before queries and keys.
    """
    estimate = _ESTIMATE.search(call.attributes)
    if estimate:
        return int(estimate[1])
    kernel = _SPLASH.search(call.name)
    if not kernel:
        return 0
    queries, keys, *_ = (array for array in operands if "f" in array.dtype)
    # The fused backward pass has the gradient of the queries as a further result.
    fused = kernel[1] == "dkv" and len(call.result) > 4
    matmuls = _MATMULS[kernel[1]] + fused
    return 2 * matmuls * math.prod(queries.shape) * max(keys.shape[-2:])


def _dot_flops(dot: Instruction, left: Array) -> int:
    contracted = [int(axis) for axis in dot.attribute("lhs_contracting_dims").split(",") if axis]
    summed = math.prod(left.shape[axis] for axis in contracted)
    return 2 * math.prod(dot.result[0].shape) * summed


def _convolution_flops(convolution: Instruction, images: Array, kernel: Array) -> int:
    labels = re.split("_|->", convolution.attribute("dim_labels"))
    image_labels, kernel_labels, result_labels = labels
    window = dict(re.findall(r"(\w+)=(\S+)", convolution.attribute("window")))
    positions = 1
    for index, size in enumerate(window["size"].split("x") if window else ()):
        settings = {
            name: window[name].split("x")[index].split("_")[0] for name in window if name != "size"
        }
        positions *= _positions(
            int(size),
            images.shape[image_labels.index(str(index))],
            convolution.result[0].shape[result_labels.index(str(index))],
            int(settings.get("stride", 1)),
            int(settings.get("pad", 0)),
            int(settings.get("lhs_dilate", 1)),
            int(settings.get("rhs_dilate", 1)),
        )
    channels = kernel.shape[kernel_labels.index("i")] * kernel.shape[kernel_labels.index("o")]
    batch = images.shape[image_labels.index("b")]
    return 2 * positions * channels * batch // int(convolution.attribute("batch_group_count") or 1)


@cache
def _positions(
    window: int, size: int, results: int, stride: int, pad: int, dilation: int, kernel_dilation: int
) -> int:
    """Returns how many products of one dimension are of an element, not of filling.

    The TPU's compiler writes batched matmuls as convolutions of which most is filling.
    """
    first = np.arange(results) * stride - pad
    places = (first + index * kernel_dilation for index in range(window))
    end = (size - 1) * dilation + 1
    return sum(
        int(np.count_nonzero((at >= 0) & (at < end) & (at % dilation == 0))) for at in places
    )
