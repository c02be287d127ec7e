"""The README keeps its promises: its Python runs, its figures come from results."""

import csv
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_layer_example_learns_and_explains() -> None:
    scope: dict = {}
    exec(PYTHON[0].replace("epochs=10", "epochs=10, verbose=0"), scope)
    model, x, y = scope["model"], scope["x"], scope["y"]
    _, accuracy = model.evaluate(x[1400:], y[1400:], verbose=0)
    assert accuracy > 0.7
    assert scope["explain"](x[:2]).shape == (2, 4, 8, 8)


@pytest.mark.slow
def test_the_whole_model_example_is_true() -> None:
    import tokenlearner_keras as tk

    scope: dict = {"tk": tk}
    exec(PYTHON[1], scope)
    plain = tk.create_model("vit_b16", num_classes=10)
    assert round(tk.count_macs(scope["model"]) / 1e9, 1) == 9.1
    assert round(tk.count_macs(plain) / 1e9, 1) == 17.5


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


def test_it_is_short() -> None:
    assert len(README.split()) <= 1300
    assert len(PYTHON[0].strip().splitlines()) <= 20
