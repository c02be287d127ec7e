"""Compiles a configuration for a TPU slice, without a TPU: `python -m trainers.tpu_check`.

    python -m trainers.tpu_check --config=FILE [--engine=jax] [--topology=v5e:2x2]
        [--config.key=value]

Lowers the very train and eval steps of the trainer and compiles them with libtpu for a slice,
on any Linux machine (the extra `tpu-check`). Nothing is run. For each step it prints the
memory that it needs on a chip against what a program may take there, a chip's floating-point
operations, and how long it took to compile.

On TensorFlow it is the step that one replica runs on its share of the batch, without the
all-reduce of the gradients between the chips. On JAX it is the whole step of all chips of all
hosts, and what goes between the chips is counted: how many operations of each kind, and the
bytes of their results on a chip. `--model_axis` shares each copy of weights and optimizer
between that many chips.

Not included: time. docs/tpu.md says more.

Where a video has several views, the step of the test, which takes all of them, is a third one.

Exit status: 0 the steps compile and fit, 1 one of them does not, 2 wrong usage or
configuration.
"""

import time
from collections.abc import Callable

from absl import flags
from ml_collections import ConfigDict

from trainers.aot.advice import MemoryUse
from trainers.aot.advice import advice
from trainers.aot.advice import gib
from trainers.aot.advice import smallest_slice
from trainers.aot.compiler import Program
from trainers.aot.compiler import TpuCompiler
from trainers.aot.lowering import StepLowering
from trainers.aot.steps import make_lowering
from trainers.aot.topology import Topology
from trainers.aot.topology import parse_topology
from trainers.configuration.configuration import parse_config_flag
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
from trainers.utils.reporting import show_warnings_plainly

FLAGS = flags.FLAGS


def main() -> None:
    """Compiles the steps, reports on each, and fails if one does not fit."""
    show_warnings_plainly()
    config = FLAGS.config
    topology = parse_topology(FLAGS.topology)
    _check(config)
    compiler = TpuCompiler(topology)

    # ----------------------------------------------------------- model and steps
    lowering = make_lowering(
        config, _num_classes(config), compiler.devices, FLAGS.batch_axis, FLAGS.model_axis
    )
    print(_describe(config, topology, lowering), flush=True)
    print(f"compiler: {compiler.versions}; {_scope(config, lowering)}", flush=True)

    # ------------------------------------------------------------------- compile
    train = _compile("train", lowering.train, compiler, topology)
    evaluations = {} if FLAGS.train_only else lowering.evaluations
    # The optimizer's state stays on the chip while the model is evaluated.
    kept = lowering.optimizer_bytes
    needed = [train]
    for name, lower in evaluations.items():
        needed.append(_compile(name, lower, compiler, topology, kept))

    # ------------------------------------------------------------------- verdict
    use = MemoryUse(
        topology=topology,
        batch_size=config.batch_size,
        micro_batches=config.gradient_accumulation_steps,
        needed=max(needed),
        fixed=lowering.state_bytes + lowering.gradient_bytes,
        gradient=lowering.gradient_bytes,
        remat=bool(config.model.remat),
        model_axis=lowering.model_axis,
        largest_model_axis=lowering.largest_model_axis,
    )
    if not use.fits:
        raise TrainingError(advice(use))
    smallest = smallest_slice(use)
    hint = f"; by estimate the smallest that does is {smallest.name}" if smallest else ""
    print(f"fits: {topology.name}{hint}", flush=True)


def _check(config: ConfigDict) -> None:
    """Makes the checks that must come before heavy work."""
    check_backend(FLAGS.engine)
    check_steps(config)
    if FLAGS.num_classes is not None and FLAGS.num_classes < 1:
        raise ConfigurationError(
            f"--num_classes must be at least 1. Received: {FLAGS.num_classes}."
        )


def _num_classes(config: ConfigDict) -> int:
    """Returns the classes that the flag or `records.num_classes` names, else of the data."""
    if FLAGS.num_classes is not None:
        return int(FLAGS.num_classes)
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
    compiler: TpuCompiler,
    topology: Topology,
    kept: int = 0,
) -> int:
    """Lowers and compiles a step, prints a line about it, and returns its bytes on a chip.

    `kept` bytes on the chip are not part of the program.
    """
    log_to_stderr(f"compiling the {name} step; a large model takes many minutes")
    start = time.monotonic()
    program = lower()
    lowered = time.monotonic()
    compiled = compiler.compile(name, program)
    seconds = time.monotonic() - lowered
    needed, available = compiled.memory + kept, topology.generation.available
    parts = [f"{gib(needed)} of {gib(available)} HBM ({needed / available:.1%})"]
    if compiled.flops is None:
        parts.append(f"refused as too large after {seconds:.0f} s")
    else:
        parts.append(f"{compiled.flops / 1e9:.2f} GFLOP")
        parts += [f"{each.kind}: {each.count} ({gib(each.size)})" for each in compiled.collectives]
        parts.append(f"lowered in {lowered - start:.0f} s, compiled in {seconds:.0f} s")
    print(f"{name} step: {', '.join(parts)}", flush=True)
    return needed


def _describe(config: ConfigDict, topology: Topology, lowering: StepLowering) -> str:
    generation = topology.generation
    return (
        f"{config.model.name}, {config.dtype_policy}: batch {config.batch_size} on "
        f"{topology.name}, chips: {topology.chips}, each with {generation.memory} GB and "
        f"{lowering.examples} examples a step; weights and optimizer "
        f"{gib(lowering.state_bytes)} on each"
    )


def _scope(config: ConfigDict, lowering: StepLowering) -> str:
    """Returns what the figures cover, and what they leave out."""
    count = config.gradient_accumulation_steps
    once = f", the body of the loop over {count} micro-batches counted once" if count > 1 else ""
    return f"{lowering.scope}{once}"


def described_classes(source: str) -> int | None:
    """Returns the classes of a TFDS set by its description; None if there is none.

    Raises ConfigurationError if it is a TFDS set and the package does not load.
    """
    family, _, dataset = source.partition(":")
    if family != "tfds":
        return None
    tfds = import_tfds()
    try:
        label = tfds.builder(dataset).info.features["label"]
    except (tfds.core.registered.DatasetNotFoundError, KeyError, ValueError, OSError):
        return None
    return int(label.num_classes)


if __name__ == "__main__":
    flags.DEFINE_string("topology", "v5e:2x2", "The TPU slice to compile for.")
    flags.DEFINE_integer("num_classes", None, "Classes of the data; None: open it and see.")
    flags.DEFINE_bool("train_only", False, "Leave the eval steps out.")
    define_engine_flag()
    define_axis_flags()
    cli.run(main, parse_config_flag)
