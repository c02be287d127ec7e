"""Exports a trained model: `python -m trainers.export --workdir=DIR --format=F --output=PATH`.

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

from pathlib import Path

import tensorflow as tf
from absl import flags

from trainers.checkpointing.workdir import read_class_names
from trainers.checkpointing.workdir import read_configuration
from trainers.checkpointing.workdir import read_file_splits
from trainers.configuration.configuration import base_config
from trainers.data.preprocessing.examples import check_kind
from trainers.data.sources import Source
from trainers.data.sources import make_source
from trainers.engines.flags import check_tensorflow
from trainers.evaluation.sets import configured_sets
from trainers.evaluation.sets import parse_sets
from trainers.experiment import TrainedModel
from trainers.experiment import make_records
from trainers.exporting.check_cases import read_examples
from trainers.exporting.check_cases import saved_model_cases
from trainers.exporting.check_cases import single_cases
from trainers.exporting.formats import FORMATS
from trainers.exporting.formats import check_requirements
from trainers.exporting.formats import write_litert
from trainers.exporting.formats import write_onnx
from trainers.exporting.metadata import Metadata
from trainers.exporting.metadata import describe_export
from trainers.exporting.metadata import to_json
from trainers.exporting.output import check_output
from trainers.exporting.output import json_path
from trainers.exporting.output import partial_output
from trainers.exporting.runtime_check import check_differences
from trainers.exporting.runtime_check import check_in_runtime
from trainers.exporting.saved_model import write_saved_model
from trainers.exporting.served_model import ServedModel
from trainers.exporting.stablehlo import check_stablehlo_normalization
from trainers.exporting.stablehlo import write_stablehlo
from trainers.inference.flags import check_model_flags
from trainers.inference.flags import define_model_flags
from trainers.inference.flags import input_settings
from trainers.inference.keras_file import load_keras_file
from trainers.inference.trained_model import load_workdir
from trainers.utils import cli
from trainers.utils.errors import ConfigurationError
from trainers.utils.reporting import show_warnings_plainly
from trainers.utils.signals import StopRequest

FLAGS = flags.FLAGS
INPUTS = ("normalized", "uint8")
# Protocol buffers and FlatBuffers count bytes in 31 bits.
_LARGEST_FILE = 2**31


def define_flags(flag_values: flags.FlagValues = FLAGS) -> None:
    """Defines the flags of this command."""
    values = {"flag_values": flag_values}
    define_model_flags(flag_values)
    flags.DEFINE_enum("format", None, FORMATS, "What to write.", **values)
    cli.define_path("output", "The file, of saved_model the folder; must not exist.", **values)
    flags.DEFINE_enum(
        "input", "normalized", INPUTS, "What a file takes; a SavedModel takes both.", **values
    )
    flags.DEFINE_string(
        "eval_set", None, "To compare on: [SOURCE:]SPLIT[@DATA_DIR], such as digits:test.", **values
    )


def main() -> None:
    """Exports a model and checks the export; every stage is named once, in order."""
    show_warnings_plainly()
    StopRequest().install()
    check_tensorflow("trainers.export")
    _check_flags()
    check_requirements(FLAGS.format)
    # Float32 results differ on accelerators.
    tf.config.set_visible_devices([], "GPU")

    # ---------------------------------------------------------- model and examples
    trained = _load()
    served = ServedModel(trained)
    _check_model(served)
    source = _open_set()
    check_kind(source, served.preprocessing)
    examples = read_examples(source, served)
    of_bytes = FLAGS.input == "uint8"
    if FLAGS.format == "saved_model":
        cases = saved_model_cases(examples, served)
        metadata = describe_export(trained, "uint8 of any size")
    else:
        cases = single_cases(examples, served, of_bytes)
        metadata = describe_export(trained, FLAGS.input)
    print(
        f"{trained.model.name} of {trained.description}; compared on {len(examples)} examples of "
        f"{source.name}/{source.split}",
        flush=True,
    )

    # ------------------------------------------------------------ export and check
    with partial_output(FLAGS.output) as path:
        _write(served, of_bytes, path, metadata)
        Path(json_path(path)).write_bytes(to_json(metadata))
        differences = check_in_runtime(FLAGS.format, path, cases)
        for name, difference in differences.items():
            print(f"{name}: relative difference {difference:.1e}", flush=True)
        check_differences(differences)
    print(f"{FLAGS.format}: {FLAGS.output}, described in {json_path(FLAGS.output)}", flush=True)


def _check_flags() -> None:
    """Checks that the flags agree."""
    check_model_flags(FLAGS)
    if not FLAGS.format:
        raise ConfigurationError(f"Expected --format={'|'.join(FORMATS)}. Received none.")
    if FLAGS.format == "saved_model" and FLAGS["input"].present:
        raise ConfigurationError(
            "--input goes with a format of one function. A saved_model has both. Leave it out."
        )
    if FLAGS.model and not FLAGS.eval_set:
        raise ConfigurationError(
            "--model needs examples to compare on: --eval_set=SOURCE:SPLIT[@DATA_DIR], such as "
            "folder:validation@DATA. Received none."
        )
    check_output(FLAGS.output)


def _load() -> TrainedModel:
    if FLAGS.workdir:
        return load_workdir(FLAGS.workdir, FLAGS.checkpoint, FLAGS.class_names)
    return load_keras_file(FLAGS.model, input_settings(FLAGS), FLAGS.class_names)


def _check_model(served: ServedModel) -> None:
    """Checks that the format can hold the model."""
    if FLAGS.format == "saved_model":
        return
    if served.weight_bytes >= _LARGEST_FILE:
        raise ConfigurationError(
            f"--format={FLAGS.format} holds less than 2 GiB. Received a model of "
            f"{served.weight_bytes / 2**30:.1f} GiB. Use --format=saved_model."
        )
    if FLAGS.format == "stablehlo" and FLAGS.input == "uint8":
        check_stablehlo_normalization(served.normalization)


def _open_set() -> Source:
    """Returns the set to compare on: that of --eval_set, or the training's first."""
    config = read_configuration(FLAGS.workdir)[0] if FLAGS.workdir else base_config()
    class_names = read_class_names(FLAGS.workdir) if FLAGS.workdir else None
    sets = parse_sets([FLAGS.eval_set], config.data) if FLAGS.eval_set else None
    first = (sets or configured_sets(config.data))[0]
    file_splits = read_file_splits(FLAGS.workdir) if FLAGS.workdir else None
    records = make_records(config)
    return make_source(first.source, first.split, first.data_dir, class_names, records, file_splits)


def _write(served: ServedModel, of_bytes: bool, path: str, metadata: Metadata) -> None:
    """Writes the format that the flag asks for."""
    if FLAGS.format == "saved_model":
        write_saved_model(served, path)
        return
    function = served.logits_of_pixels if of_bytes else served.logits
    dtype = tf.uint8 if of_bytes else tf.float32
    spec = tf.TensorSpec((None, *served.input_shape), dtype)
    if FLAGS.format == "onnx":
        write_onnx(served, function, spec, path, metadata)
    elif FLAGS.format == "litert":
        write_litert(served, function, spec, path, metadata)
    else:
        write_stablehlo(served, spec, path)


if __name__ == "__main__":
    define_flags()
    cli.run(main, cli.parse_known_flags)
