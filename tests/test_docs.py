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


def test_inside_a_model() -> None:
    page = (DOCS / "models.md").read_text(encoding="utf-8")
    code = page.partition("## Inside a model")[2].partition("```python")[2].partition("```")[0]
    scope: dict = {"tk": tk, "keras": keras}
    exec(code, scope)
    shapes = re.findall(r"^(\S.*\.shape)  # (\(.*\))$", code, re.MULTILINE)
    assert len(shapes) == 4
    assert all(str(tuple(eval(each, scope))) == shape for each, shape in shapes)


def test_a_quantized_model_is_saved_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example as it stands, with a smaller model."""
    (code,) = re.findall(
        r"```python\n([^`]*quantize[^`]*)```", (DOCS / "models.md").read_text(encoding="utf-8")
    )
    monkeypatch.chdir(tmp_path)
    scope: dict = {"tk": tk, "keras": keras}
    exec(code.replace('"vit_s16_tl8at6"', '"vit_ti16_d2_tl8at1", image_size=32'), scope)
    assert scope["loaded"].get_layer("head").quantization_mode == "int8"


@pytest.mark.slow
def test_training_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as it stands, for fewer steps."""
    pytest.importorskip("ml_collections")
    if keras.backend.backend() == "torch":
        pytest.skip("an engine of the trainer is needed")
    code, _ = re.findall(r"```python\n(.*?)```", (DOCS / "training.md").read_text(), re.DOTALL)
    (tmp_path / "NEW_IMAGES").mkdir()
    for name in "ab":
        keras.utils.save_img(tmp_path / "NEW_IMAGES" / f"{name}.png", np.zeros((8, 8, 3)))
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(code.replace('"total_epochs": 30', '"total_steps": 2'), scope)
    assert scope["metrics"].keys() == {"validation", "test"}
    assert scope["predictions"].probabilities.shape == (2, 3)


def test_fewer_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as it stands, with a smaller model."""
    _, code = re.findall(r"```python\n(.*?)```", (DOCS / "training.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(code.replace("num_classes=10", "10, 32, width=24, depth=7, num_heads=3"), scope)
    loaded = keras.saving.load_model("small.keras")
    assert loaded.get_layer("token_learner_0").output.shape == (None, 4, 24)
    assert tk.count_macs(loaded) == tk.count_macs(scope["small"])


def test_public_weights_insertion_resizing_and_lora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    exec(code[3], scope)
    assert scope["grey"].input_shape == (None, 32, 32, 1)
    monkeypatch.chdir(tmp_path)
    exec(code[4], scope)
    assert {path.split("/")[0] for path in scope["adapted"]} == {
        "embedding",
        *(f"encoder_block_{block}" for block in range(3)),
    }
    assert len(scope["model"].trainable_variables) == 2 * len(scope["adapted"]) + 8
    assert len(scope["loaded"].trainable_variables) == len(scope["loaded"].weights)


def test_insertion_into_keras_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as it stands, with a smaller backbone and no download."""
    keras_hub = pytest.importorskip("keras_hub")
    code = re.findall(r"```python\n(.*?)```", (DOCS / "weights.md").read_text(), re.DOTALL)[5]
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
