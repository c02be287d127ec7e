"""The training program: `python -m trainers.train --config=FILE --workdir=DIR`."""

import os
import sys

# First of all, so that what libraries do at the end comes before it.
import trainers.ending  # noqa: F401
from trainers.backend import choose_backend

# TensorFlow's start-up notices would bury the progress line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Keras picks its backend at the first import, before any flag is parsed.
choose_backend(sys.argv)
