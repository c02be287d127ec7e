"""Prints the device memory of a configuration's steps, and their bounds on a TPU."""

from ml_collections import ConfigDict

from tokenlearner_keras.models.names import ModelConfig
from trainers.aot.lowering import measured_steps
from trainers.aot.steps import Step
from trainers.data.pipeline import evaluation_batch_size
from trainers.data.pipeline import evaluation_dataset
from trainers.data.pipeline import training_dataset
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.preprocessing.examples import num_views
from trainers.data.sources import Source
from trainers.engines.engine import Engine


def print_memory(
    config: ConfigDict,
    model_config: ModelConfig,
    preprocessing: Preprocessing,
    engine: Engine,
    train_source: Source,
    eval_source: Source,
) -> None:
    """Prints the memory of a replica's training step and evaluation step, and bounds their time.

    Where a video has several views there is one more, the evaluation step of all views.
    """
    replicas = engine.num_replicas
    measured = measured_steps(engine, config, model_config, preprocessing)
    share = {"batch_size": config.batch_size, "replicas_per_host": replicas}
    train_data = training_dataset(train_source, preprocessing, seed=config.seed, **share)
    print(
        f"weights: {_megabytes(measured.weight_bytes)}, optimizer: "
        f"{_megabytes(measured.optimizer_bytes)}",
        flush=True,
    )
    _print_step("training step", measured.training(train_data.element_spec))
    for name, views in {"evaluation step": False, "evaluation step of views": True}.items():
        if not views or num_views(preprocessing) > 1:
            batch_size = evaluation_batch_size(config.batch_size, preprocessing, replicas, views)
            share["batch_size"] = batch_size
            eval_data = evaluation_dataset(eval_source, preprocessing, views=views, **share)
            _print_step(name, measured.evaluation(eval_data.element_spec))


def _print_step(name: str, step: Step) -> None:
    memory = step.memory()
    description = "not available on this backend (for TPUs: python -m trainers.tpu_check)"
    if memory is not None:
        parts = {
            "weights, optimizer and batch": memory.arguments,
            "activations, gradients and scratch": memory.temporaries,
            "results and constants": memory.results + memory.constants,
        }
        listed = ", ".join(f"{part} {_megabytes(size)}" for part, size in parts.items())
        description = f"{_megabytes(memory.total)} as compiled by XLA ({listed})"
    print(f"memory of a replica's {name}: {description}", flush=True)
    roofline = step.roofline()
    if roofline is not None:
        print(f"bound of a replica's {name}: {roofline}", flush=True)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
