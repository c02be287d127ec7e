from typing import Any

import numpy as np
import pytest
from keras import ops

from trainers.steps.metrics import class_sums
from trainers.steps.metrics import confusion_counts
from trainers.steps.metrics import evaluation_sums
from trainers.steps.metrics import metrics_of

pytestmark = pytest.mark.every_backend


def _tensor(values: Any, dtype: str | None = None) -> Any:
    # Through NumPy, whose integers have 64 bits.
    return ops.convert_to_tensor(np.array(values, dtype))


def _sums(
    logits: np.ndarray, labels: list[int], mask: list[float] | None = None
) -> dict[str, float]:
    count = len(labels)
    found = evaluation_sums(
        _tensor(logits, "float32"),
        _tensor(labels, "int64"),
        _tensor(range(1, count + 1), "float32"),
        _tensor(mask or [1.0] * count, "float32"),
    )
    return {name: float(value) for name, value in found.items()}


def test_top_1_and_top_5_against_sorting() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((50, 9))
    labels = rng.integers(0, 9, 50)
    order = np.argsort(-logits, axis=1)
    sums = _sums(logits, labels.tolist())
    assert sums["correct"] == (order[:, 0] == labels).sum()
    assert sums["top5_correct"] == (order[:, :5] == labels[:, None]).any(axis=1).sum()
    assert sums["loss"] == 50 * 51 / 2
    assert sums["num_examples"] == 50


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_a_model_that_says_the_same_of_all_classes_is_never_right(value: float) -> None:
    sums = _sums(np.full((4, 6), value), [0, 1, 2, 5])
    assert sums["correct"] == sums["top5_correct"] == 0


def test_ties_count_against_the_right_class() -> None:
    logits = np.array([[2.0, 2, 0, 0, 0, 0], [2, 2, 2, 2, 2, 0], [3, 2, 2, 2, 2, 0]])
    assert _sums(logits, [0, 0, 0])["correct"] == 1
    assert _sums(logits, [1, 1, 1])["top5_correct"] == 3
    assert _sums(np.ones((1, 6)), [2])["top5_correct"] == 0


def test_five_classes_have_no_top_five() -> None:
    sums = _sums(np.ones((1, 5)), [2])
    assert "top5_correct" not in sums
    assert set(metrics_of(sums)) == {"accuracy", "loss", "num_examples"}


def test_padding_does_not_count_whatever_it_holds() -> None:
    logits = np.array([[1.0, 0, 0], [np.nan, np.nan, np.nan], [9, 0, 0], [0, 1, 0]])
    mask = _tensor([1.0, 0, 0, 1], "float32")
    losses = _tensor([0.5, np.nan, np.inf, 1.5], "float32")
    labels = _tensor([0, 0, 0, 0])
    sums = evaluation_sums(_tensor(logits), labels, losses, mask)
    metrics = metrics_of({name: float(value) for name, value in sums.items()})
    assert metrics == {
        "accuracy": 0.5,
        "loss": 1.0,
        "num_examples": 2,
    }


def test_any_of_several_classes_is_right_and_none_is_left_out() -> None:
    logits = _tensor([[3.0, 1, 0], [0, 1, 2], [1, 2, 0], [1, 1, 1]], "float32")
    labels = _tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]], "int32")
    losses = _tensor([1, 2, 4, 8], "float32")
    sums = evaluation_sums(logits, labels, losses, ops.ones(4))
    assert {name: float(value) for name, value in sums.items()} == {
        "correct": 1,
        "loss": 11,
        "num_examples": 3,
    }


def test_mean_class_accuracy_is_that_of_scikit_learn() -> None:
    balanced_accuracy = pytest.importorskip("sklearn.metrics").balanced_accuracy_score
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((40, 5)).astype(np.float32)
    logits[:, 4] = -9  # scikit-learn warns of predictions of a class without examples
    labels = rng.choice(4, 40, p=(0.6, 0.2, 0.15, 0.05))
    mask = (np.arange(40) < 33).astype(np.float32)
    logits[mask == 0] = np.nan
    sums = evaluation_sums(_tensor(logits), _tensor(labels), ops.zeros(40), mask)
    by_class = class_sums(_tensor(logits), _tensor(labels), mask)
    both = {name: np.asarray(value) for name, value in {**sums, **by_class}.items()}
    metrics = metrics_of(both)
    expected = balanced_accuracy(labels[:33], logits[:33].argmax(axis=1))
    assert metrics["mean_class_accuracy"] == pytest.approx(expected, abs=1e-6)
    assert abs(metrics["accuracy"] - expected) > 0.01
    assert metrics["num_examples"] == 33 == both["class_examples"].sum()
    assert both["class_correct"].sum() == both["correct"]


def test_confusion_agrees_with_the_accuracy() -> None:
    nan = float("nan")
    rows = [[3.0, 1, 0], [1, 1, 0], [0, nan, 0], [0, 5, 1], [0, 0, 9]]
    logits, mask = _tensor(rows, "float32"), _tensor([1, 1, 1, 1, 0], "float32")
    labels = _tensor([0, 0, 2, 2, 2])
    counts = np.asarray(confusion_counts(logits, labels, mask))
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 0, 0], [0, 2, 0]])
    sums = evaluation_sums(logits, labels, ops.zeros(5), mask)
    assert counts.trace() == sums["correct"] and counts.sum() == sums["num_examples"]
