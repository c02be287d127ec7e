import errno
import hashlib
import json
import threading
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.trainers.small_runs import assert_same_arrays
from trainers import files
from trainers.checkpoint_files import Arrays
from trainers.checkpoint_files import DamagedCheckpointError
from trainers.checkpoint_files import digest
from trainers.checkpointing import CheckpointStore
from trainers.errors import ConfigurationError


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
        self.folder = folder / "checkpoints"
        self.store = CheckpointStore(self.folder, keep, self.reports.append)
        for step in (1, 2, 3):
            self.store.save(step, _arrays(step))
        self.store.wait()

    def path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}"

    def newest(self) -> int | None:
        found = self.store.load_newest()
        return None if found is None else found[0]


@pytest.fixture(params=["local", "ram"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where checkpoints go, on the disk and on a file system of TensorFlow."""
    if request.param == "local":
        yield str(tmp_path / "checkpoints")
    else:
        yield f"ram://{tmp_path.name}/checkpoints"
        files.remove(f"ram://{tmp_path.name}")


def test_round_trip(directory: str) -> None:
    store = CheckpointStore(directory, 9)
    for each in (1, 2, 3):
        store.save(each, _arrays(each))
    found = store.load_newest()
    assert found is not None
    step, arrays = found
    assert step == 3
    assert_same_arrays(arrays, _arrays(3))
    assert arrays["optimizer/iterations"].shape == ()
    assert_same_arrays(store.load(2), _arrays(2))
    with pytest.raises(ConfigurationError, match="no checkpoint of step 4. It has: 1, 2, 3"):
        store.load(4)


def test_an_empty_directory_holds_none(directory: str) -> None:
    store = CheckpointStore(directory, 1)
    assert store.load_newest() is None and store.steps() == []
    assert not files.exists(directory)


def _cut(path: Path) -> None:
    file = path / "arrays.npz"
    file.write_bytes(file.read_bytes()[:-10])


def _flip(path: Path) -> None:
    content = bytearray((path / "arrays.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "arrays.npz").write_bytes(content)


def _remove_arrays(path: Path) -> None:
    (path / "arrays.npz").unlink()


def _folder_of_arrays(path: Path) -> None:
    (path / "arrays.npz").unlink()
    (path / "arrays.npz").mkdir()


def _no_archive(path: Path) -> None:
    """Puts something else in the place of the arrays, with the manifest for it."""
    payload = b"PK\x03\x04 and no more"
    (path / "arrays.npz").write_bytes(payload)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest |= {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))


def _remove_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def _cut_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[:20])


def _empty_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("{}")


def _other_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("[]")


def _manifest_of_another_step(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"step": 3', '"step": 2'))


def _binary_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"\xff\xfe\x00")


#: What happens to a checkpoint, and what the report says about it.
DAMAGES: dict[Callable[[Path], None], str] = {
    _cut: "bytes where",
    _flip: "sha256",
    _remove_arrays: "arrays.npz is missing",
    _folder_of_arrays: "arrays.npz is no file",
    _no_archive: "arrays.npz holds no arrays",
    _remove_manifest: "manifest.json is missing",
    _cut_manifest: "manifest.json is garbled",
    _empty_manifest: "manifest.json is garbled",
    _other_manifest: "manifest.json is garbled",
    _binary_manifest: "manifest.json is garbled",
    _manifest_of_another_step: "manifest.json is of step 2",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_named_and_skipped(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = _Store(tmp_path)
    damage(store.path(3))
    assert store.newest() == 2
    (report,) = store.reports
    assert str(store.path(3)) in report and "damaged" in report
    assert DAMAGES[damage] in report and "\n" not in report
    with pytest.raises(DamagedCheckpointError, match="damaged"):
        store.store.load(3)
    store.store.save(3, _arrays(5))
    assert store.newest() == 3


def test_all_damaged(tmp_path: Path) -> None:
    store = _Store(tmp_path)
    for step in (1, 2, 3):
        _flip(store.path(step))
    assert store.newest() is None
    assert len(store.reports) == 3


@pytest.mark.parametrize("number", [errno.EACCES, errno.ECONNRESET])
def test_one_that_cannot_be_read_now_may_be_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = _Store(tmp_path)

    def fail(path: str) -> bytes:
        raise OSError(number, "not now")

    monkeypatch.setattr(files, "read", fail)
    with pytest.raises(OSError, match="not now"):
        store.store.load_newest()


def test_partial_and_foreign_entries_are_ignored(tmp_path: Path) -> None:
    store = _Store(tmp_path)
    store.path(3).rename(store.folder / ".partial-step_00000003")
    (store.folder / ".removed-step_00000001").mkdir()
    (store.folder / "step_12").mkdir()
    (store.folder / "notes.txt").write_text("mine")
    assert store.store.steps() == [1, 2]
    store.store.save(3, _arrays())
    assert store.store.steps() == [1, 2, 3]
    names = {path.name for path in store.folder.iterdir()}
    assert {"step_12", "notes.txt"} < names and not any(name[0] == "." for name in names)


def test_the_newest_are_kept(directory: str) -> None:
    store = CheckpointStore(directory, 2)
    for step in (1, 2, 3, 123456789):
        store.save(step, _arrays())
    assert store.steps() == [3, 123456789]
    with pytest.raises(ConfigurationError, match="keep_checkpoints"):
        CheckpointStore(directory, 0)


def test_later_damaged_ones_do_not_push_out_a_valid_one(tmp_path: Path) -> None:
    store = _Store(tmp_path)
    for step in (2, 3):
        _flip(store.path(step))
    again = CheckpointStore(store.folder, 1, store.reports.append)
    assert again.load_newest() is not None
    again.save(2, _arrays(9))
    found = again.load_newest()
    assert found is not None and found[0] == 2


def test_a_failed_write_leaves_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _Store(tmp_path)
    before = (store.path(3) / "arrays.npz").read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for step in (3, 4):
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            store.store.save(step, _arrays(8))
            with pytest.raises(OSError, match="No space"):
                store.store.wait()
        assert store.store.steps() == [1, 2, 3]
        assert (store.path(3) / "arrays.npz").read_bytes() == before
    blocked = CheckpointStore(tmp_path / "file", 1)
    (tmp_path / "file").write_text("")
    blocked.save(1, _arrays())
    with pytest.raises(OSError):
        blocked.wait()


def test_python_objects_are_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 1)
    store.save(1, {"bad": np.array([None])})
    with pytest.raises(TypeError, match="'bad' holds Python objects"):
        store.wait()


#: What the writing of a checkpoint writes, in order.
FILES = ["arrays.npz", ".partial-manifest.json"]


class _Slow:
    """Holds every write back until it is let go; may fail after that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.go = threading.Event()
        self.written: list[str] = []
        write = files.write

        def wait_and_write(path: str, payload: bytes) -> None:
            assert self.go.wait(60)
            if error is not None:
                raise error
            self.written.append(Path(path).name)
            write(path, payload)

        monkeypatch.setattr(files, "write", wait_and_write)


def test_the_loop_goes_on_while_a_checkpoint_is_written(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _Slow(monkeypatch)
    with CheckpointStore(directory, 9) as store:
        store.save(1, _arrays())  # returns, although nothing can be written yet
        assert slow.written == []
        slow.go.set()
        store.save(2, _arrays())  # waits for the first one
        assert slow.written[:2] == FILES
    assert CheckpointStore(directory, 9).steps() == [1, 2]
    assert slow.written == FILES * 2


def test_an_error_of_the_writer_comes_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _Slow(monkeypatch, OSError(28, "No space left on device"))
    slow.go.set()
    reports: list[str] = []
    store = CheckpointStore(tmp_path, 9, reports.append)
    store.save(1, _arrays())
    with pytest.raises(OSError, match="No space"):
        store.save(2, _arrays())
    assert store.steps() == [] and store.load_newest() is None
    with pytest.raises(OSError, match="No space"), store:
        store.save(3, _arrays())
    # The error that ends the run comes first.
    with pytest.raises(KeyError), store:
        store.save(4, _arrays())
        raise KeyError("the run's own")
    (report,) = reports
    assert "could not be written" in report and "No space" in report


class _Killed(BaseException):
    """The process ends here."""


#: Functions of trainers.files that change something.
CHANGES = ("make_directories", "write", "rename", "force", "remove")


def _die_at(patch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Kills the run at the n-th change of a file, and leaves nothing to do after it.

    A write that is killed has written a half.
    """
    done: list[str] = []

    def dying(name: str) -> Callable[..., None]:
        original = getattr(files, name)

        def call(path: str, *rest: object) -> None:
            done.append(name)
            if len(done) == number and name == "write":
                (payload,) = rest
                assert isinstance(payload, bytes)
                original(path, payload[: len(payload) // 2])
            if len(done) >= number:
                raise _Killed
            original(path, *rest)

        return call

    for name in CHANGES:
        patch.setattr(files, name, dying(name))
    return done


def test_a_kill_at_any_change_of_a_file(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 99):
        files.remove(directory)
        store = CheckpointStore(directory, 2)
        for step in (1, 2):
            store.save(step, _arrays(step))
        store.wait()
        with monkeypatch.context() as patch:
            done = _die_at(patch, number)
            store.save(3, _arrays(3))
            try:
                store.wait()
                break  # there was nothing left to kill
            except _Killed:
                pass
        reports: list[str] = []
        again = CheckpointStore(directory, 2, reports.append)
        found = again.load_newest()
        assert found is not None and found[0] in (2, 3)
        assert_same_arrays(found[1], _arrays(found[0]))
        # Not even the command that lists them sees a trace of the kill.
        for step in again.steps():
            assert_same_arrays(again.load(step), _arrays(step))
        again.save(3, _arrays(3))
        assert again.steps() == [2, 3] and reports == []
        assert len(files.list_names(directory)) == 2
    assert number > len(done) > 5 and set(done) <= set(CHANGES)


def _saved_with(directory: str, metric: str, values: list[float]) -> CheckpointStore:
    store = CheckpointStore(directory, 1, best_metric=metric)
    for step, value in enumerate(values, start=1):
        store.save(step, _arrays(step), {metric: value, "num_examples": 8})
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
    # A run that goes on knows it too; a checkpoint without an evaluation is never the best.
    again = CheckpointStore(directory, 1, best_metric=metric)
    assert not again.is_best(5, {metric: values[best - 1]})
    again.save(5, _arrays(5))
    assert again.steps() == [best, 5]
    better = values[best - 1] + (0.05 if metric == "accuracy" else -0.05)
    assert again.is_best(6, {metric: better})
    again.save(6, _arrays(6), {metric: better})
    assert again.steps() == [6]


def test_the_best_one_is_the_best_before_this_step(directory: str) -> None:
    _saved_with(directory, "accuracy", [0.2, 0.3, 0.9]).wait()
    files.remove(files.join(directory, "step_00000003", "arrays.npz"))
    again = CheckpointStore(directory, 1, best_metric="accuracy")
    assert again.is_best(3, {"accuracy": 0.5})


def test_metrics_that_choose_the_best(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="one of accuracy, .* Received: 'acuracy'"):
        CheckpointStore(tmp_path, 1, best_metric="acuracy")
    store = CheckpointStore(tmp_path, 1, best_metric="top5_accuracy")
    with pytest.raises(ConfigurationError, match="not among the metrics.*: loss, num_examples"):
        store.is_best(1, {"loss": 1.0, "num_examples": 8})
    assert not CheckpointStore(tmp_path, 1).is_best(1, {"accuracy": 1.0})


def test_the_digest_is_over_names_types_shapes_and_bytes() -> None:
    base = _arrays()
    turned = dict(reversed(base.items()))
    assert digest(base) == digest(turned)
    zero = np.zeros(4, np.float32)
    others = [
        {**base, "model/more": np.zeros(0, np.float32)},
        {name.replace("kernel", "kernels"): value for name, value in base.items()},
        {**base, "model/kernel": base["model/kernel"].reshape(4, 3)},
        {**base, "model/bias": base["model/bias"].view(np.int32)},
        {**base, "model/bias": np.array([np.nan, 0.0, 1e-40], np.float32)},
        {"a": zero},
        {"a": zero[:2], "b": zero[2:]},
        {"a": zero[:3], "b": zero[3:]},
    ]
    digests = {digest(each) for each in [base, *others]}
    assert len(digests) == len(others) + 1
    # Not over the order of the elements in memory.
    assert digest({"a": np.asfortranarray(base["model/kernel"])}) == digest(
        {"a": base["model/kernel"]}
    )
