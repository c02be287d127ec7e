"""The README keeps its promises: its Python runs, its figures come from results."""

import csv
import re
import statistics
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_layer_example_trains_and_explains() -> None:
    scope: dict = {}
    exec(PYTHON[0], scope)
    model, explain = scope["model"], scope["explain"]
    x = np.random.default_rng(0).normal(size=(8, 96, 96, 3)).astype("float32")
    model.compile("adam", "mse")
    losses = model.fit(x, np.ones((8, 10)), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert explain(x).shape == (8, 8, 12, 12)


@pytest.mark.slow
def test_the_whole_model_example_is_true() -> None:
    import tokenlearner_keras as tk

    scope: dict = {"tk": tk}
    exec(PYTHON[1], scope)
    plain = tk.create_model("vit_b16", num_classes=10)
    assert round(tk.count_macs(scope["model"]) / 1e9, 1) == 9.1
    assert round(tk.count_macs(plain) / 1e9, 1) == 17.5


def test_public_weights_insertion_and_resizing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples as they stand, with smaller models and no download."""
    import keras

    import tokenlearner_keras as tk

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
    exec(PYTHON[2], scope)
    assert asked[0] in tk.list_weights()
    exec(PYTHON[3].replace("224", "32"), scope)
    assert scope["larger"].input_shape == (None, 384, 512, 3)
    exec(PYTHON[4].replace("include_top=False", "include_top=False, weights=None"), scope)
    assert scope["model"].output_shape == (None, 10)
    assert [m.shape for m in scope["maps"].values()] == [(2, 8, 1, 1)]


def test_pictures_and_files_that_it_names_are_there() -> None:
    named = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    named += re.findall(r"`((?:trainers|tests|benchmarks)/[\w/.]+)`", README)
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_demo_keeps_its_promise_over_the_seeds() -> None:
    with open(ROOT / "benchmarks/results/demo_accuracy.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    means = {}
    for model in ("TokenLearner", "plain ViT"):
        mine = [float(row["test_accuracy"]) for row in rows if row["model"] == model]
        assert len(mine) >= 3
        means[model] = statistics.mean(mine)
    assert means["TokenLearner"] >= 0.84
    assert means["TokenLearner"] >= means["plain ViT"] - 0.02


def test_example_is_about_ten_lines() -> None:
    assert len(PYTHON[0].strip().splitlines()) <= 12
