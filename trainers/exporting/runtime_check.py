"""Compares an exported model's outputs in its own runtime with Keras'."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.exporting.formats import run_python
from trainers.utils.errors import ExportError

#: Largest difference of an output, relative to the largest of its logits.
TOLERANCE = 1e-4

_PROGRAM = Path(__file__).with_name("runtime_process.py")


@dataclasses.dataclass(frozen=True)
class Case:
    """Inputs of one kind, and Keras' outputs for them."""

    name: str  # describes the inputs
    signature: str  # which function to call; only a SavedModel has several
    batches: Sequence[NDArray[Any]]
    expected: NDArray[np.float32]


def check_in_runtime(format: str, path: str, cases: Sequence[Case]) -> dict[str, float]:
    """Runs an exported model in a process that has only its runtime.

    Returns the largest relative difference of each case by its name; raises ExportError if the
    runtime fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = str(Path(folder) / "cases.npz"), str(Path(folder) / "answers.npz")
        plan = json.dumps([(case.signature, len(case.batches)) for case in cases])
        batches: dict[str, Any] = {
            f"{number}/{index}": batch
            for number, case in enumerate(cases)
            for index, batch in enumerate(case.batches)
        }
        np.savez(inputs, plan=np.array(plan), **batches)
        _run(format, path, inputs, outputs)
        with np.load(outputs) as file:
            answers = [
                np.concatenate([file[f"{number}/{index}"] for index in range(len(case.batches))])
                for number, case in enumerate(cases)
            ]
    return {
        case.name: relative_difference(answer, case.expected)
        for case, answer in zip(cases, answers, strict=True)
    }


def check_differences(differences: dict[str, float]) -> None:
    """Raises an ExportError if a difference is above the tolerance, or not a number."""
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise ExportError(
                f"The exported model's outputs differ from Keras': {name}, relative difference "
                f"{difference:.1e}, expected at most {TOLERANCE:.0e}. Nothing is written."
            )


def relative_difference(answers: NDArray[Any], expected: NDArray[Any]) -> float:
    """Returns the largest difference of an example, relative to its largest logit.

    It is infinite for different shapes, and NaN if a number is NaN.
    """
    if answers.shape != expected.shape:
        return float("inf")
    differences = np.abs(answers.astype(np.float64) - expected).max(axis=-1)
    scales = np.abs(expected.astype(np.float64)).max(axis=-1)
    # Where all logits are zero there is no scale: then no difference is allowed.
    smallest = np.finfo(np.float32).tiny
    return float((differences / np.maximum(scales, smallest)).max())


def _run(format: str, path: str, inputs: str, outputs: str) -> None:
    # -P: nothing may be imported from the folder of the program.
    folder, name = os.path.split(path)
    arguments = ["-P", str(_PROGRAM), format, name, inputs, outputs]
    # Float32 results differ on accelerators.
    only_cpu = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    # In `folder`, since TensorFlow takes brackets and asterisks in a path for a pattern.
    failure = "The exported model does not run in its runtime"
    run_python(arguments, only_cpu, failure, folder or None)
