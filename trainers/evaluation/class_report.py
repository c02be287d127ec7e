"""Makes the report of results by class, and writes it as JSON."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.steps.metrics import check_scikit_learn
from trainers.utils import files
from trainers.utils.errors import ConfigurationError


def check_report(path: str | None) -> None:
    """Checks, before the evaluation, that a report can be made; without a path does nothing.

    Raises:
        ConfigurationError: If scikit-learn is missing, or the path cannot be written.
    """
    if not path:
        return
    check_scikit_learn("--report")
    if files.is_directory(path):
        raise ConfigurationError(f"--report={path} is a directory. Give a file, such as r.json.")
    folder = files.folder_of(path)
    if not files.is_remote(path) and not files.is_directory(folder):
        raise ConfigurationError(
            f"--report={path}: there is no folder {folder!r}. Make it, or give another file."
        )
    if path.rpartition("/")[2] in ("config.json", "metrics.jsonl", "model.keras"):
        raise ConfigurationError(
            f"--report={path} has the name of a training's own file. Give another one, such "
            "as report.json."
        )


def class_report(confusion: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, Any]:
    """Returns precision, recall, F1 and support of each class, averages, and the counts.

    Args:
        confusion: `(K, K)`, the right class first, then the predicted one.
        class_names: K names.

    Returns:
        `classes` by name, `averages` (`macro avg`, `weighted avg`), `class_names` in order
        and `confusion_matrix` as lists. A ratio without examples is 0.
    """
    from sklearn.metrics import classification_report

    right, predicted = np.nonzero(confusion)
    names = _numbered(class_names)
    found = classification_report(
        right,
        predicted,
        labels=list(range(len(names))),
        target_names=names,
        sample_weight=confusion[right, predicted],
        output_dict=True,
        zero_division=0,
    )
    return {
        "classes": {
            name: {**found[name], "support": int(found[name]["support"])} for name in names
        },
        "averages": {name: found[name] for name in ("macro avg", "weighted avg")},
        "class_names": list(class_names),
        "confusion_matrix": confusion.tolist(),
    }


def multi_label_report(
    precisions: NDArray[np.float64], class_names: Sequence[str]
) -> dict[str, Any]:
    """Returns the report of `(K,)` average precisions; None where a class has no examples."""
    values = [None if np.isnan(each) else float(each) for each in precisions]
    return {"average_precision": dict(zip(_numbered(class_names), values, strict=True))}


def _numbered(class_names: Sequence[str]) -> list[str]:
    # Two classes may share a name (ImageNet has such): the number tells them apart.
    return [f"{number} {name}" for number, name in enumerate(class_names)]


def write_report(path: str, report: dict[str, Any]) -> None:
    """Writes a report; an existing file stays until the new one is complete."""
    files.write_atomically(path, (json.dumps(report, indent=2) + "\n").encode())
