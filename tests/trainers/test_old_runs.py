"""Work directories and `.keras` files written before modules moved."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tests.fixtures.make_old_runs import CONFIG
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import rows
from trainers import checkpoints
from trainers.checkpointing.keras_archive import load_keras_archive
from trainers.inference.trained_model import load_workdir

OLD_RUNS = Path(__file__).parents[1] / "fixtures" / "old_runs"


@pytest.fixture(params=sorted(path.name for path in OLD_RUNS.iterdir()))
def old_run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run that the package wrote at a commit."""
    return Path(shutil.copytree(OLD_RUNS / request.param, tmp_path / "run"))


def test_models_and_checkpoints_load(
    old_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoints, "FLAGS", SimpleNamespace(workdir=str(old_run)))
    checkpoints.main()
    assert capsys.readouterr().out.startswith("4 ok ")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    expected = load_workdir(str(old_run)).model(images)
    for load in (keras.saving.load_model, load_keras_archive):
        np.testing.assert_array_equal(load(str(old_run / "model.keras"))(images), expected)


@pytest.mark.slow
def test_a_training_resumes(old_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(old_run)
    Trainer(monkeypatch, old_run.parent, CONFIG)("run", "--config.total_steps=6")
    after = rows(old_run)
    assert after[: len(before)] == before
    assert [row["step"] for row in after[len(before) :]] == [5, 6, 6]
    assert json.loads((old_run / "config.json").read_text())
