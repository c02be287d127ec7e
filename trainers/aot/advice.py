"""Suggests what to change when a step does not fit, and the smallest slice that fits.

All of it is an estimate: weights, optimizer state and gradients keep their size, and the rest of
the memory grows with the examples that a chip has at a time.
"""

import dataclasses

from trainers.aot.topology import GIB
from trainers.aot.topology import Topology
from trainers.aot.topology import slices


@dataclasses.dataclass(frozen=True)
class MemoryUse:
    """The memory of the larger step, compiled for a slice."""

    topology: Topology
    batch_size: int  # global
    micro_batches: int  # parts of each chip's share (`gradient_accumulation_steps`)
    needed: int  # bytes on a chip
    fixed: int  # bytes of `needed` that a smaller batch does not save
    gradient: int  # bytes of one gradient, which the sum over micro-batches takes in addition
    remat: bool | str  # which activations are computed a second time (`model.remat`)
    plain_attention: bool = False  # whether the matrix of all weights was asked for
    model_axis: int = 1  # chips that share one copy of weights and optimizer state
    largest_model_axis: int = 1  # how many could; 1 if the engine cannot share a copy

    @property
    def fits(self) -> bool:
        return self.needed <= self.topology.generation.available


def smallest_slice(use: MemoryUse) -> Topology | None:
    """Returns the smallest slice of the same chips that should fit; None if none does."""
    for candidate in slices(use.topology.generation):
        shares = candidate.chips * use.micro_batches
        growth = use.topology.chips / candidate.chips
        even = use.batch_size % shares == 0 and candidate.chips % use.model_axis == 0
        if even and _fits(use, growth):
            return candidate
    return None


def smallest_micro_batches(use: MemoryUse) -> int | None:
    """Returns the `gradient_accumulation_steps` that should fit on the same slice."""
    count = use.micro_batches * 2
    while use.batch_size % (use.topology.chips * count) == 0:
        more = use.gradient if use.micro_batches == 1 else 0
        if _fits(use, use.micro_batches / count, more):
            return count
        count *= 2
    return None


def smallest_model_axis(use: MemoryUse) -> int | None:
    """Returns the `--model_axis` that should fit on the same slice; None if none does."""
    axis = use.model_axis * 2
    while axis <= use.largest_model_axis and use.topology.chips % axis == 0:
        saved = use.fixed - use.fixed * use.model_axis // axis
        if _fits(use, 1, -saved):
            return axis
        axis *= 2
    return None


def advice(use: MemoryUse) -> str:
    """Returns one line on what may help a configuration that does not fit."""
    hints = []
    larger, count = smallest_slice(use), smallest_micro_batches(use)
    if larger is not None and larger != use.topology:
        hints.append(f"--topology={larger.name}")
    if count is not None:
        hints.append(f"--config.gradient_accumulation_steps={count}")
    axis = smallest_model_axis(use)
    if axis is not None:
        hints.append(f"--model_axis={axis}")
    if use.plain_attention:
        hints.append("--config.model.attention=auto")
    if use.remat is not True:
        hints.append("--config.model.remat=True")
    hints.append("a smaller --config.batch_size")
    available = use.topology.generation.available
    return (
        f"{use.topology.name}: a step needs {gib(use.needed)} on a chip, where a program may "
        f"take {gib(available)}. By estimate one of these helps: {', '.join(hints)}."
    )


def gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / GIB:.4f} GiB"


def _fits(use: MemoryUse, growth: float, more: int = 0) -> bool:
    """Whether it fits if a chip has `growth` times the examples, and `more` bytes in addition."""
    moving = max(use.needed - use.fixed, 0)
    return use.fixed + more + moving * growth <= use.topology.generation.available
