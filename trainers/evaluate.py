"""Evaluates a checkpoint: `python -m trainers.evaluate --workdir=DIR`, or `evaluate(...)`.

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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from tokenlearner_keras import resize_model
from trainers.checkpointing.state import load_state
from trainers.checkpointing.workdir import read_class_names
from trainers.checkpointing.workdir import read_configuration
from trainers.checkpointing.workdir import read_file_splits
from trainers.configuration.checks import check
from trainers.configuration.checks import check_choice
from trainers.configuration.data_options import check_max_bad_examples
from trainers.configuration.schedule import NO_TRAINING
from trainers.data.preprocessing.examples import check_kind
from trainers.data.sources import Source
from trainers.data.sources import is_multi_label
from trainers.engines.flags import define_flags as define_engine_flags
from trainers.engines.flags import engine_arguments
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
from trainers.inference.trained_model import describe_weights
from trainers.inference.trained_model import load_checkpoint
from trainers.preflight import check_labels
from trainers.preflight import describe_model
from trainers.preflight import log_notes
from trainers.steps.optimizer import averaged_weights
from trainers.utils import cli
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import one_line
from trainers.utils.files import AnyPath
from trainers.utils.files import path_text
from trainers.utils.reporting import format_metrics

FLAGS = flags.FLAGS
WEIGHTS = ("ema", "raw")

Metrics = dict[str, float]


def evaluate(
    workdir: AnyPath,
    *,
    checkpoint: int | None = None,
    split: str | None = None,
    eval_sets: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    max_bad_examples: int | None = None,
    views: bool = True,
    report: AnyPath | None = None,
    engine: str | None = None,
    strategy: str = "auto",
    virtual_devices: int | None = None,
    tpu: str | None = None,
    batch_axis: int | None = None,
    model_axis: int = 1,
) -> dict[str, Metrics]:
    """Evaluates a checkpoint of a training, which may be running.

    Args:
        workdir: The work directory of the training; nothing in it is changed.
        checkpoint: Step; None is the newest valid one.
        split: A split of the training's data to evaluate, in place of the training's sets.
        eval_sets: Sets to evaluate in their place, with commas between; the forms are in
            `trainers.evaluation.sets`.
        weights: "ema" for moving averages, "raw" for the weights; None: averages if there are any.
        image_size: Pixels of a side; None is the training's.
        batch_size: Global; None is the training's.
        max_bad_examples: Unreadable examples to leave out; None is the training's number.
        views: Whether a video is judged by all its views, not by the clip in its middle.
        report: A JSON file for the results of each class.
        engine, strategy, virtual_devices, tpu, batch_axis, model_axis: See `make_engine`.

    Returns:
        The metrics of each set by its name.

    Raises:
        ConfigurationError: If there is no run or no such checkpoint, or an argument is wrong.
        DataError: If the checkpoint asked for is damaged, or an example cannot be read.
    """
    workdir, report = path_text(workdir), path_text(report)
    config, model_config = read_configuration(workdir)
    sets = _chosen_sets(config, split, eval_sets)
    averages = _choose_weights(config, weights)
    size_config = model_config
    if image_size is not None:
        with _explain_image_size(image_size):
            size_config = dataclasses.replace(model_config, image_size=(image_size, image_size))
    preprocessing = make_preprocessing(config, size_config)
    if batch_size is not None:
        check(batch_size >= 1, "--batch_size", "at least 1", batch_size)
        config.batch_size = batch_size
    if max_bad_examples is not None:
        check_max_bad_examples(max_bad_examples)
        config.data.max_bad_examples = max_bad_examples
    check_report(report)

    # ----------------------------------------------------- checkpoint and devices
    devices = make_engine(
        engine,
        strategy=strategy,
        tpu=tpu,
        virtual_devices=virtual_devices,
        batch_axis=batch_axis,
        model_axis=model_axis,
    )
    hosts = devices.hosts
    with hosts.all_succeed():
        step, arrays = load_checkpoint(workdir, checkpoint)
    print(devices.describe(), flush=True)
    hosts.check_same("the checkpoint to evaluate", step)

    # ------------------------------------------------------------ data and model
    with hosts.all_succeed():
        class_names = read_class_names(workdir)
        records = make_records(config)
        file_splits = read_file_splits(workdir)
        sources = {
            each.name: each.open(model_config.num_classes, class_names, records, file_splits)
            for each in sets
        }
    log_notes(*sources.values())
    with devices.scope():
        model, optimizer = make_model(config, model_config, NO_TRAINING)
    load_state(arrays, model, optimizer)
    if image_size is not None and size_config.image_size != model_config.image_size:
        used = averaged_weights(model, optimizer if averages else None)
        with devices.scope(), used, _explain_image_size(image_size):
            model, optimizer = resize_model(model, image_size), None
    for source in sources.values():
        check_kind(source, preprocessing)
        check_labels(source, config.data.multi_label)
    evaluator = make_evaluator(
        config, model, optimizer if averages else None, devices, preprocessing
    )
    print(f"{describe_model(model)}, step {step}, {describe_weights(averages)}", flush=True)

    # ---------------------------------------------------------------- evaluation
    results = {}
    with hosts.explain_lost_hosts():
        for name, source in sources.items():
            results[name] = _evaluate_set(evaluator, source, views, by_class=bool(report))
            print(f"{name}: {format_metrics(results[name]['metrics'])}", flush=True)
        if report and hosts.is_chief:
            content = {"step": step, "weights": "ema" if averages else "raw", "sets": results}
            write_report(report, content)
            print(f"report: {report}", flush=True)
        hosts.barrier()
    return {name: result["metrics"] for name, result in results.items()}


def _chosen_sets(
    config: ConfigDict, split: str | None, eval_sets: str | None
) -> list[EvaluationSet]:
    if split and eval_sets:
        raise ConfigurationError(
            f"Expected one of --split and --eval_sets. Received --split={split} and "
            f"--eval_sets={eval_sets}."
        )
    chosen = split or eval_sets
    return configured_sets(config.data) if chosen is None else parse_sets([chosen], config.data)


def _evaluate_set(
    evaluator: Evaluator, source: Source, views: bool, by_class: bool
) -> dict[str, Any]:
    """Returns the metrics of a set and, for a report, the results of its classes."""
    if evaluator.multi_label:
        metrics, precisions = evaluator.evaluate_ranking(source, views=views)
        return {"metrics": metrics, **multi_label_report(precisions, source.class_names)}
    if by_class and not is_multi_label(source):
        metrics, confusion = evaluator.evaluate_by_class(source, views)
        return {"metrics": metrics, **class_report(confusion, source.class_names)}
    return {"metrics": evaluator.evaluate(source, views=views)}


def _choose_weights(config: ConfigDict, weights: str | None) -> bool:
    """Returns whether moving averages of the weights are evaluated."""
    if weights is not None:
        check_choice("--weights", weights, WEIGHTS)
    if weights == "ema" and config.ema_decay is None:
        raise ConfigurationError(
            "--weights=ema needs a training with moving averages. Received one with "
            "ema_decay=None. Use --weights=raw, or leave it out."
        )
    return config.ema_decay is not None and weights != "raw"


@contextmanager
def _explain_image_size(size: int) -> Iterator[None]:
    """Names the argument if the model cannot take images of this size."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"--image_size={size}: {one_line(error)}") from error


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
    """Evaluates as the flags say."""
    evaluate(
        FLAGS.workdir,
        checkpoint=FLAGS.checkpoint,
        split=FLAGS.split,
        eval_sets=FLAGS.eval_sets,
        weights=FLAGS.weights,
        image_size=FLAGS.image_size,
        batch_size=FLAGS.batch_size,
        max_bad_examples=FLAGS.max_bad_examples,
        views=FLAGS.views,
        report=FLAGS.report,
        **engine_arguments(FLAGS),
    )


if __name__ == "__main__":
    define_flags()
    cli.run(main, cli.parse_known_flags)
