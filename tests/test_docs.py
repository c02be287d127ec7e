"""The site has a place for everything public, and its examples run."""

import re
from pathlib import Path

import pytest

import tokenlearner_keras as tk

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
DOCUMENTED = set(re.findall(r"^::: (\S+)$", REFERENCE, flags=re.MULTILINE))


def test_the_api_reference_has_every_public_name() -> None:
    public = {f"tokenlearner_keras.{name}" for name in tk.__all__ if name != "__version__"}
    assert {name for name in DOCUMENTED if name.startswith("tokenlearner_keras")} == public


def test_the_api_reference_has_every_command() -> None:
    commands = {
        f"trainers.{path.stem}"
        for path in (ROOT / "trainers").glob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert not commands - DOCUMENTED


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    for path in DOCS.rglob("*.md"):
        assert f": {path.relative_to(DOCS).as_posix()}\n" in menu, path


@pytest.mark.slow
def test_the_example_of_the_first_page_is_true() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    scope: dict = {}
    exec(code, scope)
    for expression, shape in re.findall(r"^(\S.*\.shape)  # (\(.*\))$", code, re.MULTILINE):
        assert str(eval(expression, scope)) == shape
    assert len(re.findall(r"\.shape  # ", code)) == 2
