import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from trainers.configuration.training_options import OptimizerConfig
from trainers.steps.optimizer import clip_by_global_norm
from trainers.steps.optimizer import make_learning_rate
from trainers.steps.optimizer import make_optimizer
from trainers.utils.errors import ConfigurationError

pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize(
    ("decay", "middle", "end"),
    [("cosine", 0.5 * (1 + math.cos(math.pi / 4)), 0.0), ("linear", 0.75, 0.0)],
)
def test_schedules(decay: str, middle: float, end: float) -> None:
    schedule = make_learning_rate(
        OptimizerConfig(learning_rate=2.0, schedule=decay), warmup_steps=10, total_steps=50
    )
    expected = {0: 0.0, 1: 0.2, 5: 1.0, 10: 2.0, 20: 2 * middle, 50: end, 60: end}
    for step, rate in expected.items():
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-6), step


def test_constant_schedule_and_end_rate() -> None:
    constant = make_learning_rate(
        OptimizerConfig(learning_rate=0.5, schedule="constant"), warmup_steps=0, total_steps=10
    )
    assert [float(constant(step)) for step in (0, 5, 10)] == [0.5] * 3
    ending = make_learning_rate(
        OptimizerConfig(learning_rate=1.0, end_learning_rate=0.25, schedule="linear"),
        warmup_steps=2,
        total_steps=6,
    )
    rates = [float(ending(step)) for step in range(7)]
    assert rates == pytest.approx([0, 0.5, 1, 0.8125, 0.625, 0.4375, 0.25])


def test_a_warm_up_as_long_as_the_training() -> None:
    schedule = make_learning_rate(OptimizerConfig(learning_rate=1.0), warmup_steps=4, total_steps=4)
    assert [float(schedule(step)) for step in range(4)] == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    "values",
    [
        {"schedule": "step"},
        {"learning_rate": float("nan")},
        {"learning_rate": -1.0},
        {"learning_rate": float("inf")},
        {"end_learning_rate": -1.0},
        {"weight_decay": -0.1},
        {"weight_decay": float("nan")},
        {"global_clipnorm": -1.0},
        {"name": "adam2"},
        {"name": "sgd", "momentum": 2.0},
        {"beta_1": 1.0},
        {"beta_2": -0.1},
        {"epsilon": -1e-8},
        {"weight_decay_mask": "weights"},
        {"layer_decay": 0.0},
        {"layer_decay": 1.5},
        {"freeze": (1,)},
    ],
)
def test_wrong_values(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"^optimizer\.{list(values)[-1]} must be "):
        OptimizerConfig(**values)


def test_warm_up_longer_than_the_training() -> None:
    with pytest.raises(ConfigurationError, match="5 and 4 steps"):
        make_learning_rate(OptimizerConfig(), warmup_steps=5, total_steps=4)


def _layers() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4), keras.layers.LayerNormalization()]
    return keras.Sequential([keras.Input((3,)), *layers])


@pytest.mark.parametrize(
    ("name", "reference", "options"),
    [
        ("adamw", keras.optimizers.AdamW, {"epsilon": 1e-8}),
        ("lamb", keras.optimizers.Lamb, {"epsilon": 1e-8}),
        ("sgd", keras.optimizers.SGD, {"momentum": 0.9}),
    ],
)
def test_updates_are_those_of_keras(name: str, reference: Any, options: Any) -> None:
    ours, theirs = _layers(), _layers()
    config = OptimizerConfig(
        name=name, weight_decay=0.1, learning_rate=0.05, weight_decay_mask="kernels"
    )
    schedule = make_learning_rate(config, warmup_steps=2, total_steps=5)
    optimizer = make_optimizer(config, schedule, ours.trainable_variables)
    optimizer.build(ours.trainable_variables)
    expected = reference(learning_rate=schedule, weight_decay=0.1, **options)
    expected.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    expected.build(theirs.trainable_variables)
    rng = np.random.default_rng(1)
    for _ in range(4):
        gradients = [
            ops.convert_to_tensor(rng.standard_normal(v.shape), "float32")
            for v in ours.trainable_variables
        ]
        optimizer.apply(gradients, ours.trainable_variables)
        expected.apply(gradients, theirs.trainable_variables)
    for left, right in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-7)
    assert not np.allclose(ours.weights[0], _layers().weights[0])


@pytest.mark.parametrize("name", ["adamw", "lamb", "sgd"])
def test_a_scaled_rate_is_that_of_an_optimizer_with_this_rate(name: str) -> None:
    model, scales = _layers(), (0.25, 1.0, 0.5, 0.125)
    starts = [variable.numpy() for variable in model.trainable_variables]

    def optimizer(
        rate: float, variables: list[keras.Variable], scales: Any = None
    ) -> keras.optimizers.Optimizer:
        config = OptimizerConfig(
            name=name, weight_decay=0.1, learning_rate=rate, weight_decay_mask="all"
        )
        schedule = make_learning_rate(config, warmup_steps=2, total_steps=5)
        made = make_optimizer(config, schedule, variables, scales)
        made.build(variables)
        return made

    scaled = optimizer(0.05, model.trainable_variables, scales)
    others = [keras.Variable(value) for value in starts]
    alone = [optimizer(0.05 * s, [v]) for s, v in zip(scales, others, strict=True)]
    rng = np.random.default_rng(1)
    for _ in range(4):
        gradients = [ops.convert_to_tensor(rng.standard_normal(v.shape), "float32") for v in others]
        scaled.apply(gradients, model.trainable_variables)
        for each, gradient, variable in zip(alone, gradients, others, strict=True):
            each.apply([gradient], [variable])
    for found, expected, start in zip(model.trainable_variables, others, starts, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        assert not np.allclose(found, start)


@pytest.mark.parametrize(("mask", "decayed"), [("kernels", {"kernel"}), ("all", None)])
def test_weight_decay_mask(mask: str, decayed: set[str] | None) -> None:
    model = _layers()
    before = [variable.numpy() for variable in model.trainable_variables]
    # A gradient of zero leaves the decay alone; start away from zero.
    for variable in model.trainable_variables:
        variable.assign_add(np.ones(variable.shape))
    config = OptimizerConfig(
        weight_decay=0.5, weight_decay_mask=mask, learning_rate=0.1, schedule="constant"
    )
    rate = make_learning_rate(config, warmup_steps=0, total_steps=9)
    optimizer = make_optimizer(config, rate, model.trainable_variables)
    optimizer.build(model.trainable_variables)
    zeros = [ops.zeros(variable.shape) for variable in model.trainable_variables]
    optimizer.apply(zeros, model.trainable_variables)
    for value, variable in zip(before, model.trainable_variables, strict=True):
        factor = 0.95 if decayed is None or variable.name in decayed else 1.0
        np.testing.assert_allclose(variable, factor * (value + 1), rtol=1e-6)


@pytest.mark.parametrize("clipnorm", [None, 0.0, 2.5, 100.0])
def test_clip_by_global_norm(clipnorm: float | None) -> None:
    gradients = [ops.convert_to_tensor([3.0, 0.0]), ops.convert_to_tensor([[4.0]])]
    clipped, norm = clip_by_global_norm(gradients, clipnorm)
    factor = 0.5 if clipnorm == 2.5 else 1.0
    assert float(norm) == pytest.approx(5.0)
    np.testing.assert_allclose(clipped[0], [3 * factor, 0])
    np.testing.assert_allclose(clipped[1], [[4 * factor]])
