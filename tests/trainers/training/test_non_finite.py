"""NaN and infinity: the step and the tensor are named, and nothing bad is saved."""

from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks.reliability.faulty_training import bad_numbers
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import checkpoint_arrays
from trainers.checkpointing.checkpoint_file import checkpoint_steps
from trainers.steps.train_step import TrainStep
from trainers.training.non_finite import check_finite
from trainers.utils.errors import TrainingError

FLAGS = ["--config.total_steps=8", "--config.log_steps=8", "--config.checkpoint_steps=3"]


@pytest.fixture(autouse=True)
def _step_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undoes what is changed in the class of the steps."""
    for name in ("seeds", "inputs", "losses"):
        monkeypatch.setattr(TrainStep, name, getattr(TrainStep, name))


@pytest.mark.parametrize(
    ("value", "where", "tensor"),
    [
        pytest.param(
            "nan", "input", "NaN in it is the normalised input", marks=pytest.mark.every_backend
        ),
        pytest.param("inf", "loss", "infinity in it is the loss", marks=pytest.mark.extra),
        pytest.param(
            "nan", "gradient", "NaN in it is the gradient of head/bias", marks=pytest.mark.slow
        ),
    ],
)
@pytest.mark.slow
def test_step_and_tensor_are_named(
    trainer: Trainer, tmp_path: Path, value: str, where: str, tensor: str
) -> None:
    bad_numbers(value, where, "5")
    with pytest.raises(TrainingError, match=rf"diverged: .* at step 5; the first .* {tensor}\."):
        trainer("run", *FLAGS)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert checkpoint_steps(checkpoints) == [3]
    check_finite(checkpoint_arrays(tmp_path / "run", 3), 3)


@pytest.mark.slow
def test_before_the_first_checkpoint(trainer: Trainer, tmp_path: Path) -> None:
    bad_numbers("inf", "gradient", "2")
    with pytest.raises(TrainingError, match=r"at step 2; .* gradient of head/bias\."):
        trainer("run", *FLAGS)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == []


@pytest.mark.slow
def test_what_does_not_come_again_is_not_made_up(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = TrainStep.run, []

    def once(self: TrainStep, *arguments: object) -> dict[str, float]:
        calls.append(arguments)
        return {**run(self, *arguments), **({"loss": np.nan} if len(calls) == 2 else {})}

    monkeypatch.setattr(TrainStep, "run", once)
    with pytest.raises(TrainingError, match=r"the loss is nan at one of the steps 4 to 6\. Lower"):
        trainer("run", *FLAGS)


@pytest.mark.slow
def test_a_layer_is_named(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    call = keras.layers.LayerNormalization.call

    def overflow(self: keras.layers.Layer, x: object) -> object:
        return call(self, x) / 0.0

    monkeypatch.setattr(keras.layers.LayerNormalization, "call", overflow)
    with pytest.raises(TrainingError, match=r"at step 1; .* is the output of the layer encoder_"):
        trainer("run", *FLAGS)


@pytest.mark.every_backend
def test_what_is_not_finite_is_not_saved() -> None:
    arrays = {"model/kernel": np.ones(3), "optimizer/m": np.array([0.0, np.inf])}
    with pytest.raises(TrainingError, match="optimizer/m is not finite after step 7"):
        check_finite(arrays, 7)
    check_finite({**arrays, "optimizer/m": np.array([3])}, 7)
