"""Writes StableHLO programs, as `jax.export` serialises them."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tensorflow as tf

from trainers.data.preprocessing.normalization import channel_statistics
from trainers.exporting.served_model import ServedModel
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import ExportError

_ROOT = Path(__file__).resolve().parents[2]


def check_stablehlo_normalization(kind: str) -> None:
    """Checks that a StableHLO program can include a normalisation.

    Raises:
        ConfigurationError: If it cannot.
    """
    if channel_statistics(kind) is None:
        raise ConfigurationError(
            f"--format=stablehlo holds no data.normalization={kind!r}, which each clip has its "
            "own numbers for. Use --input=normalized, and normalise before."
        )


def write_stablehlo(served: ServedModel, spec: tf.TensorSpec, path: str) -> None:
    """Writes the model as a program for all platforms that JAX knows.

    TensorFlow cannot leave the batch open in StableHLO, and Keras runs on one backend in a process,
    so another process loads the model on JAX.

    Args:
        served: The model.
        spec: What the program takes: normalised float32, or uint8 that it normalises.
        path: The file.

    Raises:
        ExportError: If the process fails.
    """
    statistics = channel_statistics(served.normalization) if spec.dtype == tf.uint8 else None
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model.keras")
        served.model.save(model)
        arguments = [model, path, json.dumps(spec.shape[1:].as_list()), json.dumps(statistics)]
        done = subprocess.run(
            [sys.executable, "-m", "trainers.exporting.stablehlo_process", *arguments],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
                "KERAS_BACKEND": "jax",
                "JAX_PLATFORMS": "cpu",
            },
            capture_output=True,
            text=True,
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportError(f"{served.model.name} cannot be converted to StableHLO: {reason}")
