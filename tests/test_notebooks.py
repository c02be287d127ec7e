"""Every notebook runs from its first cell to its last, offline."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
#: What some need beside the environment of `make test`; the session keras_hub has it.
NEEDS = {"03_pretrained_vit": "keras_hub"}


def _sources(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells]


def test_there_are_notebooks() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == ["01_", "02_", "03_", "04_"]


def test_all_are_installed_and_opened_from_one_repository() -> None:
    found = set()
    for path in NOTEBOOKS:
        title, install = _sources(path)[:2]
        (link,) = re.findall(r"\(https://colab\.research\.google\.com/github/(\S+)\)", title)
        repository, file = link.split("/blob/main/")
        assert file == f"notebooks/{path.name}"
        found |= {
            repository,
            *re.findall(r'^REPOSITORY = "https://github.com/(.+)"$', install, re.M),
        }
    assert len(found) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_last_cell_says_what_to_try(path: Path) -> None:
    assert "## Something to try" in _sources(path)[-1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_pictures_are_committed(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]
    # Neither what one machine warns of, nor megabytes that every clone would hold.
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert path.stat().st_size < 400_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(path, monkeypatch)


@pytest.mark.slow
def test_the_training_notebook_runs_on_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (path,) = (path for path in NOTEBOOKS if path.stem == "02_training")
    printed = _run(path, monkeypatch)
    assert "engine: jax" in printed and "stopped by signal 15" in printed


def _run(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a notebook on small data and returns what it prints."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    if path.stem in NEEDS and importlib.util.find_spec(NEEDS[path.stem]) is None:
        pytest.skip(f"needs {NEEDS[path.stem]}")
    # Small data, and nothing from the network.
    monkeypatch.setenv("TOKENLEARNER_NOTEBOOKS", "small")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert pictures
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")
