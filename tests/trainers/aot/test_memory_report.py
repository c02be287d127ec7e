"""What a dry run says of a step, and the bound of a step that JAX has compiled."""

from types import SimpleNamespace
from typing import Any

import pytest

from trainers.aot.cost import Cost
from trainers.aot.memory_report import _print_step
from trainers.aot.roofline import Roofline
from trainers.aot.steps import StepMemory
from trainers.aot.topology import GENERATIONS


def _step(roofline: Roofline | None) -> Any:
    memory = StepMemory(arguments=2**20, results=0, temporaries=2**21, constants=0)
    return SimpleNamespace(memory=lambda: memory, roofline=lambda: roofline)


def test_a_bound_follows_the_memory(capsys: pytest.CaptureFixture[str]) -> None:
    roofline = Roofline(Cost(10**12, 10**9), GENERATIONS["v5e"], examples=8)
    _print_step("training step", _step(roofline))
    memory, bound = capsys.readouterr().out.splitlines()
    assert memory.startswith("memory of a replica's training step: 3.0 MiB")
    assert bound == f"bound of a replica's training step: {roofline}"


def test_a_device_of_unknown_rates_has_no_bound(capsys: pytest.CaptureFixture[str]) -> None:
    _print_step("training step", _step(None))
    assert "bound" not in capsys.readouterr().out


def test_the_bound_of_a_step_of_jax() -> None:
    jax = pytest.importorskip("jax")
    from trainers.aot.jax_steps import JaxStep

    matrix = jax.ShapeDtypeStruct((256, 256), "float32")
    lowered = jax.jit(lambda left, right: left @ right).lower(matrix, matrix)
    roofline = JaxStep(lowered, "TPU v5 lite", examples=8).roofline()
    assert roofline is not None
    assert roofline.cost == Cost(2 * 256**3, 3 * 4 * 256**2)
    assert JaxStep(lowered, "cpu", examples=8).roofline() is None
