"""Bounds how fast a step can be by the peak rates of a chip."""

import dataclasses

from trainers.aot.cost import Cost
from trainers.aot.topology import Generation

#: The figures of a `Roofline` that are reported.
FIGURES = (
    *("flops", "hbm_bytes", "bound_seconds", "bound_by"),
    *("bound_examples_per_second", "bound_utilization"),
)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The least time that a step takes on a chip: no run is faster, and most are slower."""

    cost: Cost
    generation: Generation
    examples: int  # of a chip in a step

    @property
    def flops(self) -> int:
        return self.cost.flops

    @property
    def hbm_bytes(self) -> int:
        return self.cost.hbm_bytes

    @property
    def compute_seconds(self) -> float:
        return self.flops / self.generation.peak_flops

    @property
    def memory_seconds(self) -> float:
        return self.hbm_bytes / self.generation.hbm_bandwidth

    @property
    def bound_seconds(self) -> float:
        return max(self.compute_seconds, self.memory_seconds)

    @property
    def bound_by(self) -> str:
        return "compute" if self.compute_seconds >= self.memory_seconds else "memory"

    @property
    def bound_examples_per_second(self) -> float:
        return self.examples / self.bound_seconds

    @property
    def bound_utilization(self) -> float:
        """The largest share of the peak rate of matmuls that the step can reach."""
        return self.compute_seconds / self.bound_seconds

    def __str__(self) -> str:
        return (
            f"{self.compute_seconds:.4g} s by compute, {self.memory_seconds:.4g} s by memory "
            f"({self.hbm_bytes / 1e9:.2f} GB through HBM); {self.bound_by} binds: at most "
            f"{self.bound_examples_per_second:.2f} examples/s a chip, utilisation at most "
            f"{self.bound_utilization:.1%}"
        )
