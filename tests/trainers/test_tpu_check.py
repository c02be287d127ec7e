"""The check on a TPU that is not there; what needs its compiler is skipped without it."""

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf
from ml_collections import ConfigDict

from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import parse
from tests.helpers.video_record_sets import describe
from tests.helpers.video_record_sets import small_videos
from tests.helpers.video_record_sets import write_split
from tests.helpers.video_runs import TRANSFORMER
from tests.helpers.video_runs import video_config
from trainers import tpu_check
from trainers.aot import compiler as tpu_compiler
from trainers.aot.advice import MemoryUse
from trainers.aot.advice import advice
from trainers.aot.advice import smallest_micro_batches
from trainers.aot.advice import smallest_model_axis
from trainers.aot.advice import smallest_slice
from trainers.aot.compiler import Compiled
from trainers.aot.compiler import TpuCompiler
from trainers.aot.cost import Cost
from trainers.aot.lowering import make_lowering
from trainers.aot.roofline import FIGURES
from trainers.aot.tensorflow_steps import ReplicaStep
from trainers.aot.topology import GENERATIONS
from trainers.aot.topology import GIB
from trainers.aot.topology import parse_topology
from trainers.aot.topology import slices
from trainers.steps import train_step
from trainers.tpu_check import described_classes
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import TrainingError

ROOT = Path(__file__).resolve().parents[2]

needs_compiler = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jax", "libtpu")),
    reason="needs jax and libtpu, the extra tpu-check",
)


def _config(folder: Path, *overrides: str) -> ConfigDict:
    return parse(f"--config={config_file(folder)}", *overrides).config


def _run(*arguments: str) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-m", "trainers.tpu_check", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def _use(needed: float, name: str = "v5e:2x2") -> MemoryUse:
    """4 GiB stay as they are, one of them for the gradient; the rest is of 64 examples a chip."""
    topology = parse_topology(name)
    batch_size = 64 * topology.chips
    return MemoryUse(topology, batch_size, 1, int(needed * GIB), 4 * GIB, GIB, remat=False)


# ---------------------------------------------------------------------- topologies
def test_chips_of_a_slice() -> None:
    chips = {"v5e:1x1": 1, "v5e:2x2": 4, "v6e:16x16": 256, "v4:2x2x1": 4, "v5p:2x2x2": 8}
    assert {name: parse_topology(name).chips for name in chips} == chips
    assert parse_topology("v5p:2x2x2").name == "v5p:2x2x2"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_slices_ascend(generation: str) -> None:
    chips = [topology.chips for topology in slices(GENERATIONS[generation])]
    assert chips == sorted(set(chips))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "v4, v5e, v5p, v6e"),
        ("v5e", "a colon and a shape"),
        ("v9:2x2", "Received: 'v9:2x2'"),
        ("v5e:2x", "a colon and a shape"),
        ("v5e:2x3", r"Did you mean 'v5e:2x\d'"),
        ("v5p:2x2", "the slices of v5p are 2x2x1, 2x2x2"),
    ],
)
def test_wrong_slices_name_the_right_ones(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_topology(name)


# -------------------------------------------------------------------------- advice
def test_the_smallest_slice_that_should_fit() -> None:
    # 2 GiB of examples on each of 4 chips: on one chip 8, and 4 that stay.
    assert smallest_slice(_use(6)) == parse_topology("v5e:1x1")
    assert smallest_slice(_use(10)) == parse_topology("v5e:2x2")
    # 36 on a chip: 18 on each of 8, still too much, and 9 on each of 16.
    assert smallest_slice(_use(40)) == parse_topology("v5e:4x4")
    # As many chips as there are examples would be needed, or the state alone is too much.
    assert smallest_slice(_use(4000)) is None
    assert smallest_slice(dataclasses.replace(_use(40), fixed=16 * GIB)) is None


def test_a_slice_that_cannot_share_the_batch_is_no_advice() -> None:
    use = dataclasses.replace(_use(40), batch_size=8)
    assert smallest_slice(use) is None


def test_the_micro_batches_that_should_fit() -> None:
    assert smallest_micro_batches(_use(18)) == 2
    # Half of 22 would fit beside the 4 that stay, but adding gradients up takes 1 more.
    assert smallest_micro_batches(_use(26)) == 4
    twice = dataclasses.replace(_use(26), micro_batches=2)
    assert smallest_micro_batches(twice) == 4
    assert smallest_micro_batches(dataclasses.replace(_use(26), batch_size=4)) is None


def test_the_chips_that_should_share_the_weights() -> None:
    # 18 on a chip, 2.25 too much: half of the 4 that stay is not enough, three quarters are.
    use = dataclasses.replace(_use(18), largest_model_axis=4)
    assert smallest_model_axis(use) == 4
    assert smallest_model_axis(_use(18)) is None  # an engine that cannot share
    assert "--model_axis=4" in advice(use) and "--model_axis" not in advice(_use(18))
    shared = dataclasses.replace(use, model_axis=2)
    assert smallest_model_axis(shared) is None  # only 2 more can be saved
    assert smallest_model_axis(dataclasses.replace(shared, needed=int(17.5 * GIB))) == 4
    # A slice of one chip has nobody to share with.
    assert smallest_slice(dataclasses.replace(_use(6), model_axis=2)) == parse_topology("v5e:2x2")


def test_advice_names_flags() -> None:
    line = advice(_use(40))
    assert "40.00 GiB" in line and "15.75 GiB" in line and "\n" not in line
    assert "--topology=v5e:4x4" in line and "--config.gradient_accumulation_steps=4" in line
    assert "--config.model.remat=True" in line and "--config.batch_size" in line
    assert "remat" not in advice(dataclasses.replace(_use(40), remat=True))
    kept = dataclasses.replace(_use(40), remat="all_but_attention")
    assert "--config.model.remat=True" in advice(kept)
    plain = dataclasses.replace(_use(40), plain_attention=True)
    assert "--config.model.attention=auto" in advice(plain) and "attention" not in line
    assert "--topology" not in advice(_use(4000))


# ------------------------------------------------------------------------ lowering
def test_both_steps_are_lowered(tmp_path: Path) -> None:
    lowering = make_lowering(_config(tmp_path), 10, range(4))
    assert lowering.examples == 8
    # AdamW: the weights and two averages of them in float32, a step and a rate.
    state = lowering.state_bytes
    assert 3 * lowering.gradient_bytes < state < 3 * lowering.gradient_bytes + 100
    for program in (lowering.train(), lowering.evaluations["eval"]()):
        assert program.code.startswith(b"ML\xefR")  # MLIR's bytecode
    assert list(lowering.evaluations) == ["eval"]


def test_the_step_of_all_views_is_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = video_config(tmp_path, TRANSFORMER, multi_label=False)
    values = parse(f"--config={config_file(tmp_path, text)}", "--config.batch_size=24")
    lowering = make_lowering(values.config, 3, range(2))
    assert list(lowering.evaluations) == ["eval", "test"] and lowering.examples == 12
    shapes = []

    def lower(step: ReplicaStep, name: str) -> Any:
        shapes.append(step.specifications[0].shape)
        return lower_step(step, name)

    lower_step = ReplicaStep.lower
    monkeypatch.setattr(ReplicaStep, "lower", lower)
    assert lowering.evaluations["test"]().code.startswith(b"ML\xefR")
    assert shapes == [(2, 6, 4, 16, 16, 3)]  # two videos of six views each on a chip


def test_operations_without_a_kernel_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def host_only(images: tf.Tensor, kind: str) -> tf.Tensor:
        del kind
        values = tf.numpy_function(lambda x: x.astype("float32"), [images], tf.float32)
        return tf.ensure_shape(values, images.shape)

    monkeypatch.setattr(train_step, "normalize", host_only)
    with pytest.raises(
        TrainingError, match="train step does not compile: XLA has no kernel for PyFunc"
    ) as caught:
        make_lowering(_config(tmp_path), 10, range(1)).train()
    assert "\n" not in str(caught.value)


def test_a_batch_that_cannot_be_shared_out(tmp_path: Path) -> None:
    config = _config(tmp_path, "--config.gradient_accumulation_steps=3")
    with pytest.raises(ConfigurationError, match="expected a multiple of 12"):
        make_lowering(config, 10, range(4))


# ------------------------------------------------------------------------- classes
def test_classes_of_data_that_are_not_here() -> None:
    assert described_classes("tfds:cifar10") == 10
    assert described_classes("tfds:no_such_set") is None
    assert described_classes("folder") is None


# ------------------------------------------------------------------------ compiler
@pytest.mark.parametrize("name", ["jax", "libtpu"])
def test_without_its_packages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[tpu-check\]' in a clone"):
        TpuCompiler(parse_topology("v5e:2x2"))


def test_what_libtpu_says_of_a_program_that_is_too_large() -> None:
    messages = {
        "E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (22.50G) exceeds available HBM (15.75G).": int(22.5 * GIB),
        "Ran out of memory in memory space hbm. Used 1.5T of 15.75G hbm.": 1536 * GIB,
    }
    for message, needed in messages.items():
        assert tpu_compiler._memory_needed("train", RuntimeError(message)) == needed
    # What is wrong stands in a later line; a page of it does not help.
    with pytest.raises(TrainingError, match=r"eval step does not compile.*E1001: of %copy\b") as it:
        tpu_compiler._memory_needed("eval", RuntimeError(f"E1001:\n\nof %copy {'x' * 9999}"))
    assert len(str(it.value)) < 1000


@pytest.mark.parametrize("named", [None, 400])
def test_classes_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: int | None
) -> None:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path / "cache"))
    config = _config(tmp_path, "--config.data.source=records", "--config.data.multi_label")
    config.records.label_key = "y"
    config.records.num_classes = named
    if not named:
        describe(tmp_path, ["a", "b", "c"], multi_label=True)
        write_split(tmp_path, "train", small_videos(2), label_key="y")
        config.data.data_dir = str(tmp_path)
    assert tpu_check._num_classes(config) == (named or 3)


# ------------------------------------------------------------------------------ rows
@pytest.mark.parametrize("cost", [Cost(flops=197 * 10**12, hbm_bytes=10**9), None])
def test_a_row_bounds_a_step_that_fits(
    capsys: pytest.CaptureFixture[str], cost: Cost | None
) -> None:
    compiler = SimpleNamespace(compile=lambda *_: Compiled(2**20, cost))
    row = tpu_check._compile("train", lambda: None, 8, compiler, parse_topology("v5e:2x2"))
    values = [row[key] for key in FIGURES]
    lines = capsys.readouterr().out.splitlines()
    if cost is None:
        assert values == [None] * len(FIGURES) and len(lines) == 1
    else:
        assert values == [197 * 10**12, 10**9, 1.0, "compute", 8.0, 1.0]
        assert "197000.00 GFLOP" in lines[0] and lines[1].startswith("train bound: 1 s by compute")


# ------------------------------------------------------------------------- command
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"topology": "v5e:3x3"}, "v5e:3x3"),
        ({"num_classes": 0}, "--num_classes must be at least 1. Received: 0"),
        ({}, "batch_size must be a whole number of at least 1. Received: 0"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    config = _config(tmp_path)
    config.batch_size = 32 if arguments else 0
    with pytest.raises(ConfigurationError, match=message):
        tpu_check.tpu_check(config, **arguments)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e:2x2", pytest.param("v4:2x2x1", marks=pytest.mark.extra)])
def test_a_small_configuration_fits(tmp_path: Path, topology: str) -> None:
    status, output, errors = _run(
        f"--config={config_file(tmp_path)}",
        f"--topology={topology}",
        "--num_classes=10",
        "--config.ema_decay=0.9",
        "--config.model.dropout=0.1",
        "--config.dtype_policy=mixed_bfloat16",
    )
    assert status == 0, errors
    description, compiler, train, train_bound, evaluation, evaluation_bound, verdict = output
    assert "8 examples a step" in description and "libtpu" in compiler
    assert train.startswith("train step: 0.0") and "GFLOP" in train
    assert evaluation.startswith("eval step: 0.0") and "GFLOP" in evaluation
    for line, name in {train_bound: "train", evaluation_bound: "eval"}.items():
        assert line.startswith(f"{name} bound: ") and "binds: at most" in line
    assert verdict.startswith(f"fits: {topology}")


@needs_compiler
@pytest.mark.slow
def test_a_batch_that_is_too_large_leaves_with_status_1(tmp_path: Path) -> None:
    status, output, errors = _run(
        f"--config={config_file(tmp_path)}", "--num_classes=10", f"--config.batch_size={2**24}"
    )
    assert status == 1, errors
    assert "refused as too large" in output[2] and "fits" not in output[-1]
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "v5e:2x2: a step needs" in line and "gradient_accumulation_steps" in line
    assert "Traceback" not in errors
