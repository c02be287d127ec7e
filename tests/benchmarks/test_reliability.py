"""Parts of the reliability table, with few files and steps: what the others lack in the tests."""

from pathlib import Path

import pytest

from benchmarks.reliability import damaged_data


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    # More files than kinds of damage, and enough whole ones for a batch.
    monkeypatch.setattr(damaged_data, "SHARDS", 14)


@pytest.mark.slow
@pytest.mark.parametrize("kind", damaged_data.KINDS)
def test_a_damaged_file_is_named(
    few_files: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    row = next(iter(damaged_data.measure(tmp_path, [kind])))
    assert row.held == row.tries == 14, (row, capsys.readouterr().out)


@pytest.mark.extra
def test_trainings_on_damaged_files_of_images_and_videos(
    few_files: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(damaged_data.measure(tmp_path))
    assert len(rows) == 6
    for row in rows:
        assert row.held == row.tries, (row, capsys.readouterr().out)
