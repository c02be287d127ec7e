from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.backends import only_on_jax
from tests.helpers.fake_source import ArraySource
from tests.helpers.small_runs import engine_of
from trainers.configuration.data_options import PreprocessingConfig
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.pipeline import evaluation_batch_size
from trainers.data.preprocessing.videos import evaluation_views
from trainers.engines.batches import evaluation_batches
from trainers.evaluation import evaluator as evaluation
from trainers.evaluation.evaluator import Evaluator
from trainers.steps.losses import make_loss
from trainers.steps.optimizer import averaged_weights
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

pytestmark = pytest.mark.every_backend

PREPROCESSING = PreprocessingConfig((8, 8), crop="none", eval_crop_fraction=1.0)

VIEWS = VideoPreprocessingConfig(
    (8, 8), num_frames=2, stride=1, min_resize=8, temporal_views=2, spatial_views=3
)


def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(7)]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


def _video_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((2, 8, 8, 3)), *layers])


class _VideosOfSeveralLabels:
    """Five videos in memory, of none, one or two classes; no video is of the last one."""

    name = "array"
    split = "test"
    num_examples = 5
    num_classes = 3
    class_names = ("walks", "runs", "never")
    videos = np.random.default_rng(1).integers(0, 256, (5, 4, 8, 12, 3), dtype=np.uint8)
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]], np.float32)

    def load(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return one example."""
        parts = {"video": self.videos, "label": self.labels}
        return {name: tf.gather(tf.constant(part), index) for name, part in parts.items()}


def _evaluator(
    replicas: int, batch_size: int, use_ema: bool = False, of_videos: bool = False
) -> tuple[Evaluator, keras.Model]:
    engine = engine_of(replicas)
    with engine.scope():
        model = _video_model() if of_videos else _model()
        optimizer = keras.optimizers.SGD(0.1, use_ema=use_ema)
        optimizer.build(model.trainable_variables)
    evaluator = Evaluator(
        model=model,
        optimizer=optimizer,
        loss=make_loss("sigmoid" if of_videos else "softmax"),
        engine=engine,
        preprocessing=VIEWS if of_videos else PREPROCESSING,
        batch_size=batch_size,
        normalization="unit",
        multi_label=of_videos,
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
    logits = np.asarray(model(source.images / np.float32(127.5) - 1))
    losses = keras.losses.sparse_categorical_crossentropy(source.labels, logits, from_logits=True)
    assert metrics["num_examples"] == num_examples
    right = logits.argmax(axis=1) == source.labels
    assert metrics["accuracy"] == np.mean(right)
    recall = [right[source.labels == label].mean() for label in np.unique(source.labels)]
    assert metrics["mean_class_accuracy"] == pytest.approx(np.mean(recall), abs=1e-6)
    assert metrics["loss"] == pytest.approx(np.mean(np.asarray(losses)), rel=1e-5)
    assert evaluator.evaluate(source) == metrics


def test_sums_of_a_large_set_keep_their_digits() -> None:
    evaluator, _ = _evaluator(1, 1)
    large = 2.0**24  # in float32, one more is lost
    evaluator.loss = lambda targets, logits: keras.ops.where(targets[:, 0] > 0, large, 1.0)
    source = ArraySource(5, num_classes=7, labels=np.array([0, 1, 2, 3, 4]))
    assert evaluator.evaluate(source)["loss"] == (large + 4) / 5


@only_on_jax("elsewhere each replica has a batch of its own")
@pytest.mark.parametrize(
    ("num_devices", "batch_size", "hint"), [(2, 3, "2 or 4"), (8, 4, "8"), (8, 12, "8 or 16")]
)
def test_batches_that_the_devices_cannot_share(
    num_devices: int, batch_size: int, hint: str
) -> None:
    evaluator, _ = _evaluator(num_devices, batch_size)
    message = f"multiple of {num_devices} .*devices.* received {batch_size}; .* to {hint}$"
    with pytest.raises(ConfigurationError, match=message):
        evaluator.evaluate(ArraySource(9, num_classes=7))


@pytest.mark.parametrize("replicas", [1, 2])
def test_mean_average_precision_of_views_is_that_of_scikit_learn(replicas: int) -> None:
    average_precision = pytest.importorskip("sklearn.metrics").average_precision_score
    source = _VideosOfSeveralLabels()
    evaluator, model = _evaluator(replicas, 4, of_videos=True)
    metrics = evaluator.evaluate(source, views=True)
    views = np.stack([evaluation_views(source.load(index), VIEWS) for index in range(5)])
    clips = views.reshape(-1, *views.shape[2:])
    logits = np.asarray(model(clips / np.float32(127.5) - 1)).reshape(5, 6, 3).mean(axis=1)
    expected = average_precision(source.labels[:, :2], logits[:, :2])
    assert 0 < expected < 1
    assert metrics["mean_average_precision"] == pytest.approx(expected, abs=1e-9)
    losses = keras.ops.binary_crossentropy(source.labels, logits, from_logits=True)
    assert metrics["loss"] == pytest.approx(np.asarray(losses).sum() / 5, rel=1e-5)
    assert metrics["num_examples"] == 5


@pytest.mark.parametrize(
    ("batch_size", "replicas", "views", "expected"),
    [(64, 1, True, 10), (64, 2, True, 10), (4, 2, True, 2), (31, 2, False, 31)],
)
def test_videos_with_views_take_the_place_of_a_batch_of_clips(
    batch_size: int, replicas: int, views: bool, expected: int
) -> None:
    assert evaluation_batch_size(batch_size, VIEWS, replicas, views) == expected
    assert evaluation_batch_size(batch_size, PREPROCESSING, replicas, views) == batch_size


@pytest.mark.parametrize("of_videos", [False, True])
def test_batches_of_nothing_but_examples_that_are_left_out(
    monkeypatch: pytest.MonkeyPatch, of_videos: bool
) -> None:
    source = _VideosOfSeveralLabels() if of_videos else ArraySource(5, num_classes=7)
    evaluator, _ = _evaluator(1, 2, of_videos=of_videos)
    left_out = 1

    def batches(*arguments: Any) -> Iterator[Any]:
        for number, batch in enumerate(evaluation_batches(*arguments)):
            mask = batch["mask"] * float(number >= left_out)
            yield {**batch, "mask": mask}

    monkeypatch.setattr(evaluation, "evaluation_batches", batches)
    # A rehearsal takes the first batch that has any.
    assert evaluator.evaluate(source, num_batches=1)["num_examples"] == 2
    left_out = 3
    with pytest.raises(DataError, match="at least one of the 5 examples of array/"):
        evaluator.evaluate(source)


@pytest.mark.parametrize("replicas", [1, 2])
def test_averages_are_evaluated_and_the_raw_weights_kept(replicas: int) -> None:
    source = ArraySource(6, num_classes=7)
    evaluator, model = _evaluator(replicas, 4, use_ema=True)
    raw = [variable.numpy() for variable in model.trainable_variables]
    averages = evaluator.optimizer._model_variables_moving_average
    for average in averages:
        average.assign(np.ones(average.shape))
    metrics = evaluator.evaluate(source)
    assert metrics["accuracy"] == 0  # all logits are the same
    assert metrics["loss"] == pytest.approx(np.log(7), rel=1e-5)
    for variable, value in zip(model.trainable_variables, raw, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    with pytest.raises(KeyError), averaged_weights(model, evaluator.optimizer):
        assert np.all(model.trainable_variables[0].numpy() == 1)
        raise KeyError
    np.testing.assert_array_equal(model.trainable_variables[0].numpy(), raw[0])
