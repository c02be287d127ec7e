"""Loads the model of a training, and runs any trained model: probabilities, attention maps."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import tokenlearner_keras as tk
from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.state import load_state
from trainers.checkpointing.store import CheckpointStore
from trainers.checkpointing.workdir import read_class_names
from trainers.checkpointing.workdir import read_configuration
from trainers.configuration.schedule import NO_TRAINING
from trainers.data.preprocessing.normalization import normalize
from trainers.data.records.manifest import read_label_file
from trainers.engines.engine import Batch
from trainers.engines.flags import make_local_engine
from trainers.experiment import TrainedModel
from trainers.experiment import make_model
from trainers.experiment import make_preprocessing
from trainers.steps.logits import class_logits
from trainers.steps.logits import make_view_reduction
from trainers.steps.losses import LOSSES
from trainers.steps.optimizer import put_averages
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import TrainingError
from trainers.utils.reporting import log_to_stderr


def load_workdir(
    workdir: str, checkpoint: int | None = None, class_names_file: str = ""
) -> TrainedModel:
    """Returns the model of a training as an evaluation sees it.

    It has the moving averages of the weights, if there are any. The training may be running. For
    `checkpoint` see `load_checkpoint`, for `class_names_file` `choose_class_names`.

    Raises:
        ConfigurationError: If there is no run, no such checkpoint, or the class names do not fit.
        DataError: If the checkpoint asked for is damaged.
    """
    config, model_config = read_configuration(workdir)
    preprocessing = make_preprocessing(config, model_config)
    names = choose_class_names(
        model_config.num_classes, class_names_file, read_class_names(workdir)
    )
    step, arrays = load_checkpoint(workdir, checkpoint)
    model, optimizer = make_model(config, model_config, NO_TRAINING)
    load_state(arrays, model, optimizer)
    put_averages(model, optimizer)
    weights = describe_weights(config.ema_decay is not None)
    return TrainedModel(
        model=model,
        preprocessing=preprocessing,
        normalization=config.data.normalization,
        # The loss of the training determines how logits become probabilities.
        activation=config.loss,
        view_reduction=make_view_reduction(config.video.view_reduction, config.loss),
        class_names=names,
        description=f"{workdir}, step {step}, {weights}",
    )


def describe_weights(averages: bool) -> str:
    """Returns which weights a model has, for a message."""
    return "moving averages of the weights" if averages else "weights as trained"


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
    num_classes: int, path: str, known: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Returns the names of the classes: of a file, of the training (`known`), or their numbers.

    Where two classes share a name (ImageNet has such), their numbers tell them apart. The text file
    at `path`, unless that is empty, has one class per line.
    """
    if path and not files.exists(path):
        raise ConfigurationError(f"--class_names={path}: there is no such file.")
    names = read_label_file(path) if path else known
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


class Predictor:
    """Runs a trained model on batches of bytes, normalised on the device."""

    def __init__(self, trained: TrainedModel, batch_size: int) -> None:
        self.trained = trained
        self.batch_size = batch_size
        kind = LOSSES.get(trained.activation)
        # "none": the model's outputs are probabilities already.
        self._activation = kind.activation if kind else lambda answers: answers
        engine = make_local_engine()
        self._step = engine.evaluation(trained.model, self._probabilities, per_example=True)

    def probabilities(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Returns the probability of each class, (N, K), of at most `batch_size` inputs.

        An input is (H, W, C), (T, H, W, C) or with views (V, T, H, W, C).

        Raises:
            TrainingError: If one is not finite.
        """
        # Padded, since the model is compiled for each shape.
        batch = np.zeros((self.batch_size, *inputs[0].shape), np.uint8)
        batch[: len(inputs)] = inputs
        found: NDArray[np.float32] = self._step({"image": batch})["probabilities"][: len(inputs)]
        if not np.isfinite(found).all():
            raise TrainingError(
                f"{self.trained.description}: the model's answers are not finite (NaN or "
                "infinity). Its training has diverged; take an earlier --checkpoint."
            )
        return found

    def attention_maps(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Returns the maps of every TokenLearner by the name of its layer.

        The images are (B, H, W, C) or clips (B, T, H, W, C).

        Raises:
            ValueError: If the model has no TokenLearner.
        """
        inputs = np.asarray(normalize(images, self.trained.normalization))
        return tk.attention_maps(self.trained.model, inputs, batch_size=len(inputs))

    def _probabilities(self, batch: Batch) -> Batch:
        trained = self.trained
        logits = class_logits(
            trained.model, batch["image"], trained.normalization, trained.view_reduction
        )
        return {"probabilities": self._activation(logits)}
