"""What the wheel holds and what the library may import."""

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import tokenlearner_keras

ROOT = Path(__file__).parents[1]
PACKAGES = ("tokenlearner_keras", "trainers")
SOURCES = set((ROOT / "tokenlearner_keras").rglob("*.py"))
# For Keras 2 only, which has no backend but TensorFlow.
BRIDGE = ROOT / "tokenlearner_keras" / "keras2_bridge.py"
FOLDERS = ("benchmarks", "docs", "examples", "notebooks", "requirements", "tests")


def _imported_modules(path: Path, inside_functions: bool = True) -> set[str]:
    found = set()
    module = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(module) if inside_functions else module.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted(SOURCES - {BRIDGE}), ids=str)
def test_the_library_imports_neither_a_backend_nor_the_trainer(path: Path) -> None:
    forbidden = {"tensorflow", "trainers", "absl", "ml_collections"}
    assert not _imported_modules(path) & forbidden
    if path.stem != "jax_attention":  # which is imported only on JAX
        assert not _imported_modules(path, inside_functions=False) & {"jax", "torch"}


def test_keras_3_needs_no_bridge() -> None:
    assert BRIDGE in SOURCES
    assert f"tokenlearner_keras.{BRIDGE.stem}" not in sys.modules


def test_public_names_are_listed_and_there() -> None:
    for name in tokenlearner_keras.__all__:
        assert hasattr(tokenlearner_keras, name)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: setuptools leaves build/ behind, and packs what an older build left there."""
    source = tmp_path_factory.mktemp("package") / "source"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "workdir")
    shutil.copytree(ROOT, source, ignore=ignored)
    return source


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_no_tests(source: Path, tmp_path: Path) -> None:
    names = zipfile.ZipFile(_built("wheel", source, tmp_path)).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert packages == set(PACKAGES)
    assert "tokenlearner_keras/py.typed" in names
    assert "trainers/configs/demo.py" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_sdist_holds_what_its_tests_and_documents_need(source: Path, tmp_path: Path) -> None:
    with tarfile.open(_built("sdist", source, tmp_path)) as file:
        paths = [Path(*Path(member.name).parts[1:]) for member in file.getmembers()]
    names = {path.as_posix() for path in paths}
    wanted = {
        path.relative_to(source).as_posix()
        for folder in (*PACKAGES, *FOLDERS)
        for path in (source / folder).rglob("*")
        if path.is_file()
    }
    files = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md")
    wanted |= {*files, "mkdocs.yml", "noxfile.py", "pyproject.toml", "setup.py"}
    assert not wanted - names
    assert not [name for name in names if "__pycache__" in name]


def _built(kind: str, source: Path, folder: Path) -> Path:
    """Builds a wheel or an sdist with the setuptools at hand, without the network."""
    code = f"import setuptools.build_meta as backend; backend.build_{kind}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (path,) = folder.iterdir()
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "export"])
def test_a_script_is_its_module(name: str) -> None:
    script = [str(Path(sys.executable).parent / f"tokenlearner-{name}"), "--help"]
    module = [sys.executable, "-m", f"trainers.{name}", "--help"]
    printed = [subprocess.run(each, capture_output=True, text=True) for each in (script, module)]
    assert [each.returncode for each in printed] == [0, 0]
    assert "--engine" in printed[0].stdout or "--workdir" in printed[0].stdout
    assert printed[0].stdout == printed[1].stdout


def test_changelog_and_citation_are_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, flags=re.MULTILINE)
    assert newest and newest[1] == tokenlearner_keras.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"\nversion: {tokenlearner_keras.__version__}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
    assert f'\n  - name: "{project["authors"][0]["name"]}"\n' in citation
    assert project["dynamic"] == ["version"]
