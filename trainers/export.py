"""Exports a trained model: `python -m trainers.export`, or `export(...)`.

    python -m trainers.export --workdir=DIR --format=F --output=PATH

Formats: saved_model (TensorFlow: a folder with two signatures), onnx, litert (TensorFlow Lite)
and stablehlo (a program of jax.export). All are float32 and take batches of any size. A
SavedModel takes uint8 images of any size, which it resizes as the training's evaluation does and
normalises, or normalised floats. The other formats hold one function: of normalised floats, or
with --input=uint8 of bytes that are resized already. All return logits.

With --workdir the weights are those that `trainers.evaluate` judges: the moving averages if
there are any. A .keras file (--model) does not say how its inputs are made: --image_size,
--crop_fraction, --normalization and --stride do, and --class_names names its classes.

OUTPUT.json beside the export holds class names, preprocessing and normalization; ONNX and LiteRT
files hold the same as metadata.

The export is loaded in its own runtime, in a process without Keras and without this
project, and compared with Keras on examples of an evaluation set: the training's first one, or
--eval_set=[SOURCE:]SPLIT[@DATA_DIR]. Above a relative difference of 1e-4 nothing is left at
--output, and the exit status is 1. See docs/export.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf
from absl import flags

from trainers.checkpointing.workdir import read_class_names
from trainers.checkpointing.workdir import read_configuration
from trainers.checkpointing.workdir import read_file_splits
from trainers.configuration.configuration import base_config
from trainers.data.preprocessing.examples import check_kind
from trainers.data.preprocessing.normalization import channel_statistics
from trainers.data.sources import Source
from trainers.data.sources import make_source
from trainers.engines.flags import check_tensorflow
from trainers.evaluation.sets import configured_sets
from trainers.evaluation.sets import parse_sets
from trainers.experiment import make_records
from trainers.exporting.check_cases import read_examples
from trainers.exporting.check_cases import saved_model_cases
from trainers.exporting.check_cases import single_cases
from trainers.exporting.formats import FORMATS
from trainers.exporting.formats import check_requirements
from trainers.exporting.formats import write_litert
from trainers.exporting.formats import write_onnx
from trainers.exporting.formats import write_saved_model
from trainers.exporting.formats import write_stablehlo
from trainers.exporting.output import Metadata
from trainers.exporting.output import check_output
from trainers.exporting.output import describe_export
from trainers.exporting.output import json_path
from trainers.exporting.output import partial_output
from trainers.exporting.runtime_check import check_differences
from trainers.exporting.runtime_check import check_in_runtime
from trainers.exporting.served_model import ServedModel
from trainers.inference.flags import define_model_flags
from trainers.inference.flags import model_arguments
from trainers.inference.keras_file import InputSettings
from trainers.inference.keras_file import is_keras_file
from trainers.inference.keras_file import load_model
from trainers.utils import cli
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean
from trainers.utils.files import AnyPath
from trainers.utils.files import path_text
from trainers.utils.signals import StopRequest

FLAGS = flags.FLAGS
INPUTS = ("normalized", "uint8")
# Protocol buffers and FlatBuffers count bytes in 31 bits.
_LARGEST_FILE = 2**31


def export(
    workdir: AnyPath,
    format: str,
    output: AnyPath,
    *,
    input: str | None = None,
    eval_set: str | None = None,
    checkpoint: int | None = None,
    class_names: AnyPath | None = None,
    settings: InputSettings | None = None,
) -> Path:
    """Exports a trained model and checks the export in its own runtime.

    Args:
        workdir: The work directory of a training, or a `.keras` file.
        format: "saved_model", "onnx", "litert" or "stablehlo".
        output: The file, of saved_model the folder, which must not exist.
        input: What a file takes: "normalized" floats, the default, or "uint8"; a SavedModel takes
            both.
        eval_set: To compare on: "[SOURCE:]SPLIT[@DATA_DIR]"; None is the training's first one.
        checkpoint: Step of a training; None is the newest valid one.
        class_names: A text file with a class a line.
        settings: How the inputs of a `.keras` file are made; a training has its own.

    Returns:
        `output`.

    Raises:
        ConfigurationError: If an argument is wrong, or a package or the data are missing.
        ExportError: If the export's outputs differ from Keras'; nothing is left of it.
    """
    check_tensorflow("trainers.export")
    path, target = path_text(workdir), path_text(output)
    workdir_path = None if is_keras_file(path) else path
    _check_arguments(format, input, workdir_path, eval_set)
    check_output(target)
    check_requirements(format)
    with StopRequest().listening(), _full_float32():
        # ------------------------------------------------------ model and examples
        served = ServedModel.of(load_model(path, checkpoint, path_text(class_names), settings))
        of_bytes = input == "uint8"
        _check_model(served, format, of_bytes)
        source = _open_set(workdir_path, eval_set)
        check_kind(source, served.preprocessing)
        examples = read_examples(source, served)
        if format == "saved_model":
            cases = saved_model_cases(examples, served)
            metadata = describe_export(served, "uint8 of any size")
        else:
            cases = single_cases(examples, served, of_bytes)
            metadata = describe_export(served, input or INPUTS[0])
        print(
            f"{served.model.name} of {served.description}; compared on {len(examples)} "
            f"examples of {source.name}/{source.split}",
            flush=True,
        )

        # -------------------------------------------------------- export and check
        with partial_output(target, metadata) as partial:
            _write(served, format, of_bytes, partial, metadata)
            differences = check_in_runtime(format, partial, cases)
            for name, difference in differences.items():
                print(f"{name}: relative difference {difference:.1e}", flush=True)
            check_differences(differences)
    print(f"{format}: {target}, described in {json_path(target)}", flush=True)
    return Path(target)


@contextmanager
def _full_float32() -> Iterator[None]:
    """Keeps GPUs from rounding float32 to TensorFloat-32."""
    settings = tf.config.experimental
    before = settings.tensor_float_32_execution_enabled()
    settings.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        settings.enable_tensor_float_32_execution(before)


def _check_arguments(
    format: str | None, input: str | None, workdir: str | None, eval_set: str | None
) -> None:
    """Checks that the arguments agree; `workdir` is None for a `.keras` file."""
    if format not in FORMATS:
        raise ConfigurationError(
            f"Expected --format={'|'.join(FORMATS)}. Received {format or 'none'}."
            + (did_you_mean(format, FORMATS) if format else "")
        )
    if input not in (None, *INPUTS):
        raise ConfigurationError(f"Expected --input={'|'.join(INPUTS)}. Received {input}.")
    if format == "saved_model" and input is not None:
        raise ConfigurationError(
            "--input goes with a format of one function. A saved_model has both. Leave it out."
        )
    if workdir is None and not eval_set:
        raise ConfigurationError(
            "--model needs examples to compare on: --eval_set=SOURCE:SPLIT[@DATA_DIR], such as "
            "folder:validation@DATA. Received none."
        )


def _check_model(served: ServedModel, format: str, of_bytes: bool) -> None:
    """Checks that the format can hold the model."""
    if format == "saved_model":
        return
    weight_bytes = 4 * served.model.count_params()
    if weight_bytes >= _LARGEST_FILE:
        raise ConfigurationError(
            f"--format={format} holds less than 2 GiB. Received a model of "
            f"{weight_bytes / 2**30:.1f} GiB. Use --format=saved_model."
        )
    if format == "stablehlo" and of_bytes and channel_statistics(served.normalization) is None:
        raise ConfigurationError(
            f"--format=stablehlo --input=uint8 cannot include data.normalization="
            f"{served.normalization!r}, which takes the statistics of each clip. Use "
            "--input=normalized, and normalise before."
        )


def _open_set(workdir: str | None, eval_set: str | None) -> Source:
    """Returns the set to compare on: the given one, or the training's first."""
    config, class_names, file_splits = base_config(), None, None
    if workdir is not None:
        config, _ = read_configuration(workdir)
        class_names = read_class_names(workdir)
        file_splits = read_file_splits(workdir)
    first = (parse_sets([eval_set], config.data) if eval_set else configured_sets(config.data))[0]
    records = make_records(config)
    return make_source(first.source, first.split, first.data_dir, class_names, records, file_splits)


def _write(served: ServedModel, format: str, of_bytes: bool, path: str, metadata: Metadata) -> None:
    if format == "saved_model":
        write_saved_model(served, path)
        return
    function = served.logits_of_pixels if of_bytes else served.logits
    dtype = tf.uint8 if of_bytes else tf.float32
    spec = tf.TensorSpec((None, *served.input_shape), dtype)
    if format == "onnx":
        write_onnx(served, function, spec, path, metadata)
    elif format == "litert":
        write_litert(served, function, spec, path, metadata)
    else:
        write_stablehlo(served, spec, path)


def define_flags(flag_values: flags.FlagValues = FLAGS) -> None:
    """Defines the flags of this command."""
    values = {"flag_values": flag_values}
    define_model_flags(flag_values)
    flags.DEFINE_enum("format", None, FORMATS, "What to write.", **values)
    cli.define_path("output", "The file, of saved_model the folder; must not exist.", **values)
    flags.DEFINE_enum(
        "input", None, INPUTS, "What a file takes: normalized if not given.", **values
    )
    flags.DEFINE_string(
        "eval_set", None, "To compare on: [SOURCE:]SPLIT[@DATA_DIR], such as digits:test.", **values
    )


def main() -> None:
    """Exports as the flags say."""
    model = model_arguments(FLAGS)
    tf.config.set_visible_devices([], "GPU")  # results differ on accelerators
    export(
        FLAGS.workdir or FLAGS.model,
        FLAGS.format,
        FLAGS.output,
        input=FLAGS.input,
        eval_set=FLAGS.eval_set,
        **model,
    )


if __name__ == "__main__":
    define_flags()
    cli.run(main, cli.parse_known_flags)
