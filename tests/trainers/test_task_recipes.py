"""The recipes of the built-in tasks train, on small sets of the real ones."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.mnist_files import real_digits
from tests.helpers.mnist_files import write_mnist
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import rows
from tokenlearner_keras.graph import without_weights
from trainers.configuration.configuration import whole_config
from trainers.data.datasets.digit_canvases import STANDARD_CANVASES
from trainers.data.freedoom.dataset import STANDARD_SETS
from trainers.data.freedoom.options import SplitOptions
from trainers.experiment import make_model_config

CONFIGS = Path(__file__).parents[2] / "trainers" / "configs"
# The dearest model of a task may cost so many million multiply-accumulates.
LIMITS = {
    "cluttered_digits": 15,
    "digit_relation": 15,
    "freedoom_scenes": 15,
    "freedoom_route": 30,
}
FLAGS = (
    "--config.batch_size=4",
    "--config.total_steps=2",
    "--config.log_steps=1",
    "--config.eval_steps=2",
    "--config.checkpoint_steps=2",
)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trainer: Trainer) -> Trainer:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path / "cache"))
    return trainer


def _check(workdir: Path, examples: dict[str, int]) -> None:
    assert all(np.isfinite(row["loss"]) for row in rows(workdir, "train"))
    assert (workdir / "model.keras").exists()
    for split, count in examples.items():
        assert rows(workdir, split)[-1]["num_examples"] == count


@pytest.mark.parametrize("name", LIMITS)
def test_cost(name: str) -> None:
    config = whole_config(str(CONFIGS / f"{name}.py"))
    with without_weights():
        model = tk.build_model(make_model_config(config, 10))
    assert tk.count_macs(model) < LIMITS[name] * 1e6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cluttered_digits", "digit_relation"])
def test_digits(name: str, train: Trainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counts = {"train": 8, "validation": 5, "test": 6}
    small = dataclasses.replace(STANDARD_CANVASES[name], counts=counts)
    monkeypatch.setitem(STANDARD_CANVASES, name, small)
    folder = write_mnist(tmp_path / "mnist", real_digits())
    train.config = str(CONFIGS / f"{name}.py")
    workdir = train("run", f"--config.data.data_dir={folder}", *FLAGS)
    _check(workdir, {"validation": 5, "test": 6})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["freedoom_scenes", "freedoom_route"])
def test_rendered(name: str, train: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom")
    splits = {
        split: SplitOptions((map_name,), 4 if name == "freedoom_route" else 1)
        for split, map_name in (("train", "MAP02"), ("validation", "MAP11"), ("test", "MAP29"))
    }
    monkeypatch.setitem(
        STANDARD_SETS, name, dataclasses.replace(STANDARD_SETS[name], splits=splits)
    )
    train.config = str(CONFIGS / f"{name}.py")
    workdir = train("run", *FLAGS)
    _check(workdir, {"test": 4} if name == "freedoom_route" else {})
