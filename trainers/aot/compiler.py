"""Compiles programs with libtpu, without a TPU.

jax opens libtpu's compiler (the extra `tpu-check`) for a slice that is only described, and passes
it programs: JAX's own, or those of TensorFlow.
"""

import dataclasses
import importlib.metadata
import os
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any
from typing import Protocol

from trainers.aot.collectives import Collectives
from trainers.aot.collectives import count_collectives
from trainers.aot.topology import Topology
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import TrainingError
from trainers.utils.errors import first_line
from trainers.utils.errors import one_line

_MISSING = (
    "trainers.tpu_check needs the packages jax and libtpu, whose compiler it uses ({reason}). "
    "Install them with: pip install '.[tpu-check]' in a clone (Linux only)"
)

# "… the total memory required for HLO temporaries (22.50G) exceeds available HBM (15.75G)"
# and "Used 22.50G of 15.75G hbm".
_TOO_LARGE = (
    re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM"),
    re.compile(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm"),
)
_LONGEST_REASON = 600  # characters
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Program(Protocol):
    """A step that a compiler can take."""

    def compile(self, devices: Sequence[Any]) -> Any:
        """Compiles the step for all chips of the slice; returns the executable of jaxlib."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The compiler's figures for a program.

    Attributes:
        memory: Bytes of HBM of a chip while it runs: arguments, results that take no argument's
            place, temporaries and code. Where it does not fit, what it would need.
        flops: Floating-point operations of a chip in one run, the body of a loop counted once; None
            if the program does not fit.
        collectives: What goes between the chips.
    """

    memory: int
    flops: float | None
    collectives: tuple[Collectives, ...] = ()


class TpuCompiler:
    """Compiles programs for the chips of a slice.

    Attributes:
        devices: The chips, only described: they can hold no data.

    Raises:
        ConfigurationError: If jax or libtpu is missing, or does not know the slice.
    """

    def __init__(self, topology: Topology) -> None:
        self._jax = _import_jax()
        self.devices = _describe(topology)

    @property
    def versions(self) -> str:
        """The versions of the two packages, for the record."""
        names = ("jax", "libtpu")
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)

    def compile(self, name: str, program: Program) -> Compiled:
        """Compiles a lowered step; `name` is for messages.

        Raises:
            TrainingError: If the compiler refuses it for a reason other than its size.
        """
        try:
            executable = program.compile(self.devices)
        except self._jax.errors.JaxRuntimeError as error:
            return Compiled(_memory_needed(name, error), None)
        (module,) = executable.hlo_modules()
        return Compiled(
            memory=_memory(executable.get_compiled_memory_stats()),
            flops=_flops(executable),
            collectives=count_collectives(module.to_string()),
        )


def _describe(topology: Topology) -> Sequence[Any]:
    topologies = import_module("jax.experimental.topologies")
    config = topology.generation.chip_config
    options = {"chip_config_name": config} if config else {}
    try:
        described = topologies.get_topology_desc(topology.name, "tpu", **options)
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"libtpu cannot describe --topology={topology.name} ({first_line(error)})."
        ) from error
    devices: Sequence[Any] = described.devices
    if len(devices) != topology.chips:
        raise ConfigurationError(
            f"--topology={topology.name}: expected {topology.chips} devices, one a chip. "
            f"This libtpu describes {len(devices)}; install the version that the extra "
            "tpu-check names."
        )
    return devices


def _import_jax() -> Any:
    # Do not look for a TPU, on this machine or over the network.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_PROCESS_BOUNDS", "1,1,1")
    os.environ.setdefault("TPU_CHIPS_PER_PROCESS_BOUNDS", "1,1,1")
    # libtpu's lock protects chips; two compilations may run side by side.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        import_module("libtpu")  # the compiler; jax finds it by this package
        jax = import_module("jax")
    except ImportError as error:
        raise ConfigurationError(_MISSING.format(reason=first_line(error))) from error
    # Keras on JAX has imported it already, but it has not looked for devices yet.
    jax.config.update("jax_platforms", "cpu")
    return jax


def _memory(statistics: Any) -> int:
    return int(
        statistics.argument_size_in_bytes
        + statistics.output_size_in_bytes
        - statistics.alias_size_in_bytes
        + statistics.temp_size_in_bytes
        + statistics.generated_code_size_in_bytes
    )


def _flops(executable: Any) -> float:
    analysis = executable.cost_analysis()
    return float((analysis[0] if isinstance(analysis, list) else analysis)["flops"])


def _memory_needed(name: str, error: Exception) -> int:
    """Returns the bytes that a program which is too large would need; raises for other errors."""
    for pattern in _TOO_LARGE:
        found = pattern.search(str(error))
        if found:
            return int(float(found[1]) * _UNITS[found[2]])
    raise TrainingError(
        f"The {name} step does not compile: libtpu refuses it ({_shortened(error)})."
    ) from error


def _shortened(error: Exception) -> str:
    """Returns an error in one line; the compiler names the operation after its first line."""
    text = one_line(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."
