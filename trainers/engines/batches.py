"""Puts training and evaluation batches on the devices of an engine."""

from collections.abc import Iterator
from functools import partial
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
    cutmix_alpha: float = 0.0,
    bad_examples: BadExamples | None = None,
) -> Iterator[Any]:
    """Returns an endless iterator of distributed training batches; see `training_dataset`."""
    make_dataset = partial(
        training_dataset,
        source,
        preprocessing,
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        mixup_alpha=mixup_alpha,
        cutmix_alpha=cutmix_alpha,
        bad_examples=bad_examples,
    )
    # Without this, several hosts would ask one another at each step whether a batch is
    # left, and the batch would lose its static shape.
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return iter(engine.batches(lambda **layout: make_dataset(**layout).apply(endless)))


def evaluation_batches(
    source: Source,
    preprocessing: Preprocessing,
    batch_size: int,
    engine: Engine,
    views: bool = False,
    bad_examples: BadExamples | None = None,
) -> Any:
    """Returns distributed batches with every example once; see `evaluation_dataset`."""
    return engine.batches(
        partial(
            evaluation_dataset,
            source,
            preprocessing,
            batch_size=batch_size,
            views=views,
            bad_examples=bad_examples,
        )
    )
