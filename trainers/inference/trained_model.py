"""Loads a trained model with its preprocessing, normalization and class names."""

from collections import Counter

from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.state import load_state
from trainers.checkpointing.store import CheckpointStore
from trainers.checkpointing.workdir import read_class_names
from trainers.checkpointing.workdir import read_configuration
from trainers.configuration.schedule import NO_TRAINING
from trainers.data.records.manifest import read_label_file
from trainers.experiment import TrainedModel
from trainers.experiment import make_model
from trainers.experiment import make_preprocessing
from trainers.steps.ema import put_averages
from trainers.steps.logits import make_view_reduction
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.reporting import log_to_stderr


def load_workdir(
    workdir: str | None, checkpoint: int | None = None, class_names_file: str | None = None
) -> TrainedModel:
    """Returns the model of a work directory as an evaluation sees it.

    It has the moving averages of the weights, if there are any.

    Args:
        workdir: The work directory of a training, which may be running.
        checkpoint: Step; None is the newest valid one.
        class_names_file: As for `choose_class_names`.

    Raises:
        ConfigurationError: If there is no run, no such checkpoint, or the class names do not fit.
        DataError: If the checkpoint asked for is damaged.
    """
    config, model_config = read_configuration(workdir)
    assert workdir is not None  # read_configuration has refused None
    preprocessing = make_preprocessing(config, model_config)
    names = choose_class_names(
        model_config.num_classes, class_names_file, read_class_names(workdir)
    )
    step, arrays = load_checkpoint(workdir, checkpoint)
    model, optimizer = make_model(config, model_config, NO_TRAINING)
    load_state(arrays, model, optimizer)
    put_averages(model, optimizer)
    kind = "weights as trained" if config.ema_decay is None else "moving averages of the weights"
    return TrainedModel(
        model=model,
        preprocessing=preprocessing,
        normalization=config.data.normalization,
        # The loss of the training determines how logits become probabilities.
        activation=config.loss,
        view_reduction=make_view_reduction(config.video.view_reduction, config.loss),
        class_names=names,
        description=f"{workdir}, step {step}, {kind}",
    )


def load_checkpoint(workdir: str, step: int | None) -> tuple[int, Arrays]:
    """Returns step and arrays of a checkpoint; a `step` of None is the newest valid one.

    Raises:
        ConfigurationError: If there is none; the message lists those that exist.
        DataError: If the one asked for is damaged.
    """
    with CheckpointStore(files.join(workdir, "checkpoints"), 1, log_to_stderr) as store:
        if step is not None:
            return step, store.load(step)
        found = store.load_newest()
    if found is None:
        raise ConfigurationError(
            f"Expected --workdir=DIR with a valid checkpoint. Received {workdir!r}, which has "
            "none. Run the training command again; it saves one at its end."
        )
    return found


def choose_class_names(
    num_classes: int, path: str | None, known: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Returns the names of the classes: of a file, of the training (`known`), or their numbers.

    Where two classes share a name (ImageNet has such), their numbers tell them apart. The text file
    at `path`, if any, has one class per line.
    """
    if path is not None and not files.exists(path):
        raise ConfigurationError(f"--class_names={path}: there is no such file.")
    names = read_label_file(path) if path is not None else known
    if names is None:
        names = tuple(map(str, range(num_classes)))
    if len(names) != num_classes:
        raise ConfigurationError(
            f"--class_names={path}: expected a line for each of the model's {num_classes} "
            f"classes, received {len(names)}."
        )
    counts = Counter(names)
    return tuple(
        f"{number} {name}" if counts[name] > 1 else name for number, name in enumerate(names)
    )
