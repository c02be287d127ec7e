"""Compiles a configuration for a TPU slice, without a TPU: the command, or `tpu_check(...)`.

    python -m trainers.tpu_check --config=FILE [--engine=jax] [--topology=v5e:2x2]
        [--config.key=value]

Lowers the very train and eval steps of the trainer and compiles them with libtpu for a slice,
on any Linux machine (the extra `tpu-check`). Nothing is run. For each step it prints the
memory that it needs on a chip against what a program may take there, a chip's floating-point
operations, and how long it took to compile. A second line bounds the step by the peak rates of the
chip: the time that its operations and its memory traffic take at least, which of the two binds,
and the most examples a second and the highest utilisation that follow.

On TensorFlow it is the step that one replica runs on its share of the batch, without the
all-reduce of the gradients between the chips. On JAX it is the whole step of all chips of all
hosts, and what goes between the chips is counted: how many operations of each kind, and the
bytes of their results on a chip. `--model_axis` shares each copy of weights and optimizer
between that many chips.

Not included: the time that a step takes. docs/tpu.md says more.

Where a video has several views, the step of the test, which takes all of them, is a third one.

Exit status: 0 the steps compile and fit, 1 one of them does not, 2 wrong usage or
configuration.
"""

import time
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from trainers.aot.advice import MemoryUse
from trainers.aot.advice import advice
from trainers.aot.advice import gib
from trainers.aot.advice import smallest_slice
from trainers.aot.compiler import TpuCompiler
from trainers.aot.lowering import StepLowering
from trainers.aot.lowering import make_lowering
from trainers.aot.roofline import FIGURES
from trainers.aot.roofline import Roofline
from trainers.aot.steps import Program
from trainers.aot.topology import Topology
from trainers.aot.topology import parse_topology
from trainers.configuration.configuration import AnyConfig
from trainers.configuration.configuration import parse_config_flag
from trainers.configuration.configuration import whole_config
from trainers.data.datasets.tfds import import_tfds
from trainers.data.sources import make_source
from trainers.engines.flags import check_backend
from trainers.engines.flags import define_axis_flags
from trainers.engines.flags import define_engine_flag
from trainers.experiment import make_records
from trainers.preflight import check_steps
from trainers.utils import cli
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import TrainingError
from trainers.utils.reporting import log_to_stderr

FLAGS = flags.FLAGS


def tpu_check(
    config: AnyConfig,
    *,
    topology: str | None = None,
    engine: str | None = None,
    train_only: bool = False,
    num_classes: int | None = None,
    batch_axis: int | None = None,
    model_axis: int = 1,
) -> list[dict[str, Any]]:
    """Compiles the steps of a configuration for a TPU slice, and prints a line about each.

    Args:
        config: The path of a recipe, or a `ConfigDict` with the keys that differ from
            `base_config()`.
        topology: The slice, such as "v5e:2x2"; None is the configuration's.
        engine: "tensorflow" or "jax", which Keras has to run on; None is the one it runs on.
        train_only: Whether to leave the evaluation steps out.
        num_classes: Classes of the data; None opens the data.
        batch_axis: On JAX, copies of the weights; None: as many as fit.
        model_axis: On JAX, chips that share a copy of weights and optimizer.

    Returns:
        For each step: "step", its name; on a chip "bytes" that it needs and "available_bytes", and
        whether it "fits"; "flops" of its matmuls, convolutions and attention kernels;
        "hbm_bytes", read and written; "bound_seconds", the least time that it takes at the peak
        rates of the chip, and what it is "bound_by", "compute" or "memory";
        "bound_examples_per_second" of a chip; "bound_utilization", the largest share of the peak
        of compute; "collectives", operations between chips as {kind: {"count", "bytes"}};
        "lowering_seconds" and "compile_seconds". From "flops" to "bound_utilization" they are None
        if the compiler refused it as too large. The last line printed advises on a step that does
        not fit.

    Raises:
        ConfigurationError: If an argument or a key is wrong, or libtpu is missing.
    """
    rows, verdict = _check(
        whole_config(config), topology, engine, train_only, num_classes, batch_axis, model_axis
    )
    print(verdict, flush=True)
    return rows


def _check(
    config: ConfigDict,
    topology_name: str | None,
    engine: str | None,
    train_only: bool,
    num_classes: int | None,
    batch_axis: int | None,
    model_axis: int,
) -> tuple[list[dict[str, Any]], str]:
    """Returns what `tpu_check` returns, and the verdict: advice if a step does not fit."""
    topology = parse_topology(topology_name or config.topology)
    check_backend(engine)
    check_steps(config)
    if num_classes is not None and num_classes < 1:
        raise ConfigurationError(f"--num_classes must be at least 1. Received: {num_classes}.")
    compiler = TpuCompiler(topology)
    num_classes = _num_classes(config) if num_classes is None else num_classes
    lowering = make_lowering(config, num_classes, compiler.devices, batch_axis, model_axis)
    print(_describe(config, topology, lowering), flush=True)
    count = config.gradient_accumulation_steps
    print(f"compiler: {compiler.versions}; {lowering.scope}", flush=True)

    rows = [_compile("train", lowering.train, lowering.examples, compiler, topology)]
    if not train_only:
        # The optimizer's state stays on the chip while the model is evaluated.
        kept = lowering.optimizer_bytes
        rows += [
            _compile(name, lower, lowering.evaluated(name), compiler, topology, kept)
            for name, lower in lowering.evaluations.items()
        ]

    use = MemoryUse(
        topology=topology,
        batch_size=config.batch_size,
        micro_batches=count,
        needed=max(row["bytes"] for row in rows),
        fixed=lowering.state_bytes + lowering.gradient_bytes,
        gradient=lowering.gradient_bytes,
        remat=config.model.remat or False,
        plain_attention=config.model.attention == "plain",
        model_axis=model_axis,
        largest_model_axis=lowering.largest_model_axis,
    )
    if not use.fits:
        return rows, advice(use)
    smallest = smallest_slice(use)
    hint = f"; by estimate the smallest that does is {smallest.name}" if smallest else ""
    return rows, f"fits: {topology.name}{hint}"


def _num_classes(config: ConfigDict) -> int:
    """Returns the classes that `records.num_classes` names, else those of the data."""
    data, records = config.data, make_records(config)
    if data.source == "records" and records.num_classes is not None:
        return records.num_classes
    try:
        source = make_source(data.source, data.train_split, data.data_dir, records=records)
        return source.num_classes
    except ConfigurationError as error:
        described = described_classes(data.source)
        if described is None:
            message = str(error).rstrip(".")
            raise ConfigurationError(f"{message}. Or pass --num_classes=N.") from error
        return described


def _compile(
    name: str,
    lower: Callable[[], Program],
    examples: int,
    compiler: TpuCompiler,
    topology: Topology,
    kept: int = 0,
) -> dict[str, Any]:
    """Compiles a step and describes it in two lines.

    A chip has `examples` in it, and `kept` bytes in addition to the step's.
    """
    log_to_stderr(f"compiling the {name} step; a large model takes many minutes")
    start = time.monotonic()
    program = lower()
    lowered = time.monotonic()
    compiled = compiler.compile(name, program)
    seconds = time.monotonic() - lowered
    needed, available = compiled.memory + kept, topology.generation.available
    parts = [f"{gib(needed)} of {gib(available)} HBM ({needed / available:.1%})"]
    roofline = compiled.cost and Roofline(compiled.cost, topology.generation, examples)
    if roofline is None:
        parts.append(f"refused as too large after {seconds:.0f} s")
    else:
        parts.append(f"{roofline.flops / 1e9:.2f} GFLOP")
        parts += [f"{each.kind}: {each.count} ({gib(each.size)})" for each in compiled.collectives]
        parts.append(f"lowered in {lowered - start:.0f} s, compiled in {seconds:.0f} s")
    print(f"{name} step: {', '.join(parts)}", flush=True)
    if roofline is not None:
        print(f"{name} bound: {roofline}", flush=True)
    return {
        "step": name,
        "bytes": needed,
        "available_bytes": available,
        "fits": needed <= available,
        **{key: roofline and getattr(roofline, key) for key in FIGURES},
        "collectives": {
            each.kind: {"count": each.count, "bytes": each.size} for each in compiled.collectives
        },
        "lowering_seconds": lowered - start,
        "compile_seconds": seconds,
    }


def _describe(config: ConfigDict, topology: Topology, lowering: StepLowering) -> str:
    generation = topology.generation
    return (
        f"{config.model.name}, {config.dtype_policy}: batch {config.batch_size} on "
        f"{topology.name}, chips: {topology.chips}, each with {generation.memory} GB and "
        f"{lowering.examples} examples a step; weights and optimizer "
        f"{gib(lowering.state_bytes)} on each"
    )


def described_classes(source: str) -> int | None:
    """Returns the classes of a TFDS set by its description; None if there is none."""
    family, _, dataset = source.partition(":")
    if family != "tfds":
        return None
    tfds = import_tfds()
    try:
        label = tfds.builder(dataset).info.features["label"]
    except (tfds.core.registered.DatasetNotFoundError, KeyError, ValueError, OSError):
        return None
    return int(label.num_classes)


def define_flags(flag_values: flags.FlagValues = FLAGS) -> None:
    """Defines the flags of this command, apart from --config."""
    values = {"flag_values": flag_values}
    flags.DEFINE_string(
        "topology", None, "The TPU slice to compile for; None: the configuration's.", **values
    )
    flags.DEFINE_integer(
        "num_classes", None, "Classes of the data; None: open it and see.", **values
    )
    flags.DEFINE_bool("train_only", False, "Leave the eval steps out.", **values)
    define_engine_flag(flag_values)
    define_axis_flags(flag_values)


def main() -> None:
    """Compiles the steps as the flags say, and fails if one does not fit."""
    rows, verdict = _check(
        FLAGS.config,
        FLAGS.topology,
        FLAGS.engine,
        FLAGS.train_only,
        FLAGS.num_classes,
        FLAGS.batch_axis,
        FLAGS.model_axis,
    )
    if not all(row["fits"] for row in rows):
        raise TrainingError(verdict)
    print(verdict, flush=True)


if __name__ == "__main__":
    define_flags()
    cli.run(main, parse_config_flag)
