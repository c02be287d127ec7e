"""Every example learns, by its own main, on the backend at hand."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

import tokenlearner_keras as tk

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Of an example's fifteen; a tenth would be guessing.
EPOCHS, ACCURACY = 6, 0.6


def _main(name: str) -> Callable[..., float]:
    scope: dict[str, Any] = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    return scope["main"]


def test_no_example_is_left_out() -> None:
    tested = {"functional", "sequential", "subclassed"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.slow
def test_functional(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("functional")(epochs=EPOCHS) > ACCURACY
    assert "attention maps of 397 images: (397, 6, 8, 8)" in capsys.readouterr().out


@pytest.mark.slow
def test_sequential(tmp_path: Path) -> None:
    assert _main("sequential")(tmp_path, epochs=EPOCHS) > ACCURACY
    lines = (tmp_path / "epochs.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + EPOCHS


@pytest.mark.slow
def test_subclassed(tmp_path: Path) -> None:
    # Its own check: the file of the best epoch equals the model that was restored.
    assert _main("subclassed")(tmp_path, epochs=EPOCHS) > ACCURACY
    assert (tmp_path / "epochs.csv").stat().st_size > 0
    wrote_events = any((tmp_path / "tensorboard").rglob("events.out.*"))
    assert wrote_events == (keras.backend.backend() == "tensorflow")
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    learners = [layer for layer in loaded.layers if isinstance(layer, tk.TokenLearnerV11)]
    assert [layer.num_tokens for layer in learners] == [16, 4]
