"""Checkpoints come back as they were saved, and the right ones are kept."""

from pathlib import Path

import pytest

from tests.helpers.checkpoint_stores import ThreeCheckpoints
from tests.helpers.checkpoint_stores import small_arrays
from tests.helpers.small_runs import assert_same_arrays
from trainers.checkpointing.store import CheckpointStore
from trainers.utils import files
from trainers.utils.errors import ConfigurationError


def test_round_trip(directory: str) -> None:
    store = CheckpointStore(directory, 9)
    for each in (1, 2, 3):
        store.save(each, small_arrays(each))
    found = store.load_newest()
    assert found is not None
    step, arrays = found
    assert step == 3
    assert_same_arrays(arrays, small_arrays(3))
    assert arrays["optimizer/iterations"].shape == ()
    assert_same_arrays(store.load(2), small_arrays(2))
    with pytest.raises(ConfigurationError, match="no checkpoint of step 4. It has: 1, 2, 3"):
        store.load(4)


def test_an_empty_directory_holds_none(directory: str) -> None:
    store = CheckpointStore(directory, 1)
    assert store.load_newest() is None and store.steps() == []
    assert not files.exists(directory)


def test_partial_and_foreign_entries_are_ignored(tmp_path: Path) -> None:
    store = ThreeCheckpoints(tmp_path)
    store.path(3).rename(store.folder / ".partial-step_00000003")
    (store.folder / ".removed-step_00000001").mkdir()
    (store.folder / "step_12").mkdir()
    (store.folder / "notes.txt").write_text("mine")
    assert store.store.steps() == [1, 2]
    store.store.save(3, small_arrays())
    assert store.store.steps() == [1, 2, 3]
    names = {path.name for path in store.folder.iterdir()}
    assert {"step_12", "notes.txt"} < names and not any(name[0] == "." for name in names)


def test_the_newest_are_kept(directory: str) -> None:
    store = CheckpointStore(directory, 2)
    for step in (1, 2, 3, 123456789):
        store.save(step, small_arrays())
    assert store.steps() == [3, 123456789]


def _saved_with(directory: str, metric: str, values: list[float]) -> CheckpointStore:
    store = CheckpointStore(directory, 1, best_metric=metric)
    for step, value in enumerate(values, start=1):
        store.save(step, small_arrays(step), {metric: value, "num_examples": 8})
    return store


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("accuracy", [0.2, 0.9, 0.9, 0.4], 2),
        ("loss", [0.2, 0.9, 0.1, 0.4], 3),
        ("accuracy", [float("nan"), 0.1, float("nan"), 0.05], 2),
    ],
)
def test_the_best_one_is_kept(directory: str, metric: str, values: list[float], best: int) -> None:
    store = _saved_with(directory, metric, values)
    assert store.steps() == [best, 4]
    # A run that resumes knows it as well; a checkpoint without an evaluation is never the best.
    again = CheckpointStore(directory, 1, best_metric=metric)
    assert not again.is_best(5, {metric: values[best - 1]})
    again.save(5, small_arrays(5))
    assert again.steps() == [best, 5]
    better = values[best - 1] + (0.05 if metric == "accuracy" else -0.05)
    assert again.is_best(6, {metric: better})
    again.save(6, small_arrays(6), {metric: better})
    assert again.steps() == [6]


def test_the_best_one_is_the_best_before_this_step(directory: str) -> None:
    _saved_with(directory, "accuracy", [0.2, 0.3, 0.9]).wait()
    files.remove(files.join(directory, "step_00000003", "arrays.npz"))
    again = CheckpointStore(directory, 1, best_metric="accuracy")
    assert again.is_best(3, {"accuracy": 0.5})


def test_metrics_that_choose_the_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 1, best_metric="top5_accuracy")
    with pytest.raises(ConfigurationError, match="not among the metrics.*: loss, num_examples"):
        store.is_best(1, {"loss": 1.0, "num_examples": 8})
    assert not CheckpointStore(tmp_path, 1).is_best(1, {"accuracy": 1.0})
