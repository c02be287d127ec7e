"""Makes TFRecords of videos, one split per run:

    python -m trainers.make_video_records --csv=FILE --output=DIR [--shards=N] [--split=train]

The CSV file names parts of video files with their labels, see
`trainers/data/conversion/video_list.py`:

    path,start,end,label
    videos/a.mp4,0,9.5,archery
    videos/b.mp4,,,running;throwing

Paths start at the folder of the CSV file, and times are in seconds. An end beyond the end of the
video means the end of the video. The first run makes the label map of the output folder,
`labels.txt`, from all labels of its list, or from --labels. Every further split
(--split=validation, --split=test) must use this map, so that a number means the same class in
all of them. `dataset.json` says how many classes there are and whether a video may have several:
set --multi_label if the first list happens to have one label in each row. It also says
--frames_per_second and --min_side, which all splits share. Both files are written again while
the folder holds no shard and no other split is being converted. Two splits may be converted at
the same time, where file locks exist; on gs:// wait for the first one to write its label map.

Train on the result by --config.data.source=records --config.data.data_dir=DIR. Without --shards
there is one file for each 256 rows. The same command run again resumes where it was killed. It
writes files again whose rows have been corrected in the list, if the list has as many rows as
before and at least one finished file stays as it is. It also writes files again that are cut off
or removed, and those that lack a row, left out by --skip_bad, which can be read now. The exit
status is 0 when the split is complete, even if --skip_bad left out rows.
"""

import contextlib
import dataclasses
import math

from absl import flags

from trainers.data.conversion.lock import conversion_lock
from trainers.data.conversion.lock import label_map_is_used
from trainers.data.conversion.lock import label_map_lock
from trainers.data.conversion.video_list import VideoRow
from trainers.data.conversion.video_list import read_video_list
from trainers.data.conversion.writer import Conversion
from trainers.data.conversion.writer import ConversionOptions
from trainers.data.records import manifest
from trainers.data.records.manifest import Description
from trainers.data.sources import check_source
from trainers.data.video_files import FRAMES_PER_SECOND
from trainers.data.video_files import MIN_SIDE
from trainers.data.video_files import import_av
from trainers.utils import cli
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.errors import Interrupted
from trainers.utils.errors import did_you_mean
from trainers.utils.reporting import progress_bar
from trainers.utils.signals import StopRequest
from trainers.utils.subprocesses import default_workers

FLAGS = flags.FLAGS
_ROWS_PER_SHARD = 256
_MISTAKES_SHOWN = 3
_CONVERT_ALL = (
    "or convert all splits again: to another --output, or to this one without its *.tfrecord-*, "
    f"*.conversion.json, {manifest.LABELS} and {manifest.DESCRIPTION}"
)


def define_flags(flag_values: flags.FlagValues = FLAGS) -> None:
    """Defines the command's flags."""
    values = {"flag_values": flag_values}
    cli.define_path("csv", "A CSV file: path,start,end,label.", flag_values)
    cli.define_path("output", "The folder of the records; made if necessary.", flag_values)
    flags.DEFINE_integer(
        "shards",
        None,
        f"Files of the split; one for {_ROWS_PER_SHARD} rows if not given.",
        **values,
    )
    flags.DEFINE_string("split", "train", "train, validation or test.", **values)
    flags.DEFINE_float(
        "frames_per_second", FRAMES_PER_SECOND, "Frames taken from a second.", **values
    )
    flags.DEFINE_integer(
        "min_side", MIN_SIDE, "Pixels of the shorter side; never enlarged.", **values
    )
    flags.DEFINE_integer("jpeg_quality", 95, "1 to 100.", **values)
    cli.define_path("labels", "A text file, one class per line, for the first run.", flag_values)
    flags.DEFINE_bool("multi_label", None, "Videos may have several labels, or none.", **values)
    flags.DEFINE_bool("skip_bad", False, "Leave out rows that cannot be read; list them.", **values)
    flags.DEFINE_integer("workers", default_workers(), "Shards written at the same time.", **values)


def main() -> None:
    """Converts one split."""
    with StopRequest().listening(), contextlib.ExitStack() as stack:
        _check_flags()
        import_av()
        rows = read_video_list(FLAGS.csv)
        if not files.exists(FLAGS.output):
            _plan(rows)  # a mistake in the list leaves no folder behind
            files.make_directories(FLAGS.output)
        with label_map_lock(FLAGS.output):
            stack.enter_context(conversion_lock(FLAGS.output, FLAGS.split))
            conversion, description = _plan(rows)
            manifest.write_labels(FLAGS.output, tuple(conversion.label_numbers))
            manifest.write_description(FLAGS.output, description)
        _convert(conversion)


def _convert(conversion: Conversion) -> None:
    try:
        total = len(conversion.rows)
        with progress_bar(FLAGS.split, total, conversion.rows_done) as advance:
            conversion.run(FLAGS.workers, advance)
    except Interrupted as error:
        raise Interrupted(
            f"stopped by signal {error.signal_number}; the same command resumes after the last "
            "file that was finished",
            error.signal_number,
        ) from error
    for number, reason in conversion.skipped:
        print(f"left out row {number}: {reason}")
    print(
        f"{FLAGS.split}: {conversion.num_examples} videos of {len(conversion.label_numbers)} "
        f"classes in {conversion.options.num_shards} files, {len(conversion.skipped)} rows left "
        f"out: {FLAGS.output}",
        flush=True,
    )


def sorted_labels(rows: list[VideoRow]) -> tuple[str, ...]:
    """Returns all labels of a list: numbers in numerical order, then names in alphabetical order.

    Raises ConfigurationError if no row has a label.
    """
    names = {label for row in rows for label in row.labels}
    if not names:
        raise ConfigurationError(f"--csv={FLAGS.csv} has no labels. Name one in each row.")
    alphabetical = sorted(names)
    numbers = sorted((name for name in alphabetical if name.isdecimal()), key=int)
    return (*numbers, *(name for name in alphabetical if not name.isdecimal()))


def _check_flags() -> None:
    for name in ("csv", "output"):
        if not FLAGS[name].value:
            raise ConfigurationError(f"Expected --csv=FILE --output=DIR. Received no --{name}.")
    if files.exists(FLAGS.output) and not files.is_directory(FLAGS.output):
        raise ConfigurationError(
            f"--output={FLAGS.output}: expected a folder, received a file. Name another one; it "
            "is made if necessary."
        )
    check_source("records", FLAGS.split)
    if FLAGS.workers < 1:
        raise ConfigurationError(f"--workers: expected 1 or more, received {FLAGS.workers}.")


def _plan(rows: list[VideoRow]) -> tuple[Conversion, Description]:
    """Returns the conversion, and what all splits share; checks all of it and writes nothing."""
    num_shards = math.ceil(len(rows) / _ROWS_PER_SHARD) if FLAGS.shards is None else FLAGS.shards
    options = ConversionOptions(
        num_shards, FLAGS.frames_per_second, FLAGS.min_side, FLAGS.jpeg_quality
    )
    begun = label_map_is_used(FLAGS.output, FLAGS.split)
    labels = _label_map(rows, manifest.read_labels(FLAGS.output) if begun else None)
    description = _description(rows, labels, options, begun)
    _check_labels(rows, labels, description.multi_label, begun)
    rows = _with_missing_labels(rows, description.multi_label)
    numbers = {label: number for number, label in enumerate(labels)}
    conversion = Conversion(
        FLAGS.csv, rows, numbers, FLAGS.output, FLAGS.split, options, FLAGS.skip_bad
    )
    conversion.look_for_files()
    _check_rows(conversion.rows)
    return conversion, description


def _label_map(rows: list[VideoRow], written: tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns the names of the classes: of the folder, of --labels, or of the list."""
    given = None
    if FLAGS.labels:
        try:
            given = manifest.read_label_file(FLAGS.labels)
        except OSError as error:
            raise ConfigurationError(
                f"--labels={FLAGS.labels} cannot be read: {error}. It must be a text file in UTF-8."
            ) from error
    if written and given and written != given:
        raise _contradiction("labels", FLAGS.labels, manifest.LABELS, "Leave --labels out")
    return written or given or sorted_labels(rows)


def _description(
    rows: list[VideoRow], labels: tuple[str, ...], options: ConversionOptions, begun: bool
) -> Description:
    """Returns what all splits share: as the folder has it, or as this split has it."""
    written = manifest.read_description(FLAGS.output) if begun else None
    if written is None:
        several = any(len(row.labels) > 1 for row in rows)
        multi_label = several if FLAGS.multi_label is None else FLAGS.multi_label
        return Description(len(labels), multi_label, options.frames_per_second, options.min_side)
    for name, value, hint in (
        ("multi_label", FLAGS.multi_label, "Leave it out"),
        ("frames_per_second", options.frames_per_second, "Set --{}={}"),
        ("min_side", options.min_side, "Set --{}={}"),
    ):
        expected = getattr(written, name)
        if None not in (value, expected) and value != expected:
            hint = hint.format(name, expected)
            raise _contradiction(name, value, manifest.DESCRIPTION, hint)
    return dataclasses.replace(written, num_classes=len(labels))


def _contradiction(flag: str, value: object, name: str, hint: str) -> ConfigurationError:
    return ConfigurationError(
        f"--{flag}={value} differs from {files.join(FLAGS.output, name)}, which an earlier split "
        f"was made with. {hint}, {_CONVERT_ALL}."
    )


def _check_labels(
    rows: list[VideoRow], labels: tuple[str, ...], multi_label: bool, begun: bool
) -> None:
    """Checks the labels for mistakes of the whole list, which --skip_bad does not skip."""
    known = set(labels)
    place = "of the label map" if begun else f"of --labels={FLAGS.labels}"
    hint = (
        f"{_CONVERT_ALL}, and name the classes of all splits in --labels=FILE"
        if begun
        else "or add the label to that file"
    )
    for row in rows:
        for label in row.labels:
            if label not in known:
                raise DataError(
                    f"{FLAGS.csv}, row {row.number}: the label {label!r} is not among the "
                    f"{len(labels)} {place}.{did_you_mean(label, labels)} Correct the row, {hint}."
                )
        if len(row.labels) > 1 and not multi_label:
            raise DataError(
                f"{FLAGS.csv}, row {row.number}: {len(row.labels)} labels, but the data set has "
                f"one per video. Correct the row, {_CONVERT_ALL}, and set --multi_label."
            )


def _check_rows(rows: list[VideoRow]) -> None:
    """Checks what can be seen before the first video is read."""
    bad = [row for row in rows if row.problem]
    if not bad or FLAGS.skip_bad:
        return
    shown = [f"row {row.number}: {row.problem}" for row in bad[:_MISTAKES_SHOWN]]
    rest = ["…"] if len(bad) > len(shown) else []
    count = f"{len(bad)} of {len(rows)} rows have mistakes, " if len(bad) > 1 else ""
    raise DataError(
        f"{FLAGS.csv}, {count}{'; '.join([*shown, *rest])}. Correct the list, or leave out such "
        "rows with --skip_bad."
    )


def _with_missing_labels(rows: list[VideoRow], multi_label: bool) -> list[VideoRow]:
    """Marks rows without a label as bad, where each video must have one."""
    if multi_label:
        return rows
    return [
        row if row.labels or row.problem else dataclasses.replace(row, problem="no label")
        for row in rows
    ]


if __name__ == "__main__":
    define_flags()
    cli.run(main, cli.parse_known_flags)
