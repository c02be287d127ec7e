"""The training program: `python -m trainers.train --config=FILE --workdir=DIR`."""

import os
import sys

# Imported first, so that its atexit handler runs after those of the libraries.
from trainers.utils.process import choose_backend

# TensorFlow's start-up notices would bury the progress line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Keras picks its backend at the first import, before any flag is parsed.
choose_backend(sys.argv)
