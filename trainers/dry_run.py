"""`--dry_run`: all checks, one training step and one evaluation step, and nothing written."""

import math
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from tokenlearner_keras.models.model_names import ModelConfig
from trainers.data.pipeline import evaluation_batch_size
from trainers.data.pipeline import evaluation_dataset
from trainers.data.pipeline import training_dataset
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.preprocessing.examples import num_views
from trainers.data.sources import Source
from trainers.engines.engine import Engine
from trainers.evaluation.evaluator import Evaluator
from trainers.step_memory import StepMemory
from trainers.steps.train_step import TrainStep
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.errors import TrainingError
from trainers.utils.reporting import format_metrics

_FINDINGS = (DataError, TrainingError, OSError, tf.errors.OpError)


@contextmanager
def failures_are_findings() -> Iterator[None]:
    """Turns what a training would fail with later into wrong configuration, status 2.

    Raises:
        ConfigurationError: For any failure of the data, the steps or the files.
    """
    try:
        yield
    except _FINDINGS as error:
        lines = str(error).strip().splitlines()
        raise ConfigurationError(lines[0] if lines else type(error).__name__) from error


def run_one_step_each(
    train_step: TrainStep,
    evaluator: Evaluator,
    batches: Iterator[Any],
    step: int,
    sources: Mapping[str, Source],
    final_split: str | None = None,
) -> None:
    """Runs one training step and one evaluation step a source, and prints what they give.

    Args:
        train_step: Of the training.
        evaluator: Of the training.
        batches: Of the training.
        step: Steps done.
        sources: All that a training evaluates, by name.
        final_split: Which of them is judged after the training, a video by all its views.

    Raises:
        TrainingError: If the loss or the gradient is not finite.
    """
    sums = train_step.run(batches, step, 1)
    loss, norm = sums["loss"] / sums["num_examples"], sums["gradient_norm"]
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError(
            f"The first step already diverges: loss {loss}, gradient norm {norm}. Check the "
            "data, data.normalization and optimizer.learning_rate."
        )
    print(f"one training step: loss {loss:.4g}, gradient norm {norm:.4g}", flush=True)
    for name, source in sources.items():
        metrics = evaluator.evaluate(source, num_batches=1, views=name == final_split)
        print(f"one batch of {name}: {format_metrics(metrics)}", flush=True)


def print_memory(
    config: ConfigDict,
    model_config: ModelConfig,
    preprocessing: Preprocessing,
    engine: Engine,
    train_source: Source,
    eval_source: Source,
) -> None:
    """Prints the memory of a replica's training step and evaluation step.

    Where a video has several views there is one more, the evaluation step of all views.

    The steps are compiled by XLA for one replica with its share of the batch, in a model
    and an optimizer of their own; the all-reduce is left out.

    Args:
        config: The whole configuration.
        model_config: From `make_model_config`.
        preprocessing: From `make_preprocessing`.
        engine: Of the training.
        train_source: What is trained on.
        eval_source: What is evaluated.
    """
    replicas = engine.num_replicas
    measured = engine.measured_steps(config, model_config, preprocessing)
    share = {"batch_size": config.batch_size, "replicas_per_host": replicas}
    train_data = training_dataset(train_source, preprocessing, seed=config.seed, **share)
    print(
        f"weights: {_megabytes(measured.weight_bytes)}, optimizer: "
        f"{_megabytes(measured.optimizer_bytes)}",
        flush=True,
    )
    _print_step("training step", measured.training_memory(train_data.element_spec))
    for name, views in {"evaluation step": False, "evaluation step of views": True}.items():
        if not views or num_views(preprocessing) > 1:
            batch_size = evaluation_batch_size(config.batch_size, preprocessing, replicas, views)
            share["batch_size"] = batch_size
            eval_data = evaluation_dataset(eval_source, preprocessing, views=views, **share)
            _print_step(name, measured.evaluation_memory(eval_data.element_spec))


def _print_step(name: str, memory: StepMemory | None) -> None:
    print(f"memory of a replica's {name}: {_describe(memory)}", flush=True)


def _describe(memory: StepMemory | None) -> str:
    if memory is None:
        return "not available on this backend (for TPUs: python -m trainers.tpu_check)"
    parts = {
        "weights, optimizer and batch": memory.arguments,
        "activations, gradients and scratch": memory.temporaries,
        "results and constants": memory.results + memory.constants,
    }
    listed = ", ".join(f"{name} {_megabytes(size)}" for name, size in parts.items())
    return f"{_megabytes(memory.total)} as compiled by XLA ({listed})"


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
