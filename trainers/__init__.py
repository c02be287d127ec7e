"""The training program: `python -m trainers.train --config=FILE --workdir=DIR`."""

import os

# The trainer is a TensorFlow program; Keras picks its backend at the first import.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# TensorFlow's start-up notices would bury the progress line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
