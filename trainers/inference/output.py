"""Formats the top-k classes of each input as CSV or JSON."""

import csv
import dataclasses
import io
import json
import sys
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
class Prediction:
    """A model's prediction for a file.

    Attributes:
        path: The file.
        classes: Names and probabilities, the likeliest first.
    """

    path: str
    classes: tuple[tuple[str, float], ...]


def likeliest_classes(
    probabilities: NDArray[np.float32], class_names: Sequence[str], top_k: int
) -> tuple[tuple[str, float], ...]:
    """Returns the names and probabilities of the likeliest classes, the first one first.

    Args:
        probabilities: (K,).
        class_names: K names.
        top_k: How many; all if there are fewer. Of equal ones the first class comes first.
    """
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    # Six digits: a float32 has hardly more.
    return tuple((class_names[n], float(f"{probabilities[n]:.6g}")) for n in order)


def to_text(predictions: Sequence[Prediction], format: str) -> str:
    """Returns predictions, in their order, as text.

    `format` is "csv", one row for each rank of each file, with a header; or "json", one object per
    file.
    """
    return _to_csv(predictions) if format == "csv" else _to_json(predictions)


def write_text(text: str, path: str | None) -> None:
    """Writes to a file, which is replaced when the new one is complete, or to stdout.

    Raises:
        OSError: If it cannot be written.
    """
    if path is not None:
        files.write_atomically(path, text.encode())
        return
    sys.stdout.write(text)
    sys.stdout.flush()


def check_output(path: str | None, inputs: Sequence[str], model: str | None) -> None:
    """Checks that a file may take the predictions; None is fine.

    It must replace neither one of the inputs nor the model's file.

    Raises:
        ConfigurationError: If it would, or cannot be written.
    """
    if path is None:
        return
    if files.is_directory(path):
        raise ConfigurationError(f"--output={path} is a directory. Give a file, such as p.csv.")
    is_of_a_training = path.rpartition("/")[2] in _FILES_OF_A_TRAINING
    if is_of_a_training or path.endswith(".keras") or is_input(path, [*inputs, model or ""]):
        raise ConfigurationError(
            f"--output={path} would replace an input, a model or a training's own file. Give "
            "another one, such as predictions.csv."
        )


def _to_csv(predictions: Sequence[Prediction]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for prediction in predictions:
        for rank, (name, probability) in enumerate(prediction.classes, start=1):
            writer.writerow([prediction.path, rank, name, probability])
    return table.getvalue()


def _to_json(predictions: Sequence[Prediction]) -> str:
    objects = [
        {
            "path": prediction.path,
            "predictions": [
                {"rank": rank, "class": name, "probability": probability}
                for rank, (name, probability) in enumerate(prediction.classes, start=1)
            ],
        }
        for prediction in predictions
    ]
    return json.dumps(objects, indent=2) + "\n"
