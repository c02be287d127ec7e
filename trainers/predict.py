"""Predicts the classes of files: `python -m trainers.predict --workdir=DIR --inputs=FILES`.

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

A file that cannot be read is named on stderr and left out; the exit status is 1 then.
"""

import math

from absl import flags

from trainers.data.pipeline import evaluation_batch_size
from trainers.data.video_files import FRAMES_PER_SECOND
from trainers.data.video_files import MIN_SIDE
from trainers.data.video_files import import_av
from trainers.engines.flags import check_backend
from trainers.experiment import TrainedModel
from trainers.inference.flags import check_model_flags
from trainers.inference.flags import define_model_flags
from trainers.inference.flags import input_settings
from trainers.inference.inputs import check_outside
from trainers.inference.inputs import find_inputs
from trainers.inference.inputs import named_inputs
from trainers.inference.keras_file import load_keras_file
from trainers.inference.output import FORMATS
from trainers.inference.output import Prediction
from trainers.inference.output import check_output
from trainers.inference.output import likeliest_classes
from trainers.inference.output import to_text
from trainers.inference.output import write_text
from trainers.inference.overlays import AttentionOverlays
from trainers.inference.predictor import Predictor
from trainers.inference.reader import PredictionReader
from trainers.inference.trained_model import load_workdir
from trainers.steps.losses import LOSSES
from trainers.utils import cli
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.files import check_writable
from trainers.utils.files import folder_of
from trainers.utils.reporting import log_to_stderr
from trainers.utils.reporting import progress_bar
from trainers.utils.reporting import show_warnings_plainly

FLAGS = flags.FLAGS
BATCH_SIZE = 32


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
    """Loads a model and predicts; every stage is named once, in order."""
    show_warnings_plainly()
    check_backend()
    _check_flags()
    named = named_inputs(FLAGS.inputs)
    check_output(FLAGS.output, named, FLAGS.model)
    if FLAGS.overlay_dir:
        check_outside(FLAGS.overlay_dir, named, "overlay_dir")

    # ------------------------------------------------------------- model and inputs
    trained = _load()
    if trained.takes_videos:
        import_av()
    paths = find_inputs(named, trained.takes_videos)
    check_output(FLAGS.output, paths, FLAGS.model)
    if FLAGS.output:
        check_writable(folder_of(FLAGS.output), f"--output={FLAGS.output}")
    predictor = Predictor(trained)
    overlays = AttentionOverlays(FLAGS.overlay_dir, predictor) if FLAGS.overlay_dir else None
    log_to_stderr(f"{trained.model.name} of {trained.description}; inputs: {len(paths)}")

    # ------------------------------------------------------------------- prediction
    predictions = _predict(predictor, paths, overlays)
    num_bad = len(paths) - len(predictions)
    if num_bad == len(paths):
        raise DataError(f"No input can be read, of {len(paths)}; nothing is written.")
    write_text(to_text(predictions, FLAGS.format), FLAGS.output)
    if FLAGS.output:
        log_to_stderr(f"predictions: {len(predictions)}, in {FLAGS.output}")
    if num_bad:
        raise DataError(f"{num_bad} of {len(paths)} inputs cannot be read and are left out.")


def _check_flags() -> None:
    """Checks that the flags agree."""
    check_model_flags(FLAGS)
    if not 0 < FLAGS.frames_per_second < math.inf:
        raise ConfigurationError(
            f"--frames_per_second: expected a number above 0. Received {FLAGS.frames_per_second}."
        )


def _load() -> TrainedModel:
    if FLAGS.workdir:
        return load_workdir(FLAGS.workdir, FLAGS.checkpoint, FLAGS.class_names)
    return load_keras_file(FLAGS.model, input_settings(FLAGS), FLAGS.class_names)


def _predict(
    predictor: Predictor, paths: list[str], overlays: AttentionOverlays | None
) -> list[Prediction]:
    """Predicts all files that can be read, in order, and draws them."""
    trained = predictor.trained
    reader = PredictionReader(
        trained.preprocessing,
        views=FLAGS.views,
        frames_per_second=FLAGS.frames_per_second,
        min_side=FLAGS.min_side,
    )
    batch_size = evaluation_batch_size(FLAGS.batch_size, trained.preprocessing, 1, FLAGS.views)
    predictions: list[Prediction] = []
    with progress_bar("predicting", len(paths)) as advance:

        def leave_out(error: DataError) -> None:
            log_to_stderr(f"left out: {error}")
            advance()

        for batch in reader.batches(paths, min(batch_size, len(paths)), leave_out):
            found = predictor.probabilities(batch.inputs, len(batch.files))
            rows = [
                Prediction(file.path, likeliest_classes(each, trained.class_names, FLAGS.top_k))
                for file, each in zip(batch.files, found, strict=True)
            ]
            if overlays is not None:
                overlays.draw(batch.files, rows)
            predictions += rows
            for _ in rows:
                advance()
    return predictions


if __name__ == "__main__":
    define_flags()
    cli.run(main, cli.parse_known_flags)
