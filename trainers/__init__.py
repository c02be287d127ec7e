"""The training program: `python -m trainers.train --config=FILE --workdir=DIR`."""

import os
import sys
from collections.abc import Sequence

# TensorFlow's start-up notices would bury the progress line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _engine_flag(arguments: Sequence[str]) -> str | None:
    """Returns the value of --engine if one of our modules is what this process runs."""
    for index, argument in enumerate(arguments[:-1]):
        if argument == "-m":
            if not arguments[index + 1].startswith(f"{__name__}."):
                return None
            flags = list(arguments[index + 2 :])
            for flag, following in zip(flags, [*flags[1:], ""], strict=True):
                name, given, value = flag.lstrip("-").partition("=")
                if flag.startswith("-") and name == "engine":
                    return value if given else following
            return None
    return None


# Keras picks its backend at the first import, before any flag is parsed.
_engine = _engine_flag(sys.orig_argv)
if _engine in ("tensorflow", "jax"):
    os.environ["KERAS_BACKEND"] = _engine
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
