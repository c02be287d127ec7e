"""Puts training and evaluation batches on the devices of an engine."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from trainers.data.bad_examples import BadExamples
from trainers.data.pipeline import evaluation_dataset
from trainers.data.pipeline import training_dataset
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.sources import Source
from trainers.engines.engine import Engine


def training_batches(
    source: Source,
    preprocessing: Preprocessing,
    engine: Engine,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    mixup_alpha: float,
    bad_examples: BadExamples | None = None,
) -> Iterator[Any]:
    """Returns an endless iterator of distributed training batches.

    See `training_dataset` for the arguments and the batches.
    """

    def batches(**layout: int) -> tf.data.Dataset:
        dataset = training_dataset(
            source,
            preprocessing,
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            mixup_alpha=mixup_alpha,
            bad_examples=bad_examples,
            **layout,
        )
        # Without this, several hosts would ask one another at each step whether a batch is
        # left, and the batch would lose its static shape.
        endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        return dataset.apply(endless)

    iterator: Iterator[Any] = iter(engine.batches(batches))
    return iterator


def evaluation_batches(
    source: Source,
    preprocessing: Preprocessing,
    batch_size: int,
    engine: Engine,
    views: bool = False,
    bad_examples: BadExamples | None = None,
) -> Any:
    """Returns a finite distributed dataset with every example once.

    See `evaluation_dataset` for the arguments and the batches.
    """

    def batches(**layout: int) -> tf.data.Dataset:
        return evaluation_dataset(
            source,
            preprocessing,
            batch_size=batch_size,
            views=views,
            bad_examples=bad_examples,
            **layout,
        )

    return engine.batches(batches)
