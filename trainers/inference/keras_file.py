"""Loads a `.keras` file; settings describe its preprocessing, which the file does not."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import keras

import tokenlearner_keras as tk
from trainers.checkpointing.keras_archive import load_keras_archive
from trainers.checkpointing.workdir import read_class_names
from trainers.configuration.checks import check
from trainers.configuration.data_options import PreprocessingConfig
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.configuration.data_options import check_normalization
from trainers.data.preprocessing.examples import Preprocessing
from trainers.experiment import TrainedModel
from trainers.inference.trained_model import choose_class_names
from trainers.inference.trained_model import load_workdir
from trainers.steps.logits import make_view_reduction
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import one_line
from trainers.utils.files import folder_of
from trainers.utils.reporting import log_to_stderr

_RANK_OF_IMAGES = 4  # (batch, height, width, channels)
_RANK_OF_VIDEOS = 5  # (batch, frames, height, width, channels)


@dataclasses.dataclass(frozen=True)
class InputSettings:
    """How to make the inputs of a `.keras` file, and how to read its outputs.

    Args:
        image_size: Pixels of a side; None is what the model takes.
        crop_fraction: Share of the largest window that fits an image, in the middle; of a video the
            side of the model's window over the shorter side it is resized to.
        normalization: See `trainers.data.preprocessing.normalization.normalize`.
        stride: Distance of two frames of a clip in the video, in frames.
        activation: Makes probabilities of the outputs: "softmax", "sigmoid" or "none". None is
            softmax, or nothing where the model itself ends in one of them.
        exif_orientation: Whether images are turned as the EXIF tag of a camera says.
    """

    image_size: int | None = None
    crop_fraction: float = 0.875
    normalization: str = "unit"
    stride: int = 2
    activation: str | None = None
    exif_orientation: bool = False


def is_keras_file(path: str) -> bool:
    """Returns whether a path names a `.keras` file, not a work directory."""
    return path.endswith(".keras") and not files.is_directory(path)


def load_model(
    path: str, checkpoint: int | None, class_names_file: str, settings: InputSettings | None
) -> TrainedModel:
    """Returns the model of a work directory or of a `.keras` file.

    Args:
        path: The work directory or the file.
        checkpoint: Step of a training; None is the newest valid one.
        class_names_file: As for `choose_class_names`.
        settings: How the inputs of a `.keras` file are made; a work directory has its own.

    Raises:
        ConfigurationError: If it cannot be loaded, or an argument is of the other kind.
        DataError: If the checkpoint asked for is damaged.
    """
    if is_keras_file(path):
        if checkpoint is not None:
            raise ConfigurationError(
                f"{path}: a .keras file has no checkpoints. Received checkpoint={checkpoint}. "
                "Leave it out, or pass a work directory."
            )
        return load_keras_file(path, settings or InputSettings(), class_names_file)
    if settings is not None:
        raise ConfigurationError(
            f"{path}: a work directory has its own settings, and those of a .keras file were also "
            "given. Leave them out, or pass a .keras file."
        )
    return load_workdir(path, checkpoint, class_names_file)


def load_keras_file(path: str, settings: InputSettings, class_names_file: str = "") -> TrainedModel:
    """Returns the model of a file, local or on a file system of TensorFlow.

    The model has one input of images or clips and one output per class. A work directory's
    `model.keras` has the class names of the `config.json` beside it. For `class_names_file` see
    `choose_class_names`.

    Raises:
        ConfigurationError: If the file is missing or cannot be loaded, or the model or the settings
            do not fit.
    """
    model = _load(path)
    shape, num_classes = _checked_shapes(path, model)
    preprocessing = _preprocessing(path, shape, settings)
    clips = isinstance(preprocessing, VideoPreprocessingConfig)
    check_normalization(settings.normalization, clips=clips)
    known = _class_names_beside(path)
    if known is not None and len(known) != num_classes:
        known = None
    return TrainedModel(
        model=model,
        preprocessing=preprocessing,
        normalization=settings.normalization,
        activation=settings.activation or _missing_activation(model),
        view_reduction=make_view_reduction("logits", "softmax"),
        class_names=choose_class_names(num_classes, class_names_file, known),
        description=path,
    )


def _load(path: str) -> keras.Model:
    if not files.exists(path):
        raise ConfigurationError(f"--model={path}: there is no such file.")
    with tempfile.TemporaryDirectory() as folder:
        local = path
        if files.is_remote(path):
            # Keras reads only local files.
            local = str(Path(folder) / "model.keras")
            Path(local).write_bytes(files.read(path))
        try:
            return load_keras_archive(local)
        # A layer of another package may raise anything when it is built.
        except Exception as error:
            reason = one_line(error)
            raise ConfigurationError(
                f"--model={path} cannot be loaded ({type(error).__name__}: {reason}). Models of "
                f"tokenlearner_keras {tk.__version__} and of Keras' own layers can."
            ) from error


def _checked_shapes(path: str, model: keras.Model) -> tuple[tuple[int | None, ...], int]:
    """Returns the shape of the input, and the number of classes."""
    inputs = [tuple(each.shape) for each in getattr(model, "inputs", None) or []]
    outputs = [tuple(each.shape) for each in getattr(model, "outputs", None) or []]
    fits = len(inputs) == len(outputs) == 1
    fits = fits and len(inputs[0]) in (_RANK_OF_IMAGES, _RANK_OF_VIDEOS)
    fits = fits and inputs[0][-1] in (1, 3) and len(outputs[0]) == 2 and outputs[0][1] is not None
    if not fits:
        raise ConfigurationError(
            f"--model={path}: expected a functional model from (batch, height, width, 3) or "
            "(batch, frames, height, width, 3), with 1 channel of grey, to (batch, classes). "
            "Received one from "
            f"{_listed(inputs)} to {_listed(outputs)}."
        )
    return inputs[0], int(outputs[0][1])


def _listed(shapes: list[tuple[int | None, ...]]) -> str:
    return " and ".join(map(str, shapes)) or "unknown shapes"


def _missing_activation(model: keras.Model) -> str:
    """Returns the activation that gives probabilities: "none" if the model ends in one."""
    last: Any = model
    while isinstance(last, keras.Model):
        last = last.outputs[0]._keras_history.operation
    done = (keras.activations.softmax, keras.activations.sigmoid)
    # Keras has a layer and an operation of these names.
    answers = type(last).__name__ in ("Softmax", "Sigmoid")
    answers = answers or getattr(last, "activation", None) in done
    return "none" if answers else "softmax"


def _preprocessing(
    path: str, shape: tuple[int | None, ...], settings: InputSettings
) -> Preprocessing:
    fraction = settings.crop_fraction
    check(0 < fraction <= 1, "--crop_fraction", "more than 0, at most 1", fraction)
    size = _image_size(path, shape[-3:-1], settings.image_size)
    if len(shape) == _RANK_OF_IMAGES:
        return PreprocessingConfig(
            size,
            eval_crop_fraction=fraction,
            exif_orientation=settings.exif_orientation,
            channels=shape[-1] or 3,
        )
    if shape[1] is None:
        raise ConfigurationError(
            f"--model={path} does not say how many frames a clip has: its input is {shape}. "
            "Save one that does."
        )
    return VideoPreprocessingConfig(
        size,
        shape[1],
        stride=settings.stride,
        min_resize=round(min(size) / fraction),
        channels=shape[-1] or 3,
    )


def _image_size(path: str, own: tuple[int | None, ...], wanted: int | None) -> tuple[int, int]:
    """Returns height and width, of the model or of --image_size."""
    height, width = (side or wanted for side in own)
    if height is None or width is None:
        raise ConfigurationError(
            f"--model={path} takes images of any size. Say which: --image_size=PIXELS."
        )
    if wanted not in (None, height) or wanted not in (None, width):
        raise ConfigurationError(
            f"--image_size={wanted}: the model takes {height}x{width} pixels. Leave it out, or "
            "save a model of another size (tk.resize_model)."
        )
    return height, width


def _class_names_beside(path: str) -> tuple[str, ...] | None:
    """Returns the class names of the work directory that a `model.keras` lies in, if any."""
    folder = folder_of(path)
    if path.rpartition("/")[2] != "model.keras":
        return None
    try:
        names = read_class_names(folder)
    except (ConfigurationError, KeyError, OSError, TypeError):
        return None  # another program's config.json, or none
    log_to_stderr(
        f"warning: {path} lies in a work directory; --workdir={folder} also takes the "
        "preprocessing of its training"
    )
    return names
