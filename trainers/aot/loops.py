"""Finds how often the loops of a compiled program run."""

import operator
import re
from collections.abc import Callable

from trainers.aot.hlo import Computation
from trainers.aot.hlo import Instruction
from trainers.aot.hlo import Module

#: An integer, the parts of a tuple, or None for what only a run would tell.
Value = int | tuple["Value", ...] | None

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# By opcode, comparisons by their direction.
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "and": operator.and_,
    "or": operator.or_,
    "EQ": operator.eq,
    "NE": operator.ne,
    "LT": operator.lt,
    "LE": operator.le,
    "GT": operator.gt,
    "GE": operator.ge,
}
# Operations that leave a small integer as it is. TensorFlow's counters are pairs of halves.
_SAME = ("copy", "bitcast", "bitcast-convert", "convert")
_FOLLOWED = {*_SAME, *_OPERATIONS, "compare", "select", "tuple", "get-tuple-element", "fusion"}


def trip_count(loop: Instruction, inside: Computation, module: Module) -> int:
    """Returns how many times a loop runs; 1 if only a run would tell.

    XLA writes the number down for CPUs and GPUs. The TPU's compiler does not, so the loop's counter
    is followed from trip to trip.
    """
    known = _KNOWN.search(loop.attributes)
    if known:
        return int(known[1])
    state = _value(loop.operands[0], inside, (), module)
    condition = module.computations[loop.attribute("condition")]
    body = module.computations[loop.attribute("body")]
    trips = 0
    while running := _value(condition.root, condition, (state,), module):
        previous, state = state, _value(body.root, body, (state,), module)
        trips += 1
        if state == previous:
            return 1
    return 1 if running is None else trips


def _value(name: str, inside: Computation, given: tuple[Value, ...], module: Module) -> Value:
    """Returns a value, as far as it follows from constants and from the parameters `given`."""
    instruction = inside.instructions[name]
    opcode = instruction.opcode
    if opcode == "constant":
        return int(instruction.arguments) if instruction.arguments.isdecimal() else None
    if opcode == "parameter":
        index = int(instruction.arguments)
        return given[index] if index < len(given) else None
    is_scalar = all(each.shape == () for each in instruction.result)
    if opcode not in _FOLLOWED or not (is_scalar or opcode == "tuple"):
        return None
    values = tuple(_value(each, inside, given, module) for each in instruction.operands)
    if opcode == "tuple":
        return values
    if opcode == "get-tuple-element":
        (whole,) = values
        return whole[int(instruction.attribute("index"))] if isinstance(whole, tuple) else None
    if opcode == "fusion":
        # Its parameters are those values.
        called = module.computations[instruction.called[0]]
        return _value(called.root, called, values, module)
    if opcode == "select":
        chosen, *cases = values
        return None if chosen is None else cases[0 if chosen else 1]
    if len(values) == 1:
        return values[0]
    first, second = values
    if isinstance(first, int) and isinstance(second, int):
        return int(_OPERATIONS[instruction.attribute("direction") or opcode](first, second))
    return None
