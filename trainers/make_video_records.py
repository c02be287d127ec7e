"""Makes TFRecords of videos, one split a run:

    python -m trainers.make_video_records --csv=FILE --output=DIR --shards=N [--split=train]

The CSV file names parts of video files with their labels, see `trainers/data/video_list.py`:

    path,start,end,label
    videos/a.mp4,0,9.5,archery
    videos/b.mp4,,,running;throwing

The first run makes the label map of the output folder, `labels.txt`, out of all labels of
its list, or out of --labels. Every further split (--split=validation, --split=test) must
do with it: so a number means the same class in all of them. `dataset.json` says how many
classes there are and whether a video may have several: set --multi_label if the first list
happens to have one label in each row. Both are made anew while the folder holds no shard
and no other split is being converted. Two splits may be converted at the same time, where
file locks exist; on gs:// wait for the first one to write its label map.

Train on the result by --config.data.source=records --config.data.data_dir=DIR. The same
command run again goes on where it was killed, or does nothing if all is done. The
exit status is 0 when the split is complete, rows left out by --skip_bad notwithstanding.
"""

import dataclasses

from absl import flags

from trainers import cli
from trainers import files
from trainers.data.conversion_lock import conversion_lock
from trainers.data.conversion_lock import label_map_is_used
from trainers.data.conversion_lock import label_map_lock
from trainers.data.conversion_options import ConversionOptions
from trainers.data.progress import progress_bar
from trainers.data.sources import check_source
from trainers.data.video_conversion import Conversion
from trainers.data.video_dataset_files import DESCRIPTION
from trainers.data.video_dataset_files import LABELS
from trainers.data.video_dataset_files import Description
from trainers.data.video_dataset_files import read_description
from trainers.data.video_dataset_files import read_label_file
from trainers.data.video_dataset_files import read_labels
from trainers.data.video_dataset_files import write_description
from trainers.data.video_dataset_files import write_labels
from trainers.data.video_files import FRAMES_PER_SECOND
from trainers.data.video_files import MIN_SIDE
from trainers.data.video_files import import_av
from trainers.data.video_list import VideoRow
from trainers.data.video_list import read_video_list
from trainers.data.worker_processes import default_workers
from trainers.errors import ConfigurationError
from trainers.errors import DataError
from trainers.errors import Interrupted
from trainers.signals import StopRequest

FLAGS = flags.FLAGS
_ANEW = (
    "or convert all splits anew: to another --output, or to this one without its *.tfrecord-*, "
    f"*.conversion.json, {LABELS} and {DESCRIPTION}"
)


def define_flags(flag_values: flags.FlagValues = FLAGS) -> None:
    """Defines the command's flags."""
    values = {"flag_values": flag_values}
    cli.define_path("csv", "A CSV file: path,start,end,label.", flag_values)
    cli.define_path("output", "The folder of the records; made if necessary.", flag_values)
    flags.DEFINE_integer("shards", None, "Files to cut the split into.", **values)
    flags.DEFINE_string("split", "train", "train, validation or test.", **values)
    flags.DEFINE_float(
        "frames_per_second", FRAMES_PER_SECOND, "Frames taken from a second.", **values
    )
    flags.DEFINE_integer(
        "min_side", MIN_SIDE, "Pixels of the shorter side; never enlarged.", **values
    )
    flags.DEFINE_integer("jpeg_quality", 95, "1 to 100.", **values)
    cli.define_path("labels", "A text file with a class a line, for the first run.", flag_values)
    flags.DEFINE_bool("multi_label", None, "Videos may have several labels, or none.", **values)
    flags.DEFINE_bool("skip_bad", False, "Leave out rows that cannot be read; list them.", **values)
    flags.DEFINE_integer("workers", default_workers(), "Shards written at the same time.", **values)


def main() -> None:
    """Converts one split; every stage is named once, in order."""
    StopRequest().install()
    options = _check_flags()
    import_av()
    rows = read_video_list(FLAGS.csv)

    # ----------------------------------------------------------- labels of all splits
    if not files.exists(FLAGS.output):
        _plan(rows)  # a mistake in the list leaves no folder behind
        files.make_directories(FLAGS.output)
    with conversion_lock(FLAGS.split) as lock:
        with label_map_lock(FLAGS.output):
            lock.acquire(FLAGS.output)
            labels, multi_label, rows = _plan(rows)
            numbers = {label: number for number, label in enumerate(labels)}
            conversion = Conversion(
                FLAGS.csv, rows, numbers, FLAGS.output, FLAGS.split, options, FLAGS.skip_bad
            )
            write_labels(FLAGS.output, labels)
            write_description(FLAGS.output, Description(len(labels), multi_label))
        _convert(conversion)


def _convert(conversion: Conversion) -> None:
    """Writes the videos and says how many there are."""
    try:
        total = len(conversion.rows)
        with progress_bar(FLAGS.split, total, conversion.rows_done) as advance:
            conversion.run(FLAGS.workers, advance)
    except Interrupted as error:
        raise Interrupted(
            f"stopped by signal {error.signal_number}; the same command goes on after the last "
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
    """Returns all labels of a list: numbers as they are counted, then names by the alphabet.

    Raises:
        ConfigurationError: no row has a label.
    """
    names = {label for row in rows for label in row.labels}
    if not names:
        raise ConfigurationError(f"--csv={FLAGS.csv} has no labels. Name one in each row.")
    alphabetical = sorted(names)
    numbers = sorted((name for name in alphabetical if name.isdecimal()), key=int)
    return (*numbers, *(name for name in alphabetical if not name.isdecimal()))


def _check_flags() -> ConversionOptions:
    for name in ("csv", "output", "shards"):
        if FLAGS[name].value in (None, ""):
            raise ConfigurationError(
                "Expected --csv=FILE --output=DIR --shards=N. Received no --" + name + "."
            )
    check_source("records", FLAGS.split)
    if FLAGS.workers < 1:
        raise ConfigurationError(f"--workers: expected 1 or more, received {FLAGS.workers}.")
    return ConversionOptions(
        FLAGS.shards, FLAGS.frames_per_second, FLAGS.min_side, FLAGS.jpeg_quality
    )


def _plan(rows: list[VideoRow]) -> tuple[tuple[str, ...], bool, list[VideoRow]]:
    """Returns the label map, whether there are several labels, and the rows, all checked."""
    begun = label_map_is_used(FLAGS.output, FLAGS.split)
    labels = _label_map(rows, read_labels(FLAGS.output) if begun else None)
    multi_label = _is_multi_label(rows, read_description(FLAGS.output) if begun else None)
    _check_labels(rows, labels, multi_label)
    rows = _with_missing_labels(rows, multi_label)
    _check_rows(rows)
    return labels, multi_label, rows


def _label_map(rows: list[VideoRow], written: tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns the names of the classes: of the folder, of --labels, or of the list."""
    given = read_label_file(FLAGS.labels) if FLAGS.labels else None
    if written and given and written != given:
        raise ConfigurationError(
            f"--labels={FLAGS.labels} differs from {files.join(FLAGS.output, LABELS)}, which "
            f"an earlier split was made with. Leave --labels out, {_ANEW}."
        )
    return written or given or sorted_labels(rows)


def _is_multi_label(rows: list[VideoRow], written: Description | None) -> bool:
    if written is None:
        several = any(len(row.labels) > 1 for row in rows)
        return several if FLAGS.multi_label is None else FLAGS.multi_label
    if FLAGS.multi_label not in (None, written.multi_label):
        raise ConfigurationError(
            f"--multi_label={FLAGS.multi_label} differs from {FLAGS.output}/dataset.json, which "
            f"an earlier split was made with. Leave it out, {_ANEW}."
        )
    return written.multi_label


def _check_labels(rows: list[VideoRow], labels: tuple[str, ...], multi_label: bool) -> None:
    """Checks what --skip_bad does not pass over: it would be a mistake in the whole list."""
    known = set(labels)
    for row in rows:
        for label in row.labels:
            if label not in known:
                raise DataError(
                    f"{FLAGS.csv}, row {row.number}: the label {label!r} is not among the "
                    f"{len(labels)} of the label map. Correct the row, {_ANEW}, and name the "
                    "classes of all splits in --labels=FILE."
                )
        if len(row.labels) > 1 and not multi_label:
            raise DataError(
                f"{FLAGS.csv}, row {row.number}: {len(row.labels)} labels, but the data set has "
                f"one a video. Correct the row, {_ANEW}, and set --multi_label."
            )


def _check_rows(rows: list[VideoRow]) -> None:
    """Checks what can be seen without the videos; corrected later, it would be another list."""
    bad = [row for row in rows if row.problem]
    if bad and not FLAGS.skip_bad:
        more = f" ({len(bad)} such rows)" if len(bad) > 1 else ""
        raise DataError(
            f"{FLAGS.csv}, row {bad[0].number}: {bad[0].problem}{more}. Correct the list, or "
            "leave out such rows with --skip_bad."
        )


def _with_missing_labels(rows: list[VideoRow], multi_label: bool) -> list[VideoRow]:
    """Marks rows without a label as bad, where each video must have one."""
    if multi_label:
        return rows
    missing = "no label"
    return [
        row if row.labels or row.problem else dataclasses.replace(row, problem=missing)
        for row in rows
    ]


if __name__ == "__main__":
    define_flags()
    cli.run(main, cli.parse_known_flags)
