"""Computes the examples of a training step from the seed and the step alone.

Position p = step * batch_size + i of the stream of examples belongs to epoch
p // num_examples; each epoch is a permutation of all examples keyed by (seed, epoch).
Resuming needs no saved state: step k is computed, not reached.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# Must be even. TensorFlow's default, 4, is visibly uneven for few examples.
_SHUFFLE_ROUNDS = 8
# More steps than any pipeline prepares ahead.
_AHEAD = 16

# These numbers separate the random streams that are derived from one seed.
_ORDER_STREAM = 1
_AUGMENTATION_STREAM = 2
_BATCH_STREAM = 3


def step_positions(
    step: tf.Tensor, batch_size: int, num_hosts: int = 1, host_index: int = 0
) -> tf.Tensor:
    """Returns one host's positions in a step, int64 (global batch_size / num_hosts,)."""
    host_batch = batch_size // num_hosts
    begin = step * batch_size + host_index * host_batch
    return begin + tf.range(host_batch, dtype=tf.int64)


def shuffled_examples(
    positions: tf.Tensor, num_examples: int, seed: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the example at each position and its epoch, int64 (n,) each."""
    epochs = positions // num_examples
    keys = mixed_words(seed, _ORDER_STREAM, epochs)
    # The raw operation, because the public one rejects one seed per index (TF 2.21). Mixed
    # words, because keys that merely count up repeat after 256 epochs.
    indices = tf.raw_ops.RandomIndexShuffle(
        index=positions % num_examples,
        seed=tf.reshape(
            tf.stack([mixed_words(keys, 0), mixed_words(keys, 1), keys], axis=1),
            (-1, 3),
        ),
        max_index=tf.constant(num_examples - 1, tf.int64),
        rounds=_SHUFFLE_ROUNDS,
    )
    return indices, epochs


def augmentation_seeds(indices: tf.Tensor, epochs: tf.Tensor, seed: int) -> tf.Tensor:
    """Returns the stateless seed of each example, int64 (n, 2), from seed, epoch and index."""
    return tf.stack([mixed_words(seed, _AUGMENTATION_STREAM, epochs), indices], axis=1)


def batch_seed(step: tf.Tensor, seed: int) -> tf.Tensor:
    """Returns the stateless seed, int64 (2,), of what is drawn for a whole global batch."""
    return tf.stack([mixed_words(seed, _BATCH_STREAM), step])


def examples_at_step(
    step: int, *, num_examples: int, batch_size: int, seed: int
) -> npt.NDArray[np.int64]:
    """Returns the examples of one training step, (batch_size,), in the order of the batch."""
    with tf.device("CPU:0"):
        positions = step_positions(tf.constant(step, tf.int64), batch_size)
        indices, _ = shuffled_examples(positions, num_examples, seed)
    result: npt.NDArray[np.int64] = indices.numpy()
    return result


def examples_near_steps(
    step: int, num_steps: int, *, num_examples: int, batch_size: int, seed: int
) -> Iterator[int]:
    """Yields the examples that may have been read for a block of steps, in order.

    Batches are prepared ahead, so those of a few later steps are among them.
    """
    for each in range(step, step + num_steps + _AHEAD):
        yield from examples_at_step(
            each, num_examples=num_examples, batch_size=batch_size, seed=seed
        ).tolist()


def mixed_words(*words: int | tf.Tensor) -> tf.Tensor:
    """Mixes integers or int64 tensors into one that depends on every bit of each (SplitMix64)."""
    state = tf.constant(0, tf.uint64)
    for word in words:
        word = tf.bitcast(tf.convert_to_tensor(word, tf.int64), tf.uint64)
        state = _scrambled((state ^ word) + 0x9E3779B97F4A7C15)
    return tf.bitcast(state, tf.int64)


def _scrambled(state: tf.Tensor) -> tf.Tensor:
    state = (state ^ _shifted(state, 30)) * 0xBF58476D1CE4E5B9
    state = (state ^ _shifted(state, 27)) * 0x94D049BB133111EB
    return state ^ _shifted(state, 31)


def _shifted(state: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(state, tf.constant(bits, tf.uint64))
