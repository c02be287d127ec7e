import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.trainers.small_runs import assert_same_arrays
from trainers.checkpointing import Arrays
from trainers.checkpointing import CheckpointStore
from trainers.checkpointing import write_atomically
from trainers.errors import ConfigurationError
from trainers.state import load_state
from trainers.state import state_arrays


def _arrays(value: float = 1.0) -> Arrays:
    return {
        "model/kernel": np.full((3, 4), value, np.float32),
        "model/bias": np.array([np.nan, -0.0, 1e-40], np.float32),
        "optimizer/iterations": np.array(7, np.int64),
    }


class _Store:
    """A store with checkpoints 1, 2, 3, that collects its reports."""

    def __init__(self, folder: Path, keep: int = 9) -> None:
        self.reports: list[str] = []
        self.store = CheckpointStore(folder / "checkpoints", keep, self.reports.append)
        for step in (1, 2, 3):
            self.store.save(step, _arrays(step))

    def path(self, step: int) -> Path:
        return self.store.directory / f"step_{step:08d}"


def test_round_trip(tmp_path: Path) -> None:
    store = _Store(tmp_path).store
    found = store.load_newest()
    assert found is not None
    step, arrays = found
    assert step == 3
    assert_same_arrays(arrays, _arrays(3))
    assert arrays["optimizer/iterations"].shape == ()


def test_an_empty_directory_holds_none(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none", 1).load_newest() is None
    assert not (tmp_path / "none").exists()


def _cut(path: Path) -> None:
    file = path / "arrays.npz"
    file.write_bytes(file.read_bytes()[:-10])


def _flip(path: Path) -> None:
    content = bytearray((path / "arrays.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "arrays.npz").write_bytes(content)


def _remove_arrays(path: Path) -> None:
    (path / "arrays.npz").unlink()


def _remove_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def _cut_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[:20])


def _empty_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("{}")


def _other_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("[]")


def _binary_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _flip,
        _remove_arrays,
        _remove_manifest,
        _cut_manifest,
        _empty_manifest,
        _other_manifest,
        _binary_manifest,
    ],
)
def test_a_damaged_one_is_named_and_skipped(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = _Store(tmp_path)
    damage(store.path(3))
    found = store.store.load_newest()
    assert found is not None and found[0] == 2
    (report,) = store.reports
    assert str(store.path(3)) in report and "damaged" in report
    store.store.save(3, _arrays(5))
    found = store.store.load_newest()
    assert found is not None and found[0] == 3


def test_all_damaged(tmp_path: Path) -> None:
    store = _Store(tmp_path)
    for step in (1, 2, 3):
        _flip(store.path(step))
    assert store.store.load_newest() is None
    assert len(store.reports) == 3


def test_partial_and_foreign_entries_are_ignored(tmp_path: Path) -> None:
    store = _Store(tmp_path)
    store.path(3).rename(store.store.directory / ".partial-step_00000003")
    (store.store.directory / "step_12").mkdir()
    (store.store.directory / "notes.txt").write_text("mine")
    assert store.store.steps() == [1, 2]
    store.store.save(3, _arrays())
    assert store.store.steps() == [1, 2, 3]
    assert not list(store.store.directory.glob(".partial*"))


def test_the_newest_are_kept(tmp_path: Path) -> None:
    store = _Store(tmp_path, keep=2).store
    assert store.steps() == [2, 3]
    store.save(123456789, _arrays())
    assert store.steps() == [3, 123456789]
    with pytest.raises(ConfigurationError, match="keep_checkpoints"):
        CheckpointStore(tmp_path, 0)


def test_later_damaged_ones_do_not_push_out_a_valid_one(tmp_path: Path) -> None:
    store = _Store(tmp_path)
    for step in (2, 3):
        _flip(store.path(step))
    again = CheckpointStore(store.store.directory, 1, store.reports.append)
    assert again.load_newest() is not None
    again.save(2, _arrays(9))
    found = again.load_newest()
    assert found is not None and found[0] == 2


def test_a_failed_write_leaves_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _Store(tmp_path).store
    before = (store.directory / "step_00000003" / "arrays.npz").read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for step in (3, 4):
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(OSError, match="No space"):
                store.save(step, _arrays(8))
        assert store.steps() == [1, 2, 3]
        assert (store.directory / "step_00000003" / "arrays.npz").read_bytes() == before
    blocked = CheckpointStore(tmp_path / "file", 1)
    blocked.directory.write_text("")
    with pytest.raises(OSError):
        blocked.save(1, _arrays())


def test_a_failed_atomic_write_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    write_atomically(path, b"old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    write_atomically(path, json.dumps({}).encode())
    assert path.read_bytes() == b"{}"


def _model(width: int, layers: int = 1) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    dense = [keras.layers.Dense(width) for _ in range(layers)]
    model = keras.Sequential([keras.Input((3,)), *dense, keras.layers.Dropout(0.5)])
    optimizer = keras.optimizers.AdamW(use_ema=True)
    optimizer.build(model.trainable_variables)
    return model, optimizer


@pytest.mark.parametrize(("width", "layers"), [(5, 1), (4, 2)])
def test_the_state_of_another_model_changes_nothing(width: int, layers: int) -> None:
    arrays = state_arrays(*_model(width, layers))
    model, optimizer = _model(4)
    before = state_arrays(model, optimizer)
    with pytest.raises(ConfigurationError, match="another model or optimizer"):
        load_state(arrays, model, optimizer)
    assert_same_arrays(state_arrays(model, optimizer), before)


def test_state_round_trip() -> None:
    keras.backend.clear_session()  # the names of the layers begin anew
    model, optimizer = _model(4)
    for variable in [*model.trainable_variables, *optimizer.variables]:
        if "float" in variable.dtype:
            variable.assign(np.random.default_rng(0).random(variable.shape))
    arrays = state_arrays(model, optimizer)
    assert not any("seed_generator" in name for name in arrays)
    keras.backend.clear_session()
    other = _model(4)
    load_state(arrays, *other)
    assert_same_arrays(state_arrays(*other), arrays)
