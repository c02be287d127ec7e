"""Compiles programs of JAX and TensorFlow with libtpu for a slice that is only described."""

import dataclasses
import importlib.metadata
import os
import re
import textwrap
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from trainers.aot.collectives import Collectives
from trainers.aot.collectives import count_collectives
from trainers.aot.cost import Cost
from trainers.aot.cost import program_cost
from trainers.aot.steps import Program
from trainers.aot.steps import step_memory
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


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The figures of a program on one chip."""

    memory: int  # bytes of HBM while it runs, or that it would need where it does not fit
    cost: Cost | None  # None if it does not fit
    collectives: tuple[Collectives, ...] = ()


class TpuCompiler:
    """Compiles programs for the chips of a slice, `devices`, which can hold no data."""

    def __init__(self, topology: Topology) -> None:
        self._jax = _import_jax()
        self.devices = _describe(topology)

    @property
    def versions(self) -> str:
        names = ("jax", "libtpu")
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)

    def compile(self, name: str, program: Program) -> Compiled:
        """Compiles a step; raises a `TrainingError` if it is refused for more than its size."""
        try:
            executable = program.compile(self.devices)
        except self._jax.errors.JaxRuntimeError as error:
            return Compiled(_memory_needed(name, error), None)
        (module,) = executable.hlo_modules()
        text = module.to_string()
        return Compiled(
            memory=step_memory(executable.get_compiled_memory_stats()).total,
            cost=program_cost(text),
            collectives=count_collectives(text),
        )


def _describe(topology: Topology) -> Sequence[Any]:
    topologies = import_module("jax.experimental.topologies")
    config = topology.generation.chip_config
    options = {"chip_config_name": config} if config else {}
    try:
        devices = topologies.get_topology_desc(topology.name, "tpu", **options).devices
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"libtpu cannot describe --topology={topology.name} ({first_line(error)})."
        ) from error
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


def _memory_needed(name: str, error: Exception) -> int:
    """Returns the bytes that a program which is too large would need; raises for other errors."""
    for pattern in _TOO_LARGE:
        found = pattern.search(str(error))
        if found:
            return int(float(found[1]) * _UNITS[found[2]])
    # The compiler names the operation after its first line.
    reason = textwrap.shorten(one_line(error), _LONGEST_REASON, placeholder=" ...")
    raise TrainingError(
        f"The {name} step does not compile: libtpu refuses it ({reason})."
    ) from error
