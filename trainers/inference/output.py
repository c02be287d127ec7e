"""Formats the top-k classes of each input as CSV or JSON."""

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.utils import files
from trainers.utils.errors import ConfigurationError

FORMATS = ("csv", "json")
_COLUMNS = ("path", "rank", "class", "probability")

_FILES_OF_A_TRAINING = ("config.json", "metrics.jsonl", "bad_examples.jsonl")


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model predicts for N files.

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

    `probabilities` are (B, K). All are returned if there are fewer than `top_k`. Of equally likely
    classes the first comes first.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    names = tuple(tuple(class_names[number] for number in row) for row in order)
    return names, np.take_along_axis(probabilities, order, axis=1)


def to_text(predictions: Predictions, format: str) -> str:
    """Returns predictions as "csv", one row for each rank, or as "json", one object per file."""
    if format == "json":
        return json.dumps(list(_by_file(predictions)), indent=2) + "\n"
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for file in _by_file(predictions):
        for ranked in file["predictions"]:
            writer.writerow([file["path"], *ranked.values()])
    return table.getvalue()


def _by_file(predictions: Predictions) -> Iterator[dict[str, Any]]:
    columns = (predictions.names, predictions.classes, predictions.probabilities)
    for path, names, probabilities in zip(*columns, strict=True):
        ranked = []
        for rank, (name, probability) in enumerate(zip(names, probabilities, strict=True), start=1):
            # Six digits: a float32 has hardly more.
            rounded = float(f"{probability:.6g}")
            ranked.append({"rank": rank, "class": name, "probability": rounded})
        yield {"path": path, "predictions": ranked}


def write_text(text: str, path: str | None = None) -> None:
    """Writes to a file, which is replaced when the new one is complete, or to stdout."""
    if path is not None:
        files.write_atomically(path, text.encode())
        return
    sys.stdout.write(text)
    sys.stdout.flush()


def check_output(path: str, inputs: Sequence[str], model: str) -> None:
    """Checks that a file may take the predictions, if one is given.

    Raises:
        ConfigurationError: If it is a folder, or would replace an input, the model or a training's
            own file.
    """
    if not path:
        return
    if files.is_directory(path):
        raise ConfigurationError(f"--output={path} is a directory. Give a file, such as p.csv.")
    is_of_a_training = path.rpartition("/")[2] in _FILES_OF_A_TRAINING
    is_input = files.identity(path) in map(files.identity, [*inputs, model])
    if is_of_a_training or path.endswith(".keras") or is_input:
        raise ConfigurationError(
            f"--output={path} would replace an input, a model or a training's own file. Give "
            "another one, such as predictions.csv."
        )
