"""One answer from several views, against the formulas in double precision."""

import numpy as np
import pytest

from trainers.steps.logits import make_view_reduction
from trainers.utils.errors import ConfigurationError

pytestmark = pytest.mark.every_backend


def _reduced(logits: np.ndarray, kind: str, loss: str) -> np.ndarray:
    """Returns logits, or, where probabilities are averaged, these."""
    if kind != "probabilities":
        return logits.mean(axis=0) if kind == "logits" else logits.max(axis=0)
    if loss == "sigmoid":
        return (1 / (1 + np.exp(-logits))).mean(axis=0)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (exponentials / exponentials.sum(axis=-1, keepdims=True)).mean(axis=0)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", ["logits", "probabilities", "max"])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_it_is_the_formula(kind: str, loss: str, scale: float) -> None:
    logits = (scale * np.random.default_rng(0).normal(size=(3, 4, 5))).astype(np.float32)
    result = np.asarray(make_view_reduction(kind, loss)(logits), np.float64)
    assert result.shape == (4, 5) and np.all(np.isfinite(result))
    expected = _reduced(logits.astype(np.float64), kind, loss)
    if kind == "probabilities":  # the logits stand for them
        result = _reduced(result[None], kind, loss)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_another_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must be one of logits, probabilities, max"):
        make_view_reduction("mean", "softmax")
