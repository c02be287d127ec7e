"""Builds the batches for training and evaluation, addressed by step."""

import math
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainers.configuration.checks import check
from trainers.configuration.checks import check_at_least_zero
from trainers.configuration.checks import check_positive
from trainers.data.bad_examples import BadExamples
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.preprocessing.examples import evaluation_input
from trainers.data.preprocessing.examples import num_views
from trainers.data.preprocessing.examples import training_input
from trainers.data.preprocessing.examples import training_label
from trainers.data.preprocessing.mixup import Mixing
from trainers.data.shuffling import augmentation_seeds
from trainers.data.shuffling import batch_seed
from trainers.data.shuffling import shuffled_examples
from trainers.data.shuffling import step_positions
from trainers.data.sources import Source
from trainers.utils.errors import ConfigurationError

Element = dict[str, Any]


def training_dataset(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    bad_examples: BadExamples | None = None,
    num_hosts: int = 1,
    host_index: int = 0,
    replicas_per_host: int = 1,
    private_threads: int | None = None,
) -> tf.data.Dataset:
    """Returns the endless training batches of one host, from one step on.

    Starting at step k gives exactly the bytes that a run from step 0 gives from k on.
    Neither the number of hosts nor that of replicas changes what a step sees: the
    batch of a host is formed and mixed first and then cut into those of its replicas,
    and the pairs that are mixed are never split between two hosts.

    Args:
        batch_size: over all hosts and replicas.
        bad_examples: replaces examples that cannot be read; None fails at the first.
        replicas_per_host: each step yields this many elements, one per replica.
        private_threads: threads of this pipeline alone; None shares TensorFlow's.

    Returns:
        Dataset of `image`, uint8 (replica batch, height, width, 3) or, for videos, (replica batch,
        frames, height, width, 3), and `target`, float32 (replica batch, num_classes): one-hot,
        several ones where an example has several labels, or a blend of these under mixup and
        CutMix.

    Raises:
        ConfigurationError: if an argument is out of range or does not divide.
    """
    _check_layout(source, batch_size, num_hosts, host_index, replicas_per_host)
    check_at_least_zero("start_step", start_step)
    check_at_least_zero("mixup_alpha", mixup_alpha)
    check_at_least_zero("cutmix_alpha", cutmix_alpha)
    mixing = Mixing(mixup_alpha, cutmix_alpha)
    host_batch = batch_size // num_hosts
    if mixing.is_on and num_hosts > 1 and host_batch % 2:
        raise ConfigurationError(
            "batch_size: mixup and CutMix mix pairs of a host's examples, so of several hosts each "
            f"needs an even number of them. Received {host_batch} for each of {num_hosts} "
            f"hosts; set batch_size to a multiple of {2 * num_hosts}"
        )

    def addresses(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        positions = step_positions(step, batch_size, num_hosts, host_index)
        indices, epochs = shuffled_examples(positions, source.num_examples, seed)
        return indices, augmentation_seeds(indices, epochs, seed)

    def load(index: tf.Tensor, example_seed: tf.Tensor) -> Element:
        example = source.load(index)
        image = training_input(example, example_seed, preprocessing)
        return {"image": image, "label": training_label(example, example_seed, preprocessing)}

    def finish(step: tf.Tensor, batch: Element) -> Element:
        images, targets = batch["image"], _targets(batch["label"], source.num_classes)
        if mixing.is_on:
            first = host_index * host_batch
            images, targets = mixing(images, targets, batch_seed(step, seed), batch_size, first)
        return {"image": images, "target": targets}

    steps = tf.data.Dataset.counter(start_step)
    # Addresses are computed for a whole batch at once; only pixels are per example.
    examples = steps.map(addresses).unbatch()
    load_any = bad_examples.replacing(load) if bad_examples else load
    examples = examples.map(load_any, num_parallel_calls=tf.data.AUTOTUNE)
    batches = examples.batch(host_batch, drop_remainder=True)
    batches = tf.data.Dataset.zip((steps, batches))
    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    return _for_replicas(batches, host_batch, replicas_per_host, private_threads)


def evaluation_dataset(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    views: bool = False,
    bad_examples: BadExamples | None = None,
    num_hosts: int = 1,
    host_index: int = 0,
    replicas_per_host: int = 1,
    private_threads: int | None = None,
) -> tf.data.Dataset:
    """Returns the evaluation batches of one host: each example exactly once.

    All batches are full: the rest of the last one is padding with `mask` 0, for which no example
    is loaded. Every host yields the same number of elements, a multiple of its replicas, so that
    none waits for another at the end.

    Args:
        views: whether to return all views of a video, or one clip of it.
        bad_examples: makes padding of examples that cannot be read; None fails at the first.
        batch_size, replicas_per_host, private_threads: as for `training_dataset`.

    Returns:
        Dataset of known length, of `image` (uint8 (replica batch, height, width, 3); for
        videos (replica batch, [views,] frames, height, width, 3)), `target` (float32 (replica
        batch, num_classes)), `label` (as in the source, batched), `mask` (float32 (replica
        batch,), 1 for an example and 0 for padding) and `index` (int64 (replica batch,), -1 for
        padding). All else is zero where there is padding.

    Raises:
        ConfigurationError: if an argument is out of range or does not divide.
    """
    _check_layout(source, batch_size, num_hosts, host_index, replicas_per_host)
    host_batch = batch_size // num_hosts
    full_steps, rest = divmod(source.num_examples, batch_size)
    num_steps = full_steps + (rest > 0)
    host_rest = min(max(rest - host_index * host_batch, 0), host_batch)
    num_examples = full_steps * host_batch + host_rest

    def index_at(count: tf.Tensor) -> tf.Tensor:
        step, place = count // host_batch, count % host_batch
        return step * batch_size + host_index * host_batch + place

    def load(index: tf.Tensor) -> Element:
        example = source.load(index)
        return {
            "image": evaluation_input(example, preprocessing, views),
            "label": example["label"],
            "mask": tf.constant(1.0),
            "index": index,
        }

    def finish(batch: Element) -> Element:
        targets = _targets(batch["label"], source.num_classes)
        return {**batch, "target": targets * batch["mask"][:, tf.newaxis]}

    examples = tf.data.Dataset.range(num_examples).map(index_at)
    load_any = bad_examples.leaving_out(load) if bad_examples else load
    # All views of a video are large, so no more are made at a time than a batch holds.
    parallel = min(host_batch, os.cpu_count() or 1) if views else tf.data.AUTOTUNE
    examples = examples.map(load_any, num_parallel_calls=parallel)
    padding = _padding_like(examples).repeat(num_steps * host_batch - num_examples)
    batches = examples.concatenate(padding).batch(host_batch, drop_remainder=True)
    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = _for_replicas(batches, host_batch, replicas_per_host, private_threads)
    length = num_steps * replicas_per_host
    return dataset.apply(tf.data.experimental.assert_cardinality(length))


def _targets(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns float32 (batch, num_classes) from class numbers or from 0/1 vectors."""
    if labels.shape.rank == 2:
        return tf.ensure_shape(tf.cast(labels, tf.float32), (None, num_classes))
    return tf.one_hot(labels, num_classes, dtype=tf.float32)


def _padding_like(examples: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset of one element of zeros, with index -1."""
    spec = examples.element_spec
    element = {name: tf.zeros(part.shape, part.dtype) for name, part in spec.items()}
    return tf.data.Dataset.from_tensors({**element, "index": tf.constant(-1, tf.int64)})


def _for_replicas(
    batches: tf.data.Dataset,
    host_batch: int,
    replicas_per_host: int,
    private_threads: int | None,
) -> tf.data.Dataset:
    """Cuts the batches of a host into those of its replicas, and prefetches."""
    if replicas_per_host > 1:
        replica_batch = host_batch // replicas_per_host
        batches = batches.rebatch(replica_batch, drop_remainder=True)
    options = tf.data.Options()
    options.deterministic = True
    # Each host already reads only its share; nothing is left to shard.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # Examples run in parallel; threads inside an operation would only compete.
    options.threading.max_intra_op_parallelism = 1
    if private_threads is not None:
        check_positive("private_threads", private_threads)
        options.threading.private_threadpool_size = private_threads
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _check_layout(
    source: Source,
    batch_size: int,
    num_hosts: int,
    host_index: int,
    replicas_per_host: int,
) -> None:
    if source.num_examples < 1:
        raise ConfigurationError(
            "the data source holds no examples: expected at least 1, received "
            f"{source.num_examples}; check data.source and data.data_dir"
        )
    check_positive("batch_size", batch_size)
    check_positive("num_hosts", num_hosts)
    check_positive("replicas_per_host", replicas_per_host)
    check(0 <= host_index < num_hosts, "host_index", f"0 to {num_hosts - 1}", host_index)
    check_batch_size(batch_size, {"hosts": num_hosts, "replicas on each": replicas_per_host})


def check_batch_size(batch_size: int, sharers: Mapping[str, int]) -> None:
    """Checks that a global batch can be cut into parts of equal size.

    `sharers` are what cuts it, in order, with the number of parts; the names are for the message.
    Raises ConfigurationError if it cannot, with nearby batch sizes that can.
    """
    parts = math.prod(sharers.values())
    if batch_size % parts:
        smaller = batch_size // parts * parts
        hint = f"{smaller} or {smaller + parts}" if smaller else f"{parts}"
        listed = ", ".join(f"{name}: {count}" for name, count in sharers.items())
        raise ConfigurationError(
            f"batch_size: expected a multiple of {parts} ({listed}), received {batch_size}; "
            f"set batch_size to {hint}"
        )


def evaluation_batch_size(
    batch_size: int, preprocessing: Preprocessing, replicas: int, views: bool
) -> int:
    """Returns the global batch size of an evaluation; the metrics do not depend on it.

    Videos with all their views need about the memory of the batch of single clips, except
    that a replica takes at least one video. With several views, the result is a multiple of
    `replicas`, those of all hosts.
    """
    count = num_views(preprocessing) if views else 1
    return batch_size if count == 1 else max(1, batch_size // (count * replicas)) * replicas
