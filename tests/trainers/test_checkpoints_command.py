import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from tests.helpers.checkpoint_stores import small_arrays
from tests.helpers.processes import ROOT
from trainers import checkpoints
from trainers.checkpointing.checkpoint_file import digest
from trainers.checkpointing.store import CheckpointStore
from trainers.utils import files
from trainers.utils.errors import ConfigurationError


def _list(monkeypatch: pytest.MonkeyPatch, workdir: str | None) -> None:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", workdir, "", flag_values=values)
    values(["checkpoints"])
    monkeypatch.setattr(checkpoints, "FLAGS", values)
    checkpoints.main()


def _lines(workdir: str) -> list[str]:
    with CheckpointStore(files.join(workdir, "checkpoints"), 9) as store:
        for step in (100000000, 20, 3):
            store.save(step, small_arrays(step))
    return [f"{step} ok {digest(small_arrays(step))}" for step in (3, 20, 100000000)]


def test_one_line_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _lines(str(tmp_path))
    (tmp_path / "checkpoints" / ".partial-step_00000021").mkdir()
    _list(monkeypatch, str(tmp_path))
    output, errors = capsys.readouterr()
    assert output.splitlines() == lines and not errors
    # The time of a file does not matter, its bytes do.
    path = tmp_path / "checkpoints" / "step_00000020"
    (path / "arrays.npz").touch()
    (tmp_path / "checkpoints" / "step_00000003" / "arrays.npz").write_bytes(b"\n")
    _list(monkeypatch, str(tmp_path))
    output, errors = capsys.readouterr()
    damaged, *others = output.splitlines()
    assert others == lines[1:] and not errors
    assert damaged.startswith("3 damaged ") and "bytes where" in damaged


def test_on_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = f"ram://{tmp_path.name}"
    lines = _lines(workdir)
    # Without its manifest, which is written last, a checkpoint does not exist there.
    files.remove(files.join(workdir, "checkpoints", "step_00000020", "manifest.json"))
    _list(monkeypatch, workdir)
    assert capsys.readouterr().out.splitlines() == [lines[0], lines[2]]


@pytest.mark.parametrize("workdir", [None, "", "nothing", "empty", "file"])
def test_without_checkpoints(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workdir: str | None,
) -> None:
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="Expected --workdir=DIR"):
        _list(monkeypatch, workdir)
    assert not capsys.readouterr().out


def test_as_a_process(tmp_path: Path) -> None:
    lines = _lines(str(tmp_path))
    command = [sys.executable, "-m", "trainers.checkpoints"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, lines, "")
    done = subprocess.run(
        [*command, f"--workdir={tmp_path / 'none'}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    "module",
    [
        "trainers.checkpoints",
        "trainers.data.freedoom.render_images",
        "trainers.data.freedoom.render_clips",
    ],
)
def test_short_processes_start_without_tensorflow(module: str) -> None:
    script = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0
