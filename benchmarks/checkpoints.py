"""How long a checkpoint holds up the training.

    python -m benchmarks.checkpoints [--model=vit_b16_tl8at6] [--turns=5]

The images are small: then the weights have full size and the steps are short, which is the hard
case. Writes `results/checkpoints.csv`; `stall_seconds` is the median time that the loop stands
still in `save`, `wall_ratio` a turn's time over that without checkpoints.
"""

import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from ml_collections import ConfigDict

from benchmarks.timing import environment
from benchmarks.timing import time_in_turns
from benchmarks.timing import write_csv
from trainers.checkpointing.checkpoint_file import read_checkpoint
from trainers.checkpointing.state import state_arrays
from trainers.checkpointing.store import CheckpointStore
from trainers.configuration.configuration import whole_config
from trainers.configuration.schedule import TrainingSchedule
from trainers.engines.flags import make_local_engine
from trainers.experiment import make_model
from trainers.experiment import make_model_config
from trainers.steps.losses import make_loss
from trainers.steps.train_step import TrainStep

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "vit_b16_tl8at6", "Name of the model.")
flags.DEFINE_integer("image_size", 64, "Side of the images in pixels.")
flags.DEFINE_integer("batch_size", 8, "Images a step.")
flags.DEFINE_integer("steps", 10, "Steps a turn.", lower_bound=1)
flags.DEFINE_integer("turns", 5, "Turns that count.", lower_bound=1)

NUM_CLASSES = 1000


def main(_: list[str]) -> None:
    training = _Training()
    with tempfile.TemporaryDirectory() as folder:
        saving = _Saving(training, folder)
        ways = {
            "without": training.run,
            "asynchronous": saving.beside,
            "waiting": saving.before,
        }
        times = time_in_turns(ways, FLAGS.turns, "without")
        # What was timed has been written.
        read_checkpoint(folder, max(saving.store.steps()))
    rows = []
    for name, result in times.items():
        stalls = saving.stalls.get(name, [0.0])
        rows.append(
            {
                "model": FLAGS.model,
                "megabytes": round(saving.size / 1e6, 1),
                "steps": FLAGS.steps,
                "arm": name,
                # The first turn does not count.
                "stall_seconds": round(statistics.median(stalls[1:] or stalls), 4),
                **result,
                **environment("tensorflow", "keras"),
            }
        )
        print(rows[-1], flush=True)
    print(write_csv("checkpoints", rows))


class _Training:
    """The trainer's compiled loop on images that are in memory."""

    def __init__(self) -> None:
        section = {"name": FLAGS.model, "image_size": FLAGS.image_size}
        config = whole_config(ConfigDict({"model": section}))
        model_config = make_model_config(config, NUM_CLASSES)
        schedule = TrainingSchedule(total=10**6, warmup=0, log=1, evaluate=0, checkpoint=0)
        self.model, self.optimizer = make_model(config, model_config, schedule)
        self.step = 0
        self.train_step = TrainStep(
            model=self.model,
            optimizer=self.optimizer,
            loss=make_loss(config.loss),
            engine=make_local_engine(),
            batch_size=FLAGS.batch_size,
            normalization=config.data.normalization,
            global_clipnorm=1.0,
            seed=0,
        )
        random = np.random.default_rng(0)
        shape = (FLAGS.batch_size, FLAGS.image_size, FLAGS.image_size, 3)
        labels = random.integers(NUM_CLASSES, size=FLAGS.batch_size)
        batch = {
            "image": random.integers(256, size=shape, dtype=np.uint8),
            "target": keras.utils.to_categorical(labels, NUM_CLASSES).astype("float32"),
        }
        self.batches = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def run(self) -> None:
        self.train_step.run(self.batches, self.step, FLAGS.steps)
        self.step += FLAGS.steps


class _Saving:
    """Checkpoints of a training, and how long each held it up."""

    def __init__(self, training: _Training, folder: str) -> None:
        self.training = training
        self.store = CheckpointStore(folder, keep=1)
        self.stalls: dict[str, list[float]] = {"asynchronous": [], "waiting": []}
        self.size = 0

    def beside(self) -> None:
        """Saves as `trainers.train` does, then waits as if the next checkpoint were due."""
        self._save("asynchronous", wait=False)
        self.training.run()
        self.store.wait()

    def before(self) -> None:
        self._save("waiting", wait=True)
        self.training.run()

    def _save(self, way: str, wait: bool) -> None:
        begin = time.perf_counter()
        arrays = state_arrays(self.training.model, self.training.optimizer)
        self.store.save(self.training.step, arrays)
        if wait:
            self.store.wait()
        self.stalls[way].append(time.perf_counter() - begin)
        self.size = sum(array.nbytes for array in arrays.values())


if __name__ == "__main__":
    app.run(main)
