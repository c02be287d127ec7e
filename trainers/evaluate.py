"""Evaluates a checkpoint: `python -m trainers.evaluate --workdir=DIR`.

Prints one line per evaluation set: those that the training evaluates, or those of --split
or --eval_sets (the forms are in trainers/evaluation/sets.py). Every example counts once,
whatever the batch size and the number of replicas and hosts. With the training's batch
size and devices, the figures are those that the training wrote for the same step. For videos
this needs --noviews, except for the final split, which the training judges by all views.
--image_size tests at another size than that of the training.

Nothing in the work directory is changed; --report=FILE.json writes the metrics, the
results of each class and the confusion matrix.
"""

import dataclasses
from typing import Any

import keras
from absl import flags
from ml_collections import ConfigDict

from tokenlearner_keras import resize_model
from tokenlearner_keras.models.names import ModelConfig
from trainers.checkpointing.state import load_state
from trainers.checkpointing.workdir import read_class_names
from trainers.checkpointing.workdir import read_configuration
from trainers.checkpointing.workdir import read_file_splits
from trainers.configuration.checks import check_limit
from trainers.configuration.schedule import NO_TRAINING
from trainers.data.preprocessing.examples import check_kind
from trainers.data.sources import Source
from trainers.data.sources import is_multi_label
from trainers.engines.flags import check_backend
from trainers.engines.flags import define_flags as define_engine_flags
from trainers.engines.flags import make_engine
from trainers.evaluation.class_report import check_report
from trainers.evaluation.class_report import class_report
from trainers.evaluation.class_report import multi_label_report
from trainers.evaluation.class_report import write_report
from trainers.evaluation.evaluator import Evaluator
from trainers.evaluation.sets import EvaluationSet
from trainers.evaluation.sets import configured_sets
from trainers.evaluation.sets import parse_sets
from trainers.experiment import make_evaluator
from trainers.experiment import make_model
from trainers.experiment import make_preprocessing
from trainers.experiment import make_records
from trainers.inference.trained_model import load_checkpoint
from trainers.preflight import check_labels
from trainers.preflight import describe_model
from trainers.preflight import log_notes
from trainers.steps.ema import averaged_weights
from trainers.utils import cli
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import one_line
from trainers.utils.reporting import format_metrics
from trainers.utils.reporting import show_warnings_plainly

FLAGS = flags.FLAGS
WEIGHTS = ("ema", "raw")


def define_flags(flag_values: flags.FlagValues = FLAGS) -> None:
    """Defines the flags of this command."""
    values = {"flag_values": flag_values}
    cli.define_path("workdir", "The work directory of a training.", **values)
    flags.DEFINE_integer("checkpoint", None, "Step; the newest valid one if not given.", **values)
    flags.DEFINE_string("split", None, "Evaluates this split of the training's data.", **values)
    flags.DEFINE_string("eval_sets", None, "Evaluates these sets, with commas between.", **values)
    flags.DEFINE_enum(
        "weights", None, WEIGHTS, "Moving averages (if there are any) or the weights.", **values
    )
    flags.DEFINE_integer(
        "image_size", None, "Pixels of a side; the training's if not given.", **values
    )
    flags.DEFINE_integer("batch_size", None, "Global; the training's if not given.", **values)
    flags.DEFINE_integer(
        "max_bad_examples",
        None,
        "Examples that are left out if they cannot be read; as in training if not given.",
        **values,
    )
    flags.DEFINE_bool(
        "views", True, "Judge a video by all its views, not by the clip in its middle.", **values
    )
    cli.define_path("report", "JSON file for results by class.", **values)
    define_engine_flags(flag_values)


def main() -> None:
    """Loads a checkpoint and evaluates it; every stage is named once, in order."""
    show_warnings_plainly()
    check_backend()
    config, model_config = read_configuration(FLAGS.workdir)
    sets = _chosen_sets(config)
    averages = _choose_weights(config)
    size_config = _choose_image_size(model_config)
    preprocessing = make_preprocessing(config, size_config)
    _choose_batch_size(config)
    _choose_bad_examples(config)
    check_report(FLAGS.report)

    # ----------------------------------------------------- checkpoint and devices
    engine = make_engine(FLAGS)
    hosts = engine.hosts
    with hosts.all_succeed():
        step, arrays = load_checkpoint(FLAGS.workdir, FLAGS.checkpoint)
    print(engine.describe(), flush=True)
    hosts.check_same("the checkpoint to evaluate", step)

    # ------------------------------------------------------------ data and model
    with hosts.all_succeed():
        class_names = read_class_names(FLAGS.workdir)
        records = make_records(config)
        file_splits = read_file_splits(FLAGS.workdir)
        sources = {
            each.name: each.open(model_config.num_classes, class_names, records, file_splits)
            for each in sets
        }
    log_notes(*sources.values())
    with engine.scope():
        model, optimizer = make_model(config, model_config, NO_TRAINING)
    load_state(arrays, model, optimizer)
    if size_config.image_size != model_config.image_size:
        with engine.scope(), averaged_weights(model, optimizer if averages else None):
            model, optimizer = _resized(model), None
    for source in sources.values():
        check_kind(source, preprocessing)
        check_labels(source, config.data.multi_label)
    evaluator = make_evaluator(config, model, optimizer, engine, preprocessing, averages)
    print(f"{describe_model(model)}, step {step}, {_describe_weights(averages)}", flush=True)

    # ---------------------------------------------------------------- evaluation
    results = {}
    with hosts.explain_lost_hosts():
        for name, source in sources.items():
            results[name] = _evaluate(evaluator, source)
            print(f"{name}: {format_metrics(results[name]['metrics'])}", flush=True)
        if FLAGS.report and hosts.is_chief:
            weights = "ema" if averages else "raw"
            write_report(FLAGS.report, {"step": step, "weights": weights, "sets": results})
            print(f"report: {FLAGS.report}", flush=True)
        hosts.barrier()


def _chosen_sets(config: ConfigDict) -> list[EvaluationSet]:
    if FLAGS.split and FLAGS.eval_sets:
        raise ConfigurationError(
            f"Expected one of --split and --eval_sets. Received --split={FLAGS.split} and "
            f"--eval_sets={FLAGS.eval_sets}."
        )
    chosen = FLAGS.split or FLAGS.eval_sets
    return configured_sets(config.data) if chosen is None else parse_sets([chosen], config.data)


def _evaluate(evaluator: Evaluator, source: Source) -> dict[str, Any]:
    """Returns the metrics of a set and, for a report, the results of its classes."""
    if evaluator.multi_label:
        metrics, precisions = evaluator.evaluate_ranking(source, views=FLAGS.views)
        return {"metrics": metrics, **multi_label_report(precisions, source.class_names)}
    if FLAGS.report and not is_multi_label(source):
        metrics, confusion = evaluator.evaluate_by_class(source, FLAGS.views)
        return {"metrics": metrics, **class_report(confusion, source.class_names)}
    return {"metrics": evaluator.evaluate(source, views=FLAGS.views)}


def _choose_weights(config: ConfigDict) -> bool:
    """Returns whether moving averages of the weights are evaluated."""
    if FLAGS.weights == "ema" and config.ema_decay is None:
        raise ConfigurationError(
            "--weights=ema needs a training with moving averages. Received one with "
            "ema_decay=None. Use --weights=raw, or leave it out."
        )
    return config.ema_decay is not None and FLAGS.weights != "raw"


def _choose_image_size(model: ModelConfig) -> ModelConfig:
    """Returns the model's configuration for the images of --image_size."""
    size = FLAGS.image_size
    if size is None:
        return model
    try:
        return dataclasses.replace(model, image_size=(size, size))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"--image_size={size}: {error}") from error


def _resized(model: keras.Model) -> keras.Model:
    """Returns a model with the same weights for images of --image_size."""
    try:
        return resize_model(model, FLAGS.image_size)
    except ValueError as error:
        reason = one_line(error)
        raise ConfigurationError(f"--image_size={FLAGS.image_size}: {reason}") from error


def _choose_batch_size(config: ConfigDict) -> None:
    if FLAGS.batch_size is None:
        return
    if FLAGS.batch_size < 1:
        raise ConfigurationError(f"--batch_size must be at least 1. Received: {FLAGS.batch_size}.")
    config.batch_size = FLAGS.batch_size


def _choose_bad_examples(config: ConfigDict) -> None:
    if FLAGS.max_bad_examples is not None:
        check_limit(FLAGS.max_bad_examples)
        config.data.max_bad_examples = FLAGS.max_bad_examples


def _describe_weights(averages: bool) -> str:
    return "moving averages of the weights" if averages else "weights as trained"


if __name__ == "__main__":
    define_flags()
    cli.run(main, cli.parse_known_flags)
