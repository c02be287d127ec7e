"""What the wheel holds and what the library may import."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tokenlearner_keras

ROOT = Path(__file__).parents[1]


def _imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "tokenlearner_keras").rglob("*.py")), ids=str)
def test_the_library_imports_neither_a_backend_nor_the_trainer(path: Path) -> None:
    forbidden = {"tensorflow", "jax", "torch", "trainers", "absl", "ml_collections"}
    assert not _imported_modules(path) & forbidden


def test_public_names_are_listed_and_there() -> None:
    for name in tokenlearner_keras.__all__:
        assert hasattr(tokenlearner_keras, name)


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_no_tests(tmp_path: Path) -> None:
    # A copy: setuptools leaves build/ behind, and packs what an older build left there.
    source = tmp_path / "source"
    for name in ("tokenlearner_keras", "trainers", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "-w", tmp_path, source),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert packages == {"tokenlearner_keras", "trainers"}
    assert "tokenlearner_keras/py.typed" in names
    assert "trainers/configs/demo.py" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
