"""Parts of the reliability table, with few files and steps: what the others lack in the tests."""

from pathlib import Path

import pytest

from benchmarks.reliability import damaged_data
from benchmarks.reliability import damaged_sets
from benchmarks.reliability import soak

pytestmark = pytest.mark.slow


def test_damaged_files_of_images_and_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # More files than kinds of damage, and enough whole ones for a batch.
    for module in (damaged_data, damaged_sets):
        monkeypatch.setattr(module, "SHARDS", 14)
    rows = list(damaged_data.measure(tmp_path))
    assert len(rows) == 6
    for row in rows:
        assert row.held == row.tries, (row, capsys.readouterr().out)


def test_a_long_run_opens_no_more_and_more_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "STEPS", 1500)
    _, files = soak.watched(tmp_path / "run", "tensorflow")
    assert soak.growth(files) == 0
