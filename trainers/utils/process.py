"""Chooses the backend of Keras as a command starts, and ends its process."""

import atexit
import contextlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import NoReturn
from typing import TypeVar

T = TypeVar("T")

ENGINES = ("tensorflow", "jax")

STATUS_WRONG_USAGE = 2

_MISSING = {
    "jax": (
        "--engine=jax, or KERAS_BACKEND=jax, needs JAX, which is not installed. In a clone: pip "
        "install '.[jax]', on a TPU VM '.[jax-tpu]'; on NVIDIA GPUs: pip install 'jax[cuda12]'."
    ),
    "tensorflow": (
        "The trainer reads its data with TensorFlow, on either engine, and TensorFlow is not "
        "installed. In a clone: pip install '.[tensorflow-cpu,train]'."
    ),
}


def choose_backend(argv: Sequence[str]) -> None:
    """Sets KERAS_BACKEND from `--engine` if `sys.argv` runs one of our modules or commands.

    Without the flag the environment decides; the default is TensorFlow. A missing package ends the
    process with status 2.
    """
    # While this package is imported, Python is still looking for the module to run.
    program = os.path.basename(argv[0]) if argv else ""
    is_command = program == "-m" or program.startswith("tokenlearner-")
    engine = engine_flag(argv[1:]) if is_command else None
    if engine in ENGINES:
        os.environ["KERAS_BACKEND"] = engine
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if is_command:
        _check_installed(backend)


def engine_flag(arguments: Sequence[str]) -> str | None:
    """Returns the last value of --engine in a command line without the program, or None."""
    found = None
    for argument, following in pairwise([*arguments, ""]):
        name, given, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "engine":
            found = value if given else following
    return found


def _check_installed(backend: str) -> None:
    if backend not in ENGINES and importlib.util.find_spec(backend) is None:
        fail(
            f"The trainer runs on Keras' backends {' and '.join(ENGINES)}. Received "
            f"KERAS_BACKEND={backend}. Unset it, or set it to one of these.",
            STATUS_WRONG_USAGE,
        )
    for name, message in _MISSING.items():
        if name in (backend, "tensorflow") and importlib.util.find_spec(name) is None:
            fail(message, STATUS_WRONG_USAGE)


_statuses: list[int] = []


def fail(message: str, status: int) -> NoReturn:
    """Prints an error and ends the process."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    end_with(status)
    raise SystemExit(status)


def end_with(status: int) -> None:
    """Sets the exit status of the process if it runs a command, `python -m trainers.NAME`."""
    if _runs_command():
        _statuses.append(status)


_kept: list[object] = []


def keep(value: T) -> T:
    """Returns a value, which a command deletes only with its process."""
    if _runs_command():
        _kept.append(value)
    return value


def _runs_command() -> bool:
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    return specification is not None and specification.name.startswith("trainers.")


# A live tf.data pipeline may call Python while the interpreter shuts down, which then hangs.
@atexit.register
def _end() -> None:
    if _statuses:
        for stream in (sys.stdout, sys.stderr):
            # The reader of a pipe may have closed it.
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(_statuses[-1])
