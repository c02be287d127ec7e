from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.fake_source import ArraySource
from tests.helpers.fake_source import spelled_indices
from trainers.configuration.data_options import PreprocessingConfig
from trainers.data.pipeline import evaluation_dataset
from trainers.data.pipeline import training_dataset
from trainers.data.shuffling import examples_at_step
from trainers.utils.errors import ConfigurationError

pytestmark = pytest.mark.every_backend

PLAIN = PreprocessingConfig((8, 8), crop="none", flip=False, eval_crop_fraction=1.0)
AUGMENTED = PreprocessingConfig((6, 6), crop="inception", random_erasing=0.5)
#: Mixup alone, and with CutMix, of which each step draws one.
MIXED = [{"mixup_alpha": 0.4}, {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}]
# Slow to build: for one test.
WITH_RANDAUGMENT = PreprocessingConfig((6, 6), crop="pad", randaugment_layers=1)


def _batches(dataset: tf.data.Dataset, count: int) -> list[dict[str, Any]]:
    return list(dataset.take(count).as_numpy_iterator())


def _assert_same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].tobytes() == other[name].tobytes()


@pytest.mark.parametrize(("num_examples", "batch_size"), [(10, 4), (3, 8), (1, 2)])
def test_each_epoch_sees_each_example_once(num_examples: int, batch_size: int) -> None:
    dataset = training_dataset(ArraySource(num_examples), PLAIN, batch_size=batch_size, seed=0)
    batches = _batches(dataset, -(-3 * num_examples // batch_size))
    seen = [index for batch in batches for index in spelled_indices(batch["image"])]
    for epoch in range(3):
        part = seen[epoch * num_examples : (epoch + 1) * num_examples]
        assert sorted(part) == list(range(num_examples))


def test_batches_are_what_examples_at_step_says() -> None:
    source = ArraySource(10)
    dataset = training_dataset(source, PLAIN, batch_size=4, seed=9, start_step=2)
    for step, batch in enumerate(_batches(dataset, 4), start=2):
        indices = examples_at_step(step, num_examples=10, batch_size=4, seed=9)
        assert spelled_indices(batch["image"]) == indices.tolist()
        np.testing.assert_array_equal(batch["target"], np.eye(5, dtype=np.float32)[indices % 5])


@pytest.mark.parametrize(("config", "replicas"), [(WITH_RANDAUGMENT, 1), (AUGMENTED, 2)])
def test_resuming_yields_the_same_bytes(config: PreprocessingConfig, replicas: int) -> None:
    source = ArraySource(7)
    arguments: dict[str, Any] = {
        "batch_size": 4,
        "seed": 3,
        **MIXED[1],
        "replicas_per_host": replicas,
    }
    whole = _batches(training_dataset(source, config, **arguments), 8 * replicas)
    resumed = training_dataset(source, config, **arguments, start_step=5)
    _assert_same(_batches(resumed, 3 * replicas), whole[5 * replicas :])


def test_augmentation_belongs_to_the_example_not_to_its_place() -> None:
    # The same example in the same epoch, in batches of another size.
    source = ArraySource(12, num_classes=12)
    images = []
    for batch_size in (3, 4):
        dataset = training_dataset(source, AUGMENTED, batch_size=batch_size, seed=0)
        batches = _batches(dataset, 12 // batch_size)
        images.append(np.concatenate([batch["image"] for batch in batches]))
    np.testing.assert_array_equal(images[0], images[1])


def test_augmentation_changes_with_the_epoch_and_the_seed() -> None:
    source = ArraySource(1)
    by_epoch = _batches(training_dataset(source, AUGMENTED, batch_size=1, seed=0), 6)
    by_seed = _batches(training_dataset(source, AUGMENTED, batch_size=1, seed=1), 6)
    everything = {batch["image"].tobytes() for batch in by_epoch + by_seed}
    assert len(everything) > 8


@pytest.mark.parametrize(("replicas", "mixed"), [(2, MIXED[0]), (4, MIXED[1])])
def test_replicas_do_not_change_the_global_batch(replicas: int, mixed: dict[str, float]) -> None:
    source = ArraySource(11)
    arguments: dict[str, Any] = {"batch_size": 8, "seed": 3, **mixed}
    whole = _batches(training_dataset(source, AUGMENTED, **arguments), 3)
    dataset = training_dataset(source, AUGMENTED, **arguments, replicas_per_host=replicas)
    parts = _batches(dataset, 3 * replicas)
    for step in range(3):
        of_step = parts[step * replicas : (step + 1) * replicas]
        joined = {
            name: np.concatenate([part[name] for part in of_step]) for name in ("image", "target")
        }
        _assert_same([joined], [whole[step]])


@pytest.mark.parametrize(("hosts", "mixed"), [(2, MIXED[0]), (3, MIXED[1])])
def test_hosts_do_not_change_the_global_batch(hosts: int, mixed: dict[str, float]) -> None:
    source = ArraySource(11)
    arguments: dict[str, Any] = {"batch_size": 12, "seed": 3, **mixed}
    whole = _batches(training_dataset(source, AUGMENTED, **arguments), 4)
    parts = [
        _batches(
            training_dataset(source, AUGMENTED, **arguments, num_hosts=hosts, host_index=host),
            4,
        )
        for host in range(hosts)
    ]
    for step in range(4):
        joined = {
            name: np.concatenate([batches[step][name] for batches in parts])
            for name in ("image", "target")
        }
        _assert_same([joined], [whole[step]])


@pytest.mark.parametrize("name", ["mixup_alpha", "cutmix_alpha"])
def test_mixing_on_several_hosts_needs_whole_pairs(name: str) -> None:
    arguments: dict[str, Any] = {"batch_size": 6, "seed": 0, "num_hosts": 2}
    training_dataset(ArraySource(4), PLAIN, **arguments)
    with pytest.raises(ConfigurationError, match="multiple of 4"):
        training_dataset(ArraySource(4), PLAIN, **arguments, **{name: 0.1})


def test_each_step_draws_mixup_or_cutmix() -> None:
    arguments: dict[str, Any] = {"batch_size": 8, "seed": 0}
    alphas = {"mixup_alpha": 1.0, "cutmix_alpha": 1.0}
    alone = {
        name: _batches(training_dataset(ArraySource(8), PLAIN, **arguments, **{name: alpha}), 40)
        for name, alpha in alphas.items()
    }
    found = _batches(training_dataset(ArraySource(8), PLAIN, **arguments, **alphas), 40)
    counts = dict.fromkeys(alphas, 0)
    for step, batch in enumerate(found):
        (name,) = (n for n in alone if np.array_equal(alone[n][step]["image"], batch["image"]))
        np.testing.assert_array_equal(alone[name][step]["target"], batch["target"])
        counts[name] += 1
    assert min(counts.values()) > 10


def test_mixup_blends_targets() -> None:
    dataset = training_dataset(ArraySource(20), PLAIN, batch_size=20, seed=0, mixup_alpha=1.0)
    first, second = _batches(dataset, 2)
    np.testing.assert_allclose(first["target"].sum(axis=1), np.ones(20), atol=1e-6)
    assert ((first["target"] > 0).sum(axis=1) == 2).any()
    assert not np.array_equal(first["target"], second["target"])


def test_shapes_are_static() -> None:
    expected = {
        "image": tf.TensorSpec((2, 6, 6, 3), tf.uint8),
        "target": tf.TensorSpec((2, 5), tf.float32),
    }
    layout = {"batch_size": 8, "num_hosts": 2, "replicas_per_host": 2}
    dataset = training_dataset(ArraySource(9), AUGMENTED, **layout, seed=0, mixup_alpha=0.1)
    assert dataset.element_spec == expected
    dataset = evaluation_dataset(ArraySource(9), AUGMENTED, **layout)
    assert dataset.element_spec == expected | {
        "label": tf.TensorSpec((2,), tf.int64),
        "mask": tf.TensorSpec((2,), tf.float32),
        "index": tf.TensorSpec((2,), tf.int64),
    }


@pytest.mark.parametrize("num_examples", [3, 8, 13])
@pytest.mark.parametrize(
    ("batch_size", "num_hosts", "replicas"),
    [(1, 1, 1), (8, 1, 1), (8, 1, 4), (8, 2, 2), (6, 3, 1), (16, 4, 2)],
)
def test_evaluation_sees_each_example_once(
    num_examples: int, batch_size: int, num_hosts: int, replicas: int
) -> None:
    source = ArraySource(num_examples)
    steps = -(-num_examples // batch_size)
    parts = []
    for host in range(num_hosts):
        dataset = evaluation_dataset(
            source,
            PLAIN,
            batch_size=batch_size,
            num_hosts=num_hosts,
            host_index=host,
            replicas_per_host=replicas,
        )
        batches = list(dataset.as_numpy_iterator())
        assert len(batches) == dataset.cardinality() == steps * replicas
        assert all(len(batch["mask"]) == batch_size // num_hosts // replicas for batch in batches)
        parts.extend(batches)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    real = joined["mask"] == 1
    indices = joined["index"][real]
    assert sorted(indices) == list(range(num_examples))
    assert spelled_indices(joined["image"][real]) == indices.tolist()
    np.testing.assert_array_equal(joined["label"][real], indices % 5)
    np.testing.assert_array_equal(joined["target"][real], np.eye(5, dtype=np.float32)[indices % 5])
    assert (joined["index"][~real] == -1).all()
    for name in ("image", "target", "label", "mask"):
        assert not joined[name][~real].any()


def test_several_labels_become_the_target() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    source = ArraySource(3, num_classes=3, labels=labels)
    (batch,) = evaluation_dataset(source, PLAIN, batch_size=4)
    np.testing.assert_array_equal(batch["target"][:3], labels)
    (batch,) = _batches(training_dataset(source, PLAIN, batch_size=3, seed=0), 1)
    order = spelled_indices(batch["image"])
    np.testing.assert_array_equal(batch["target"], labels[order])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 6, "replicas_per_host": 4}, "batch_size to 4 or 8"),
        ({"batch_size": 2, "num_hosts": 2, "replicas_per_host": 2}, "batch_size to 4"),
        ({"batch_size": 0}, r"batch_size must be .* at least 1\. Received: 0"),
        ({"num_hosts": 2, "host_index": 2}, "host_index must be 0 to 1"),
        ({"replicas_per_host": 0}, "replicas_per_host must be"),
        ({"private_threads": 0}, "private_threads must be"),
    ],
)
def test_wrong_layouts_are_refused(wrong: dict[str, Any], message: str) -> None:
    arguments = {"batch_size": 4, **wrong}
    with pytest.raises(ConfigurationError, match=message):
        training_dataset(ArraySource(4), PLAIN, seed=0, **arguments)
    with pytest.raises(ConfigurationError, match=message):
        evaluation_dataset(ArraySource(4), PLAIN, **arguments)


@pytest.mark.parametrize(
    "wrong", [{"start_step": -1}, {"mixup_alpha": -0.5}, {"cutmix_alpha": -0.5}]
)
def test_wrong_training_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must be a number of at least 0"):
        training_dataset(ArraySource(4), PLAIN, batch_size=2, seed=0, **wrong)


def test_empty_source_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no examples"):
        training_dataset(ArraySource(0), PLAIN, batch_size=2, seed=0)


def test_steps_beyond_32_bits_work() -> None:
    dataset = training_dataset(ArraySource(10), PLAIN, batch_size=4, seed=0, start_step=2**33)
    (batch,) = _batches(dataset, 1)
    assert (
        spelled_indices(batch["image"])
        == examples_at_step(2**33, num_examples=10, batch_size=4, seed=0).tolist()
    )
