"""TPU slices by name, such as v5e:2x2, and the memory and peak rates of their chips."""

import dataclasses
import math
import re

from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean

GIB = 2**30

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBIC = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")


@dataclasses.dataclass(frozen=True)
class Generation:
    """A kind of TPU chip."""

    name: str
    memory: int  # high-bandwidth memory of a chip, in GB, as the maker states it
    available: int  # bytes of it that one program may take
    peak_flops: float  # of matmuls in bfloat16, a second
    hbm_bandwidth: float  # bytes a second
    device_kinds: tuple[str, ...]  # JAX's names of a chip
    shapes: tuple[str, ...]  # of the available slices, ascending
    chip_config: str | None = None  # makes the compiler treat a chip as one replica


# memory and peak rates: https://cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e. The chips have
# no further rate for float32, whose products they round to bfloat16 at the default precision.
# available: the limit, in GiB, that libtpu 0.0.52 names when it refuses a program as too large.
GENERATIONS = {
    generation.name: generation
    for generation in (
        # Without "megacore" the compiler takes the two cores of a v4 chip for two
        # devices of half the memory; a TensorFlow replica has both.
        Generation("v4", 32, int(30.75 * GIB), 275e12, 1200e9, ("TPU v4",), _CUBIC, "megacore"),
        Generation("v5e", 16, int(15.75 * GIB), 197e12, 819e9, ("TPU v5 lite", "TPU v5e"), _FLAT),
        Generation("v5p", 95, int(95.73 * GIB), 459e12, 2765e9, ("TPU v5", "TPU v5p"), _CUBIC),
        Generation("v6e", 32, int(31.24 * GIB), 918e12, 1640e9, ("TPU v6 lite", "TPU v6e"), _FLAT),
    )
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: chips of one generation in a shape such as "2x2", one replica per chip."""

    generation: Generation
    shape: str

    @property
    def name(self) -> str:
        """The name that `parse_topology` reads."""
        return f"{self.generation.name}:{self.shape}"

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.shape.split("x")))


def parse_topology(name: str) -> Topology:
    """Parses generation and shape of a slice, such as "v5e:2x2" or "v5p:2x2x1"."""
    matched = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", name)
    if not matched or matched[1] not in GENERATIONS:
        raise ConfigurationError(
            f"--topology must be one of {', '.join(GENERATIONS)}, a colon and a shape, such "
            f"as v5e:2x2 or v5p:2x2x1. Received: {name!r}."
            + did_you_mean(name.partition(":")[0], GENERATIONS)
        )
    generation = GENERATIONS[matched[1]]
    if matched[2] not in generation.shapes:
        hint = did_you_mean(name, [each.name for each in slices(generation)])
        raise ConfigurationError(
            f"--topology: the slices of {generation.name} are {', '.join(generation.shapes)}. "
            f"Received: {name!r}.{hint}"
        )
    return Topology(generation, matched[2])


def generation_of(device_kind: str) -> Generation | None:
    """Returns the generation of a device that JAX names so; None if it is not a TPU we know."""
    named = (each for each in GENERATIONS.values() if device_kind in each.device_kinds)
    return next(named, None)


def slices(generation: Generation) -> list[Topology]:
    return [Topology(generation, shape) for shape in generation.shapes]
