"""Formats the top-k classes of each input as CSV or JSON."""

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainers.inference.inputs import is_input
from trainers.utils import files
from trainers.utils.errors import ConfigurationError

FORMATS = ("csv", "json")
COLUMNS = ("path", "rank", "class", "probability")

_FILES_OF_A_TRAINING = ("config.json", "metrics.jsonl", "bad_examples.jsonl")


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model says of N files.

    Attributes:
        names: The paths of the files, in order.
        classes: The names of the likeliest classes of each file, the likeliest first.
        probabilities: Of the same classes, float32 (N, top_k).
        left_out: A line for each file that cannot be read, which is not among the names.
    """

    names: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    probabilities: NDArray[np.float32]
    left_out: tuple[str, ...] = ()


def likeliest_classes(
    probabilities: NDArray[np.float32], class_names: Sequence[str], top_k: int
) -> tuple[tuple[tuple[str, ...], ...], NDArray[np.float32]]:
    """Returns the names and the probabilities (B, k) of the likeliest classes, in order.

    Args:
        probabilities: (B, K).
        class_names: K names.
        top_k: How many; all if there are fewer. Of equal ones the first class comes first.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    names = tuple(tuple(class_names[number] for number in row) for row in order)
    return names, np.take_along_axis(probabilities, order, axis=1)


def to_text(predictions: Predictions, format: str) -> str:
    """Returns predictions as text.

    `format` is "csv", one row for each rank of each file, with a header; or "json", one object per
    file.
    """
    return _to_csv(predictions) if format == "csv" else _to_json(predictions)


def write_text(text: str, path: str | None = None) -> None:
    """Writes to a file, which is replaced when the new one is complete, or to stdout.

    Raises:
        OSError: If it cannot be written.
    """
    if path is not None:
        files.write_atomically(path, text.encode())
        return
    sys.stdout.write(text)
    sys.stdout.flush()


def check_output(path: str, inputs: Sequence[str], model: str) -> None:
    """Checks that a file may take the predictions; without a path does nothing.

    It must replace neither one of the inputs nor the model's file.

    Raises:
        ConfigurationError: If it would, or cannot be written.
    """
    if not path:
        return
    if files.is_directory(path):
        raise ConfigurationError(f"--output={path} is a directory. Give a file, such as p.csv.")
    is_of_a_training = path.rpartition("/")[2] in _FILES_OF_A_TRAINING
    if is_of_a_training or path.endswith(".keras") or is_input(path, [*inputs, model]):
        raise ConfigurationError(
            f"--output={path} would replace an input, a model or a training's own file. Give "
            "another one, such as predictions.csv."
        )


def _to_csv(predictions: Predictions) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for path, ranks in _by_file(predictions):
        for rank, (name, probability) in enumerate(ranks, start=1):
            writer.writerow([path, rank, name, probability])
    return table.getvalue()


def _to_json(predictions: Predictions) -> str:
    objects = [
        {
            "path": path,
            "predictions": [
                {"rank": rank, "class": name, "probability": probability}
                for rank, (name, probability) in enumerate(ranks, start=1)
            ],
        }
        for path, ranks in _by_file(predictions)
    ]
    return json.dumps(objects, indent=2) + "\n"


def _by_file(predictions: Predictions) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    columns = (predictions.names, predictions.classes, predictions.probabilities)
    for path, names, probabilities in zip(*columns, strict=True):
        # Six digits: a float32 has hardly more.
        rounded = [float(f"{each:.6g}") for each in probabilities]
        yield path, list(zip(names, rounded, strict=True))
