"""The project's commands as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Seconds, far more than anything needs on a busy machine: what hangs fails its test.
PATIENCE = 1800


def start(module: str, *arguments: str, backend: str = "tensorflow") -> subprocess.Popen[str]:
    """Starts a module as a program on a backend, with text pipes for what it prints."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
