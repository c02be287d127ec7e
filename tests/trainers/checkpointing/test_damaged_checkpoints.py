"""Damaged checkpoints are named and skipped; what cannot be read now is not damaged."""

import errno
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.reliability.bit_flips import is_noticed
from tests.helpers.checkpoint_stores import ThreeCheckpoints
from tests.helpers.checkpoint_stores import small_arrays
from trainers.checkpointing.checkpoint_file import DamagedCheckpointError
from trainers.checkpointing.store import CheckpointStore
from trainers.utils import files


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
    del manifest["manifest_sha256"]  # as earlier releases wrote it
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
    shutil.copy(path.parent / "step_00000002" / "manifest.json", path)


def _binary_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"\xff\xfe\x00")


#: What happens to a checkpoint, and what the report says about it.
DAMAGES: dict[Callable[[Path], None], str] = {
    _cut: "bytes where",
    _flip: "sha256",
    _remove_arrays: "arrays.npz is missing",
    _folder_of_arrays: "arrays.npz is not a file",
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
    store = ThreeCheckpoints(tmp_path)
    damage(store.path(3))
    assert store.newest() == 2
    (report,) = store.reports
    assert str(store.path(3)) in report and "damaged" in report
    assert DAMAGES[damage] in report and "\n" not in report
    with pytest.raises(DamagedCheckpointError, match="damaged"):
        store.store.load(3)
    store.store.save(3, small_arrays(5))
    assert store.newest() == 3


def test_all_damaged(tmp_path: Path) -> None:
    store = ThreeCheckpoints(tmp_path)
    for step in (1, 2, 3):
        _flip(store.path(step))
    assert store.newest() is None
    assert len(store.reports) == 3


def test_later_damaged_ones_do_not_push_out_a_valid_one(tmp_path: Path) -> None:
    store = ThreeCheckpoints(tmp_path)
    for step in (2, 3):
        _flip(store.path(step))
    again = CheckpointStore(store.folder, 1, store.reports.append)
    assert again.load_newest() is not None
    again.save(2, small_arrays(9))
    found = again.load_newest()
    assert found is not None and found[0] == 2


@pytest.mark.parametrize("number", [errno.EACCES, errno.ECONNRESET])
def test_one_that_cannot_be_read_now_may_be_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = ThreeCheckpoints(tmp_path)

    def fail(path: str) -> bytes:
        raise OSError(number, "not now")

    monkeypatch.setattr(files, "read", fail)
    with pytest.raises(OSError, match="not now"):
        store.store.load_newest()


@pytest.mark.parametrize("name", ["arrays.npz", "manifest.json"])
def test_every_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    store = ThreeCheckpoints(tmp_path)
    store.store.save(4, small_arrays(4), {"accuracy": 0.875, "loss": 0.5})
    store.store.wait()
    generator = random.Random(0)
    assert all(is_noticed(store.folder, name, generator) for _ in range(100))
