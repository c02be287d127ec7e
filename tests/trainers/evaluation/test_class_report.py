"""Results by class, and what is said where they cannot be made."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.processes import ROOT
from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import parse
from tests.helpers.worker_hosts import error_line
from trainers.checkpointing.workdir import prepare_workdir
from trainers.data.datasets.digits import digits_source
from trainers.evaluation.class_report import check_report
from trainers.evaluation.class_report import class_report
from trainers.evaluation.class_report import write_report
from trainers.experiment import make_model_config
from trainers.utils.errors import ConfigurationError

# Right class first. Two classes share a name, and nothing is of the last one.
CONFUSION = np.array([[3, 1, 0, 0], [2, 4, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]])
NAMES = ["crane", "owl", "crane", "never"]


def test_figures_of_each_class() -> None:
    pytest.importorskip("sklearn")
    report = class_report(CONFUSION, NAMES)
    classes = report["classes"]
    assert list(classes) == ["0 crane", "1 owl", "2 crane", "3 never"]
    assert [values["support"] for values in classes.values()] == [4, 6, 2, 0]
    precision, recall = (
        [values[k] for values in classes.values()] for k in ("precision", "recall")
    )
    assert precision == pytest.approx([3 / 5, 4 / 6, 0, 0])
    assert recall == pytest.approx([3 / 4, 4 / 6, 0, 0])
    assert classes["0 crane"]["f1-score"] == pytest.approx(2 * 3 / (5 + 4))
    assert report["averages"]["macro avg"]["recall"] == pytest.approx(sum(recall) / 4)
    weighted = report["averages"]["weighted avg"]["recall"]
    assert weighted == pytest.approx((3 + 4) / 12)  # the accuracy
    assert report["class_names"] == NAMES
    assert report["confusion_matrix"] == CONFUSION.tolist()


def test_a_report_is_json_and_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for step in (1, 2):
        write_report(str(path), {"step": step})
        assert json.loads(path.read_text()) == {"step": step}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("missing", ["sklearn", "sklearn.metrics"])
def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delitem(sys.modules, "sklearn.metrics", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    check_report(None)
    with pytest.raises(ConfigurationError, match="pip install scikit-learn") as failure:
        check_report("report.json")
    assert "\n" not in str(failure.value)


def test_bad_places_for_a_report(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    check_report("report.json")
    check_report(str(tmp_path / "report.json"))
    with pytest.raises(ConfigurationError, match="there is no folder"):
        check_report(str(tmp_path / "missing" / "report.json"))
    with pytest.raises(ConfigurationError, match="is a directory"):
        check_report(str(tmp_path))
    for name in ("config.json", "metrics.jsonl", "model.keras"):
        with pytest.raises(ConfigurationError, match="a training's own file"):
            check_report(str(tmp_path / name))


BLOCKED = """
import runpy, sys
sys.modules["sklearn"] = None
sys.argv[0] = "evaluate"
runpy.run_module("trainers.evaluate", run_name="__main__")
"""


@pytest.mark.slow
def test_the_command_without_scikit_learn(tmp_path: Path) -> None:
    # Enough of a run: the report is checked before the checkpoint is looked for.
    config = parse(f"--config={config_file(tmp_path)}").config
    (tmp_path / "run").mkdir()
    prepare_workdir(
        str(tmp_path / "run"), config, make_model_config(config, 10), digits_source("train")
    )
    flags = [f"--workdir={tmp_path / 'run'}", f"--report={tmp_path / 'report.json'}"]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and not done.stdout, done.stderr
    assert "pip install scikit-learn" in error_line(done.stderr)
    assert not (tmp_path / "report.json").exists()
