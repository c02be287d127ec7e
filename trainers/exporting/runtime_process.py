"""Runs an exported model in its own runtime, without the code that made it.

python -P runtime_process.py FORMAT PATH CASES.npz ANSWERS.npz

CASES holds `plan`, JSON of [signature, number of batches] of each case, and the batches as
`CASE/BATCH`; ANSWERS gets an array `CASE/BATCH` for each. Neither the project nor Keras can be
imported here. `runtime_check` runs this.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: From the name of a signature and a batch to the outputs.
Runtime = Callable[[str, Any], Any]

_FORBIDDEN = ("keras", "tokenlearner_keras", "trainers")


def _saved_model(path: str) -> Runtime:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return lambda signature, batch: loaded.signatures[signature](images=tf.constant(batch))[
        "logits"
    ]


def _onnx(path: str) -> Runtime:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda signature, batch: session.run(None, {"images": batch})[0]


def _litert(path: str) -> Runtime:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path)
    return lambda signature, batch: interpreter.get_signature_runner(signature)(images=batch)[
        "logits"
    ]


def _stablehlo(path: str) -> Runtime:
    from jax import export

    program = export.deserialize(bytearray(Path(path).read_bytes()))
    return lambda signature, batch: program.call(batch)


_RUNTIMES = {
    "saved_model": _saved_model,
    "onnx": _onnx,
    "litert": _litert,
    "stablehlo": _stablehlo,
}


def main(format: str, path: str, cases: str, answers: str) -> None:
    """Writes the outputs for all batches."""
    for name in _FORBIDDEN:
        sys.modules[name] = None  # type: ignore[assignment]  # as if it were not installed
    runtime = _RUNTIMES[format](path)
    found: dict[str, Any] = {}
    with np.load(cases) as file:
        for number, (signature, count) in enumerate(json.loads(str(file["plan"]))):
            for batch in range(count):
                name = f"{number}/{batch}"
                found[name] = np.asarray(runtime(signature, file[name]))
    np.savez(answers, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
