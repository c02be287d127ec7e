"""The end of a command's process while its input pipeline is calling Python."""

import subprocess
import sys

import pytest

from tests.helpers.processes import PATIENCE

_PROGRAM = """
import sys, time, types
from trainers.utils import process
import tensorflow as tf

def slow(index):
    time.sleep(0.02)
    return index

def load(index):
    return tf.numpy_function(slow, [index], tf.int64)

numbers = tf.data.Dataset.range(10**9).map(load, num_parallel_calls=4).batch(4)
numbers = numbers.prefetch(10**6)
iterator = iter(numbers)
next(iterator)
sys.modules["__main__"].__spec__ = types.SimpleNamespace(name={name!r})
process.end_with(3)
print("the last words")
"""


def test_a_pipeline_that_calls_python_does_not_keep_a_command() -> None:
    program = _PROGRAM.format(name="trainers.train")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == "the last words\n"


def test_other_programs_end_as_they_like() -> None:
    program = (
        "import sys, types; from trainers.utils import process; "
        "sys.modules['__main__'].__spec__ = types.SimpleNamespace(name='notebook'); "
        "process.end_with(3); sys.exit(4)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == 4


_KEEPS = """
import sys, types
from trainers.utils import process

sys.modules["__main__"].__spec__ = types.SimpleNamespace(name={name!r})
process.end_with(0)

class Iterator:
    def __del__(self):
        print("deleted", flush=True)

def train():
    batches = process.keep(Iterator())

train()
print("trained")
"""


@pytest.mark.parametrize(
    ("name", "printed"), [("trainers.train", "trained\n"), ("notebook", "deleted\ntrained\n")]
)
def test_a_command_does_not_wait_for_an_iterator_to_be_deleted(name: str, printed: str) -> None:
    command = [sys.executable, "-c", _KEEPS.format(name=name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == printed
