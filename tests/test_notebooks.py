"""Every notebook runs from its first cell to its last, offline."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: What some need beside the environment of `make test`; the session keras_hub has it.
NEEDS = {"03_pretrained_vit": "keras_hub"}


def _sources(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells]


def _printed(cells: list[Any]) -> str:
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output["text"]) for output in outputs if "text" in output)


def _check_what_the_training_notebook_shows(printed: str) -> None:
    """The model answers for the picture as in the evaluation, so it is shown the same images."""
    (evaluated,) = re.findall(r"^test: accuracy ([\d.]+)", printed, re.M)
    (shown,) = re.findall(r"accuracy of model.keras here ([\d.]+)", printed)
    assert float(shown) == float(evaluated)
    assert "the checkpoint is saved, the same command resumes from there" in printed
    assert len(re.findall(r"^\d+ ok [0-9a-f]{64}$", printed, re.M)) == 2
    assert "dry run: everything fits together; nothing was written" in printed


def test_there_are_notebooks() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == ["01_", "02_", "03_", "04_"]


def _repository(root: Path) -> str | None:
    """Returns the address of the repository; all places must agree."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    url = project.get("urls", {}).get("Repository")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    code = re.findall(r'^repository-code: "(.*)"$', citation, re.MULTILINE)
    assert code == ([url] if url else [])
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        title, install, *others = _sources(path)
        links = re.findall(r"\[Open in Colab\]\((.*)\)", title)
        assert len(links) == bool(url and url.startswith("https://github.com/"))
        for link in links:
            repository = link.replace("colab.research.google.com/github", "github.com")
            assert repository == f"{url}/blob/main/notebooks/{path.name}"
        # Until there is an address, from the clone that the notebook is in.
        package = r'"(\.\.|tokenlearner-keras)\[[^]"]*\](?: @ git\+([^"]*))?"'
        requirements = re.findall(package, "\n".join([install, *others]))
        assert re.search(package, install)
        expected = ("tokenlearner-keras", url) if url else ("..", "")
        assert set(requirements) == {expected}
    return url


def test_all_places_name_one_repository() -> None:
    _repository(ROOT)


def test_the_repository_is_set(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "CITATION.cff", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    for name in (".ci", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def set_repository(url: str) -> int:
        command = [sys.executable, ".ci/set_repository.py", url]
        return subprocess.run(command, cwd=tmp_path, capture_output=True).returncode

    for wrong in ("", "github.com/one/two", "https://github.com/one", "https://a b/one/two"):
        assert set_repository(wrong) != 0
    assert before == {path: path.read_bytes() for path in before}
    for given, url in (
        ("https://github.com/one/two.git", "https://github.com/one/two"),
        ("https://gitlab.example/one/two/three/", "https://gitlab.example/one/two/three"),
        ("https://github.com/other/name", "https://github.com/other/name"),
    ):
        assert set_repository(given) == 0
        assert _repository(tmp_path) == url
        after = {path: path.read_text(encoding="utf-8") for path in before}
        assert set_repository(given) == 0
        assert after == {path: path.read_text(encoding="utf-8") for path in before}
    assert not [text for text in after.values() if "/one/two" in text]
    # Nothing but the address has changed.
    address = r"\[Open in Colab\]\(.*\)\n\n|(?<=\")(\.\.|tokenlearner-keras)(?=\[)| @ git\+[^\"]*"
    for path in NOTEBOOKS:
        old, new = (json.loads((r / "notebooks" / path.name).read_text()) for r in (ROOT, tmp_path))
        for each in (old, new):
            for cell in each["cells"]:
                cell["source"] = re.sub(address, "", "".join(cell["source"]))
        assert old == new


def test_no_link_leads_nowhere() -> None:
    """Neither in a page, nor in a notebook: files that are there, and no address made up."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "mkdocs.yml"]
    texts = {path: path.read_text(encoding="utf-8") for path in pages}
    texts |= {path: "\n".join(_sources(path)) for path in NOTEBOOKS}
    for path, text in texts.items():
        assert not re.findall(r"https?://\S*(?:OWNER|REPOSITORY|USER|example\.(?:com|org))", text)
        # Prose only: code has brackets of its own.
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)[^)\s]*\)", prose):
            assert (path.parent / link).exists(), (path, link)


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
    assert not re.findall(r"(?<!\w)/(?:home|root|tmp|Users|var|work)/\S*", _printed(cells))
    assert path.stat().st_size < 400_000


def test_the_training_notebook_shows_what_was_evaluated() -> None:
    (path,) = (path for path in NOTEBOOKS if path.stem == "02_training")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    _check_what_the_training_notebook_shows(_printed(cells))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(path, monkeypatch)


@pytest.mark.extra
def test_the_training_notebook_runs_on_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (path,) = (path for path in NOTEBOOKS if path.stem == "02_training")
    printed = _run(path, monkeypatch)
    assert "engine: jax" in printed and "stopped by signal 2" in printed


def _run(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a notebook on small data and returns what it prints."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    if path.stem in NEEDS and importlib.util.find_spec(NEEDS[path.stem]) is None:
        pytest.skip(f"needs {NEEDS[path.stem]}")
    # Small data, short training, and nothing from the network.
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
    printed = _printed(notebook.cells)
    if path.stem == "02_training":
        _check_what_the_training_notebook_shows(printed)
    return printed
