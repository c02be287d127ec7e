"""The site has a place for everything public, and its examples run."""

import re
from pathlib import Path

import keras
import numpy as np
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


@pytest.mark.slow
def test_training_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as it stands, for fewer steps."""
    pytest.importorskip("ml_collections")
    if keras.backend.backend() == "torch":
        pytest.skip("an engine of the trainer is needed")
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "training.md").read_text(), re.DOTALL)
    (tmp_path / "NEW_IMAGES").mkdir()
    for name in "ab":
        keras.utils.save_img(tmp_path / "NEW_IMAGES" / f"{name}.png", np.zeros((8, 8, 3)))
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(code.replace('"total_epochs": 30', '"total_steps": 2'), scope)
    assert scope["metrics"].keys() == {"validation", "test"}
    assert scope["predictions"].probabilities.shape == (2, 3)


def test_public_weights_insertion_and_resizing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples as they stand, with smaller models and no download."""
    code = re.findall(r"```python\n(.*?)```", (DOCS / "weights.md").read_text(), re.DOTALL)
    golden = ROOT / "tests/goldens/augreg_checkpoint.npz"
    asked = []
    create = tk.create_model
    small = {"width": 24, "depth": 3, "num_heads": 3, "mlp_dim": 48}

    def create_small(name: str, **options: object) -> keras.Model:
        blocks = {"depth": 12, "patch_size": 32} if "tl" not in name else {"token_learner_at": 1}
        size = {"patch_size": 8, "image_size": 32, **small}
        return create(name, **{**options, **size, **blocks})

    monkeypatch.setattr(tk, "download_weights", lambda name: asked.append(name) or golden)
    monkeypatch.setattr(tk, "create_model", create_small)
    scope: dict = {"tk": tk, "keras": keras}
    exec(code[0], scope)
    assert asked[0] in tk.list_weights()
    exec(code[1].replace("224", "32"), scope)
    assert scope["larger"].input_shape == (None, 384, 512, 3)
    exec(code[2].replace("include_top=False", "include_top=False, weights=None"), scope)
    assert scope["model"].output_shape == (None, 10)
    assert [m.shape for m in scope["maps"].values()] == [(2, 8, 1, 1)]


def test_insertion_into_keras_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as it stands, with a smaller backbone and no download."""
    keras_hub = pytest.importorskip("keras_hub")
    code = re.findall(r"```python\n(.*?)```", (DOCS / "weights.md").read_text(), re.DOTALL)[3]
    kind, asked = keras_hub.models.DINOV2Backbone, []
    small = {"num_layers": 7, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}

    def create_small(preset: str, **options: object) -> keras.Model:
        asked.append(preset)
        return kind(patch_size=14, **small, **options)

    monkeypatch.setattr(kind, "from_preset", create_small)
    monkeypatch.chdir(tmp_path)
    scope: dict = {"tk": tk}
    exec(code, scope)
    monkeypatch.undo()
    assert asked[0] in kind.presets and scope["saved"] > 0
    assert keras.saving.load_model(tmp_path / "faster.keras").output_shape == (None, 9, 8)
