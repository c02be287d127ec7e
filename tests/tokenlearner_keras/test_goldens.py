"""Every layer and model equals the reference implementation, forward and gradient."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.goldens import golden_arrays
from tests.helpers.goldens import golden_model
from tokenlearner_keras.weights.reference import reference_parameters

pytestmark = pytest.mark.every_backend

TOLERANCE = 1e-5
V10 = {"token_learner": "v1.0"}
V11 = {"token_learner": "v1.1", "token_learner_at": 1}
CASES: dict[str, Callable[[], Any]] = {
    "token_learner_v10_sum": lambda: tk.TokenLearner(8),
    "token_learner_v10_mean": lambda: tk.TokenLearner(8, pooling="mean"),
    "token_learner_v11": lambda: tk.TokenLearnerV11(8, bottleneck_dim=32),
    "token_learner_v11_sequence": lambda: tk.TokenLearnerV11(8),
    "token_fuser": lambda: tk.TokenFuser(bottleneck_dim=32),
    "token_fuser_no_norm": lambda: tk.TokenFuser(use_normalization=False),
    "vit_patch": lambda: golden_model(),
    "vit_v11": lambda: golden_model(**V11),
    "vit_v10": lambda: golden_model(**V10, token_learner_at=2, representation_size=16),
    "vit_fuser_v11": lambda: golden_model(**V11, token_fuser=True),
    "vit_fuser_v10": lambda: golden_model(**V10, token_learner_at=2, token_fuser=True, depth=4),
    "video_vit_v11": lambda: golden_model(**V11, num_frames=8, tubelet_size=2),
    "video_vit_fuser_v11": lambda: golden_model(
        num_frames=6,
        tubelet_size=2,
        token_learner="v1.1",
        token_learner_at=2,
        token_fuser=True,
    ),
    "video_vit_sampled_v11": lambda: golden_model(**V11, num_frames=8, sample_frames=4),
}


class Golden:
    """One file of goldens, and our layer or model with its parameters loaded."""

    def __init__(self, name: str) -> None:
        self.arrays = golden_arrays(name)
        # TokenFuser takes its two inputs in the order of the signature.
        self.input_names = sorted(self._below("input/"), key=lambda key: key == "original")
        self.inputs = [self.arrays[f"input/{key}"] for key in self.input_names]
        self.target = CASES[name]()
        self.target(*self.inputs)
        self.params = self._below("params/")
        tk.load_reference_params(self.target, self.params)

    def _below(self, prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}


@pytest.fixture(scope="module", params=CASES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def _relative_error(received: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the array's largest value."""
    assert received.shape == expected.shape
    return float(np.abs(received - expected).max() / np.abs(expected).max())


def test_output(golden: Golden) -> None:
    output = keras.ops.convert_to_numpy(golden.target(*golden.inputs))
    assert _relative_error(output, golden.arrays["output"]) < TOLERANCE


def test_gradients(golden: Golden, gradients: Any) -> None:
    parameters = reference_parameters(golden.target)
    variables = {name: parameter.variable for name, parameter in parameters.items()}
    by_input, by_variable = gradients(
        golden.target, golden.inputs, golden.arrays["cotangent"], list(variables.values())
    )
    for name, gradient in zip(golden.input_names, by_input, strict=True):
        assert _relative_error(gradient, golden.arrays[f"grad_input/{name}"]) < TOLERANCE
    expected = {name: golden.arrays[f"grad_params/{name}"] for name in variables}
    # Some true gradients are zero, so the scale is the largest entry of the case.
    scale = max(np.abs(value).max() for value in expected.values())
    for name, gradient in zip(variables, by_variable, strict=True):
        difference = np.abs(gradient.reshape(expected[name].shape) - expected[name]).max()
        assert difference < TOLERANCE * scale, name


def test_a_wrong_parameter_is_noticed(golden: Golden) -> None:
    """The comparison has teeth: one kernel upside down shows."""
    name = next(n for n in golden.params if n.endswith(("Conv_0/kernel", "Dense_0/kernel")))
    changed = {**golden.params, name: golden.params[name][::-1]}
    tk.load_reference_params(golden.target, changed)
    output = keras.ops.convert_to_numpy(golden.target(*golden.inputs))
    tk.load_reference_params(golden.target, golden.params)
    assert _relative_error(output, golden.arrays["output"]) > TOLERANCE
