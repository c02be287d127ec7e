import numpy as np
import pytest
import tensorflow as tf

from trainers.data.shuffling import augmentation_seeds
from trainers.data.shuffling import examples_at_step
from trainers.data.shuffling import shuffled_examples
from trainers.data.shuffling import step_positions


@pytest.mark.parametrize("num_examples", [1, 2, 7, 10, 300])
def test_each_epoch_is_a_permutation(num_examples: int) -> None:
    positions = tf.range(4 * num_examples, dtype=tf.int64)
    indices, epochs = shuffled_examples(positions, num_examples, seed=3)
    for epoch in range(4):
        of_epoch = np.sort(indices.numpy()[epochs.numpy() == epoch])
        np.testing.assert_array_equal(of_epoch, np.arange(num_examples))


def test_order_changes_with_epoch_and_seed() -> None:
    positions = tf.range(200, dtype=tf.int64)
    indices, _ = shuffled_examples(positions, 100, seed=0)
    other, _ = shuffled_examples(positions, 100, seed=1)
    assert not np.array_equal(indices[:100], indices[100:])
    assert not np.array_equal(indices, other)


@pytest.mark.parametrize("num_examples", [5, 64, 1000])
@pytest.mark.slow
def test_the_first_example_of_an_epoch_is_uniform(num_examples: int) -> None:
    # A plain count of epochs as key repeats after 256 epochs: chi-squared / degrees
    # of freedom is then about 80 here.
    num_epochs = 20_000
    positions = tf.range(num_epochs, dtype=tf.int64) * num_examples
    indices, _ = shuffled_examples(positions, num_examples, seed=0)
    counts = np.bincount(indices.numpy(), minlength=num_examples)
    expected = num_epochs / num_examples
    chi_squared = np.sum((counts - expected) ** 2 / expected)
    assert chi_squared / (num_examples - 1) < 4.0


def test_seeds_differ_between_epochs_and_examples() -> None:
    epochs, indices = np.divmod(np.arange(2000), 100)
    seeds = augmentation_seeds(tf.constant(indices), tf.constant(epochs), 0).numpy()
    assert len({tuple(seed) for seed in seeds}) == 2000


def test_hosts_cut_the_global_batch() -> None:
    step = tf.constant(4, tf.int64)
    halves = [step_positions(step, 6, num_hosts=2, host_index=host) for host in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(halves), step_positions(step, 6))


def test_order_does_not_change_between_releases() -> None:
    # Runs are resumed by recomputing the order: it is part of the promise.
    first = examples_at_step(0, num_examples=10, batch_size=10, seed=0)
    assert first.tolist() == [3, 7, 0, 2, 1, 8, 6, 5, 9, 4]
