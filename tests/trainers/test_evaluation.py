import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.data.fake_source import ArraySource
from tests.trainers.small_runs import strategy_of
from trainers.data.preprocessing_config import PreprocessingConfig
from trainers.evaluation import Evaluator
from trainers.evaluation import averaged_weights
from trainers.losses import make_loss

PREPROCESSING = PreprocessingConfig((8, 8), crop="none", eval_crop_fraction=1.0)


def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(7)]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


def _evaluator(
    replicas: int, batch_size: int, use_ema: bool = False
) -> tuple[Evaluator, keras.Model]:
    strategy = strategy_of(replicas)
    with strategy.scope():
        model = _model()
        optimizer = keras.optimizers.SGD(0.1, use_ema=use_ema)
        optimizer.build(model.trainable_variables)
    evaluator = Evaluator(
        model=model,
        optimizer=optimizer,
        loss=make_loss("softmax"),
        strategy=strategy,
        preprocessing=PREPROCESSING,
        batch_size=batch_size,
        normalization="unit",
    )
    return evaluator, model


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "replicas"),
    [
        (10, 1, 1),
        (10, 4, 1),
        (10, 5, 1),
        (10, 16, 1),
        (1, 4, 1),
        (10, 4, 2),
        (9, 16, 2),
        (1, 4, 2),
    ],
)
def test_each_example_counts_once(num_examples: int, batch_size: int, replicas: int) -> None:
    source = ArraySource(num_examples, num_classes=7)
    evaluator, model = _evaluator(replicas, batch_size)
    metrics = evaluator.evaluate(source)
    logits = model(source.images / np.float32(127.5) - 1).numpy()
    losses = keras.losses.sparse_categorical_crossentropy(source.labels, logits, from_logits=True)
    assert metrics["num_examples"] == num_examples
    assert metrics["accuracy"] == np.mean(logits.argmax(axis=1) == source.labels)
    assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert evaluator.evaluate(source) == metrics


@pytest.mark.parametrize("replicas", [1, 2])
def test_averages_are_evaluated_and_the_raw_weights_kept(replicas: int) -> None:
    source = ArraySource(6, num_classes=7)
    evaluator, model = _evaluator(replicas, 4, use_ema=True)
    raw = [variable.numpy() for variable in model.trainable_variables]
    averages = evaluator.optimizer._model_variables_moving_average
    for average in averages:
        average.assign(tf.ones_like(average))
    metrics = evaluator.evaluate(source)
    assert metrics["accuracy"] == 0  # all logits are the same
    assert metrics["loss"] == pytest.approx(np.log(7), rel=1e-5)
    for variable, value in zip(model.trainable_variables, raw, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    with pytest.raises(KeyError), averaged_weights(model, evaluator.optimizer):
        assert np.all(model.trainable_variables[0].numpy() == 1)
        raise KeyError
    np.testing.assert_array_equal(model.trainable_variables[0].numpy(), raw[0])
