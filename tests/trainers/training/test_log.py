import json
import time
from pathlib import Path

import pytest

from trainers.training.log import TrainingLog
from trainers.utils.errors import TrainingError
from trainers.utils.reporting import MetricsWriter

#: Sums of four blocks of steps, none of them a round number.
BLOCKS = [
    {"loss": 0.1 * n, "correct": 3.0 + n, "num_examples": 8.0, "gradient_norm": 1 / (n + 3)}
    for n in range(4)
]


class _Clock:
    """Stands for the time; a second passes at every look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", self._tick)

    def _tick(self) -> float:
        self.now += 1.0
        return self.now


def _log(folder: Path) -> TrainingLog:
    return TrainingLog(MetricsWriter(folder, 99), lambda step: step / 10, batch_size=4)


def _add(log: TrainingLog, blocks: list[dict[str, float]], compiled: bool = False) -> None:
    for sums in blocks:
        log.add({**sums, "data_wait": 0.25}, num_steps=2, compiled=compiled)


def _row(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.jsonl").read_text())


def test_a_row_continues_after_a_resume(tmp_path: Path) -> None:
    whole, first, second = (_log(tmp_path / name) for name in ("whole", "first", "second"))
    _add(whole, BLOCKS)
    whole.write(8)
    _add(first, BLOCKS[:3])
    arrays = first.arrays()
    second.load({**arrays, "model/kernel": arrays["log/loss"]})
    _add(second, BLOCKS[3:])
    second.write(8)
    expected, resumed = _row(tmp_path / "whole"), _row(tmp_path / "second")
    for name in ("step", "split", "loss", "accuracy", "gradient_norm", "learning_rate"):
        assert resumed[name] == expected[name], name
    # The next interval begins with nothing, and so does one after no checkpoint at all.
    assert not any(value.any() for value in second.arrays().values())
    second.load({})
    assert second.arrays() == _log(tmp_path / "fresh").arrays()


def test_the_speed_is_measured_again_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _log(tmp_path / "first")
    _add(first, BLOCKS[:3])
    clock = _Clock(monkeypatch)
    second = _log(tmp_path / "second")
    second.load(first.arrays())
    clock.now += 1000  # the first block is compiled
    _add(second, BLOCKS[3:], compiled=True)
    assert second.steps_per_second is None and second.data_wait is None
    second.write(8)
    row = _row(tmp_path / "second")
    assert "loss" in row
    assert not {"steps_per_second", "images_per_second", "data_wait"} & row.keys()
    _add(second, BLOCKS[:2])
    assert second.steps_per_second == pytest.approx(2.0)
    assert second.data_wait == pytest.approx(0.25)


def test_the_learning_rate_is_that_of_the_last_step(tmp_path: Path) -> None:
    log = _log(tmp_path)
    _add(log, BLOCKS)
    log.write(8)
    assert _row(tmp_path)["learning_rate"] == pytest.approx(0.7)  # of the steps 0 to 7


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_a_training_that_diverges(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainingError, match=f"diverged: the {name.replace('_', ' ')} is nan"):
        _add(_log(tmp_path), [{**BLOCKS[0], name: float("nan")}])
