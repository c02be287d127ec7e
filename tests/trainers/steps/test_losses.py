import keras
import numpy as np
import pytest
from keras import ops

from tests.helpers.backends import dtype_name
from trainers.steps.losses import make_loss
from trainers.utils.errors import ConfigurationError

pytestmark = pytest.mark.every_backend

RNG = np.random.default_rng(0)
LOGITS = (5 * RNG.standard_normal((6, 4))).astype(np.float32)
TARGETS = np.eye(4, dtype=np.float32)[[0, 3, 1, 1, 2, 0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_softmax_is_the_one_of_keras(smoothing: float) -> None:
    expected = keras.losses.categorical_crossentropy(
        TARGETS, LOGITS, from_logits=True, label_smoothing=smoothing
    )
    losses = make_loss("softmax", smoothing)(TARGETS, LOGITS)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sigmoid_is_summed_over_the_classes(smoothing: float) -> None:
    targets = TARGETS * (1 - smoothing) + smoothing / 4
    probabilities = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    terms = targets * np.log(probabilities) + (1 - targets) * np.log(1 - probabilities)
    losses = make_loss("sigmoid", smoothing)(TARGETS, LOGITS)
    np.testing.assert_allclose(losses, -terms.sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_multiply_the_loss_of_an_example(name: str, smoothing: float) -> None:
    weights = (2.0, 0.0, 0.5, 3.0)
    plain = np.array(make_loss(name, smoothing)(TARGETS, LOGITS))
    found = make_loss(name, smoothing, weights)(TARGETS, LOGITS)
    np.testing.assert_allclose(found, plain * [2, 3, 0, 0, 0.5, 2], rtol=1e-6)
    # A mixture has the mean of the weights of its classes.
    mixture = np.array([[0.25, 0, 0, 0.75]], np.float32)
    plain = np.array(make_loss(name, smoothing)(mixture, LOGITS[:1]))
    found = make_loss(name, smoothing, weights)(mixture, LOGITS[:1])
    np.testing.assert_allclose(found, plain * 2.75, rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_large_logits_stay_finite_and_low_precision_is_left(name: str) -> None:
    logits = ops.convert_to_tensor([[3e4, -3e4, 0.0, 0.0]], "bfloat16")
    loss = make_loss(name)(ops.convert_to_tensor(TARGETS[1:2]), logits)
    assert dtype_name(loss) == "float32" and np.isfinite(loss).all()


@pytest.mark.parametrize("smoothing", [1.0, -0.1, float("nan")])
def test_wrong_smoothing(smoothing: float) -> None:
    with pytest.raises(ConfigurationError, match="label_smoothing"):
        make_loss("softmax", smoothing)


def test_unknown_loss() -> None:
    with pytest.raises(ConfigurationError, match="softmax, sigmoid"):
        make_loss("hinge")
