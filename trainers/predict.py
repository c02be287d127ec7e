"""Predicts the classes of files: `python -m trainers.predict`, or `predict(...)`.

    python -m trainers.predict --workdir=DIR --inputs=FILES

Prints the likeliest classes of each image (JPEG, PNG, BMP, WebP) or video, as CSV or JSON; with
--output a file takes them. The CSV has --top_k rows per file, so one with --top_k=1. An input is a
file or a folder with everything below it, and each file is predicted once.

With --workdir the model answers as `trainers.evaluate` judges it: the moving averages of the
weights if there are any, the preprocessing and the class names of the training, all views of
a video. A .keras file (--model) holds none of that: --image_size, --crop_fraction,
--normalization, --stride, --activation and --exif_orientation say how it is used, --class_names
what its classes are called. Videos are read at 25 frames a second; where the training saw
records made at another rate or size, give the same --frames_per_second and --min_side.

--overlay_dir, a new or empty folder, gets pictures of what the learned tokens look at in each
file.

A file that cannot be read is named on stderr and left out; the exit status is then 1.
"""

import math
import os
from collections.abc import Sequence

import numpy as np
from absl import flags
from numpy.typing import NDArray

from trainers.configuration.checks import check
from trainers.configuration.checks import check_choice
from trainers.data.pipeline import evaluation_batch_size
from trainers.data.video_files import FRAMES_PER_SECOND
from trainers.data.video_files import MIN_SIDE
from trainers.data.video_files import import_av
from trainers.engines.flags import check_backend
from trainers.inference.flags import define_model_flags
from trainers.inference.flags import model_arguments
from trainers.inference.inputs import check_outside
from trainers.inference.inputs import find_inputs
from trainers.inference.inputs import named_inputs
from trainers.inference.keras_file import InputSettings
from trainers.inference.keras_file import load_model
from trainers.inference.output import FORMATS
from trainers.inference.output import Predictions
from trainers.inference.output import check_output
from trainers.inference.output import likeliest_classes
from trainers.inference.output import to_text
from trainers.inference.output import write_text
from trainers.inference.overlays import AttentionOverlays
from trainers.inference.reader import PredictionReader
from trainers.inference.trained_model import Predictor
from trainers.steps.losses import LOSSES
from trainers.utils import cli
from trainers.utils.errors import DataError
from trainers.utils.files import AnyPath
from trainers.utils.files import check_writable
from trainers.utils.files import folder_of
from trainers.utils.files import path_text
from trainers.utils.reporting import log_to_stderr
from trainers.utils.reporting import progress_bar

FLAGS = flags.FLAGS
BATCH_SIZE = 32


def predict(
    model_or_workdir: AnyPath,
    inputs: AnyPath | Sequence[AnyPath],
    *,
    top_k: int = 5,
    overlay_dir: AnyPath | None = None,
    output: AnyPath | None = None,
    format: str = "csv",
    checkpoint: int | None = None,
    class_names: AnyPath | None = None,
    settings: InputSettings | None = None,
    batch_size: int = BATCH_SIZE,
    views: bool = True,
    frames_per_second: float = FRAMES_PER_SECOND,
    min_side: int = MIN_SIDE,
) -> Predictions:
    """Predicts the classes of image or video files.

    Args:
        model_or_workdir: The work directory of a training, whose model answers as
            `trainers.evaluate` judges it, or a `.keras` file.
        inputs: A file or folder, or several; of a folder everything below it.
        top_k: Classes for each file; all if the model has fewer.
        overlay_dir: A new or empty folder for pictures of what the learned tokens look at.
        output: A file for the predictions, replaced if it is there.
        format: Of `output`: "csv" or "json".
        checkpoint: Step of a training; None is the newest valid one.
        class_names: A text file with a class a line.
        settings: How the inputs of a `.keras` file are made; a training has its own.
        batch_size: Images or clips a batch.
        views: Whether a video is judged by all its views, not by the clip in its middle.
        frames_per_second: Frames taken from a second of video.
        min_side: Pixels of the shorter side of a video.

    Raises:
        ConfigurationError: If an argument is wrong, or the model cannot be loaded.
        DataError: If no file can be read.
    """
    check_backend()
    for name, value in {"top_k": top_k, "batch_size": batch_size, "min_side": min_side}.items():
        check(value >= 1, f"--{name}", "at least 1", value)
    is_rate = 0 < frames_per_second < math.inf
    check(is_rate, "--frames_per_second", "a number above 0", frames_per_second)
    check_choice("--format", format, FORMATS)
    model_path, output = path_text(model_or_workdir), path_text(output)
    overlay_dir = path_text(overlay_dir)
    several = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    named = named_inputs([os.fspath(each) for each in several])
    check_output(output, named, model_path)
    if overlay_dir:
        check_outside(overlay_dir, named, "overlay_dir")

    # ------------------------------------------------------------- model and inputs
    trained = load_model(model_path, checkpoint, path_text(class_names), settings)
    if trained.takes_videos:
        import_av()
    paths = find_inputs(named, trained.takes_videos)
    check_output(output, paths, model_path)
    if output:
        check_writable(folder_of(output), f"--output={output}")
    batch_size = evaluation_batch_size(batch_size, trained.preprocessing, 1, views)
    predictor = Predictor(trained, min(batch_size, len(paths)))
    overlays = AttentionOverlays(overlay_dir, predictor) if overlay_dir else None
    reader = PredictionReader(
        trained.preprocessing, views=views, frames_per_second=frames_per_second, min_side=min_side
    )
    log_to_stderr(f"{trained.model.name} of {trained.description}; inputs: {len(paths)}")

    # ------------------------------------------------------------------- prediction
    predictions = _predict(predictor, reader, paths, top_k, overlays)
    if not predictions.names:
        raise DataError(f"No input can be read, of {len(paths)}; nothing is written.")
    if output:
        write_text(to_text(predictions, format), output)
        log_to_stderr(f"predictions: {len(predictions.names)}, in {output}")
    return predictions


def _predict(
    predictor: Predictor,
    reader: PredictionReader,
    paths: list[str],
    top_k: int,
    overlays: AttentionOverlays | None,
) -> Predictions:
    """Predicts all files that can be read, in order, and draws them."""
    class_names = predictor.trained.class_names
    names: list[str] = []
    classes: list[tuple[str, ...]] = []
    probabilities: list[NDArray[np.float32]] = []
    left_out: list[str] = []
    with progress_bar("predicting", len(paths)) as advance:

        def leave_out(error: DataError) -> None:
            left_out.append(str(error))
            log_to_stderr(f"left out: {error}")
            advance()

        for batch in reader.batches(paths, predictor.batch_size, leave_out):
            answers = predictor.probabilities([file.inputs for file in batch])
            found, values = likeliest_classes(answers, class_names, top_k)
            if overlays is not None:
                best = zip(found, values, strict=True)
                overlays.draw(batch, [f"{row[0]} {each[0]:.2f}" for row, each in best])
            names += [file.path for file in batch]
            classes += found
            probabilities += list(values)
            for _ in batch:
                advance()
    return Predictions(tuple(names), tuple(classes), np.array(probabilities), tuple(left_out))


def define_flags(flag_values: flags.FlagValues = FLAGS) -> None:
    """Defines the flags of this command."""
    values = {"flag_values": flag_values}
    define_model_flags(flag_values)
    flags.DEFINE_multi_string(
        "inputs", [], "Files and folders, with commas between; may be repeated.", **values
    )
    flags.DEFINE_integer(
        "top_k", 5, "Classes, and so rows of a CSV, for each input.", lower_bound=1, **values
    )
    flags.DEFINE_enum("format", "csv", FORMATS, "How to write them.", **values)
    cli.define_path("output", "A file, replaced if it is there; stdout if not given.", **values)
    cli.define_path(
        "overlay_dir", "A new or empty folder for pictures of what the tokens look at.", **values
    )
    flags.DEFINE_integer(
        "batch_size", BATCH_SIZE, "Images or clips a batch.", lower_bound=1, **values
    )
    flags.DEFINE_bool(
        "views", True, "Judge a video by all its views, not by the clip in its middle.", **values
    )
    flags.DEFINE_float(
        "frames_per_second", FRAMES_PER_SECOND, "Frames taken from a second of video.", **values
    )
    flags.DEFINE_integer(
        "min_side", MIN_SIDE, "Pixels of the shorter side of a video.", lower_bound=1, **values
    )
    flags.DEFINE_enum(
        "activation",
        None,
        [*LOSSES, "none"],
        "With --model: what makes probabilities of its answers; none if it ends in that itself.",
        **values,
    )
    flags.DEFINE_bool(
        "exif_orientation",
        False,
        "With --model: turn images upright, as the EXIF tag of a camera says.",
        **values,
    )


def main() -> None:
    """Predicts as the flags say, and prints the predictions if no file takes them."""
    predictions = predict(
        FLAGS.workdir or FLAGS.model,
        FLAGS.inputs,
        top_k=FLAGS.top_k,
        overlay_dir=FLAGS.overlay_dir,
        output=FLAGS.output,
        format=FLAGS.format,
        batch_size=FLAGS.batch_size,
        views=FLAGS.views,
        frames_per_second=FLAGS.frames_per_second,
        min_side=FLAGS.min_side,
        **model_arguments(FLAGS),
    )
    if not FLAGS.output:
        write_text(to_text(predictions, FLAGS.format))
    if predictions.left_out:
        total = len(predictions.names) + len(predictions.left_out)
        raise DataError(
            f"{len(predictions.left_out)} of {total} inputs cannot be read and are left out."
        )


if __name__ == "__main__":
    define_flags()
    cli.run(main, cli.parse_known_flags)
