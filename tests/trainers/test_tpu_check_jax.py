"""The check of the JAX engine: the whole step of all chips of a slice that is not there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import parse
from trainers.aot.lowering import make_lowering
from trainers.utils.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]

needs_compiler = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jax", "libtpu")),
    reason="needs jax and libtpu, the extra tpu-check",
)


def _run(folder: Path, *arguments: str) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "trainers.tpu_check"),
            *(f"--config={config_file(folder)}", "--num_classes=10", *arguments),
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def _gib(line: str) -> float:
    match = re.search(r"step: ([\d.]+) GiB", line)
    assert match, line
    return float(match[1])


def _collectives(line: str) -> dict[str, int]:
    return {kind: int(count) for kind, count in re.findall(r"([a-z]+(?:-[a-z]+)+): (\d+)", line)}


@needs_compiler
@pytest.mark.slow
def test_the_whole_step_of_all_chips(tmp_path: Path) -> None:
    status, output, errors = _run(tmp_path, "--engine=jax", "--topology=v5e:2x4")
    assert status == 0, errors
    description, compiler, train, _, evaluation, _, verdict = output
    assert "chips: 8" in description and "4 examples a step" in description
    assert "libtpu" in compiler and "the step of all 8 chips" in compiler
    assert train.startswith("train step: 0.0") and "GFLOP" in train
    assert evaluation.startswith("eval step: 0.0") and "GFLOP" in evaluation
    assert verdict.startswith("fits: v5e:2x4")
    # Every chip has all weights: nothing but sums goes between them.
    assert _collectives(train).keys() == _collectives(evaluation).keys() == {"all-reduce"}


@needs_compiler
@pytest.mark.extra
def test_a_chip_alone_talks_to_nobody(tmp_path: Path) -> None:
    status, output, errors = _run(
        tmp_path, "--engine=jax", "--topology=v5e:1x1", "--train_only", "--config.model.dropout=0.1"
    )
    assert status == 0, errors
    _, _, train, _, verdict = output
    assert "GFLOP" in train and not _collectives(train)
    assert verdict.startswith("fits: v5e:1x1")


@needs_compiler
@pytest.mark.slow
def test_chips_that_share_the_weights_need_less(tmp_path: Path) -> None:
    # A layer large enough to be cut up, and to be seen beside code and scratch space.
    wide = ("--config.model.mlp_dim=65536", "--config.model.token_learner_at=0")
    lines = {}
    for axis in (1, 4):
        status, output, errors = _run(
            tmp_path,
            *("--engine=jax", "--topology=v4:2x2x1", "--train_only", *wide),
            f"--model_axis={axis}",
        )
        assert status == 0, errors
        lines[axis] = output
    whole, shared = lines[1][2], lines[4][2]
    assert "each copy of the weights on 4 of them" in lines[4][1]
    assert _gib(shared) < 0.7 * _gib(whole)
    assert _collectives(whole).keys() == {"all-reduce"}
    assert "all-gather" in _collectives(shared)
    # The batch is cut over the chips of a copy, too: none of them does another's work.
    work = [float(re.search(r"([\d.]+) GFLOP", line)[1]) for line in (whole, shared)]
    assert work[1] <= 1.05 * work[0]


#: Compiles the gradient of a block with 300 tokens, and prints what its kernels are called.
_KERNELS_OF_A_BLOCK = """
import re, sys
import jax
from jax.experimental.topologies import get_topology_desc
from keras import ops
from tokenlearner_keras.layers.encoder_block import EncoderBlock

place = jax.sharding.SingleDeviceSharding(get_topology_desc("v5e:2x2", "tpu").devices[0])
x = jax.ShapeDtypeStruct((1, 300, 16), "float32", sharding=place)
for remat in (False, True, "all_but_attention"):
    block = EncoderBlock(2, 8, remat=remat)
    block.build((None, None, 16))
    step = jax.jit(jax.value_and_grad(lambda x: ops.sum(block(x, training=True))))
    program = step.lower(x).compile().as_text()
    print(*sorted(re.findall(r"%splash_mha_([a-z]+)_\\S+ = .* custom-call", program)))
"""


@needs_compiler
@pytest.mark.slow
def test_what_the_attention_kernel_returns_is_kept() -> None:
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", _KERNELS_OF_A_BLOCK]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["dkv fwd", "dkv fwd fwd", "dkv fwd"], done.stderr


@needs_compiler
@pytest.mark.slow
def test_the_attention_kernel_on_chips_that_share_the_weights(tmp_path: Path) -> None:
    work = {}
    for attention in ("auto", "plain"):
        status, output, errors = _run(
            tmp_path,
            *("--engine=jax", "--topology=v5e:2x2", "--train_only", "--model_axis=2"),
            *("--config.model.name=vit_ti4", "--config.model.image_size=72"),  # 324 tokens
            *("--config.gradient_accumulation_steps=2", "--config.model.remat=all_but_attention"),
            f"--config.model.attention={attention}",
        )
        assert status == 0, errors
        work[attention] = float(re.search(r"([\d.]+) GFLOP", output[2])[1])
    # The kernel's tiles hold 384 tokens, and its backward pass computes the weights twice.
    assert work["auto"] > work["plain"]


@needs_compiler
@pytest.mark.extra
def test_a_batch_that_is_too_large_leaves_with_status_1(tmp_path: Path) -> None:
    status, output, errors = _run(
        tmp_path, "--engine=jax", "--train_only", f"--config.batch_size={2**24}"
    )
    assert status == 1, errors
    assert "refused as too large" in output[2] and "fits" not in output[-1]
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "v5e:2x2: a step needs" in line and "gradient_accumulation_steps" in line
    assert "Traceback" not in errors


@needs_compiler
@pytest.mark.slow
def test_chips_of_several_hosts_share_no_weights(tmp_path: Path) -> None:
    status, output, errors = _run(tmp_path, "--engine=jax", "--topology=v5e:4x4", "--model_axis=16")
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert (status, output) == (2, []), errors
    assert "devices that share a copy of the weights must be on one host" in line
    assert "Traceback" not in errors


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="is about TensorFlow")
def test_a_replica_of_tensorflow_shares_no_weights(tmp_path: Path) -> None:
    config = parse(f"--config={config_file(tmp_path)}").config
    with pytest.raises(ConfigurationError, match="--model_axis are for --engine=jax"):
        make_lowering(config, 10, range(4), model_axis=2)
