"""What the trainer's loop adds to a bare compiled step, beside `model.fit`.

    python -m benchmarks.training [--configs=trainers/configs/digits.py,...] [--turns=15]

Three ways to train the same model on the same data for the same number of steps, in turns:

- bare: a compiled step without metrics, called from Python on one batch that is in memory;
- trainer: batches from the real pipeline, the compiled loop, the averages and the rows of
  metrics.jsonl, as `trainers.train` does it;
- fit: `model.fit` on the batches of the same pipeline, with its default settings.

The pipelines of the latter two fill their buffers while another arm runs, which is a few of
a turn's batches.

Before anything is timed, each trains on the same few batches and all must end with the
same weights. Writes `results/training.csv`: seconds a turn and the ratio to bare.
"""

import tempfile
from abc import ABC
from abc import abstractmethod
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from ml_collections import ConfigDict

from benchmarks.timing import environment
from benchmarks.timing import interleaved
from benchmarks.timing import summary
from benchmarks.timing import write_csv
from trainers.configuration.configuration import complete_config
from trainers.configuration.configuration import load_config_file
from trainers.configuration.schedule import make_training_schedule
from trainers.data.pipeline import training_dataset
from trainers.data.preprocessing.normalization import normalize
from trainers.data.sources import make_source
from trainers.engines.batches import training_batches
from trainers.engines.flags import make_local_engine
from trainers.experiment import make_model
from trainers.experiment import make_model_config
from trainers.experiment import make_preprocessing
from trainers.experiment import make_train_step
from trainers.steps.losses import make_loss
from trainers.steps.optimizer import clip_by_global_norm
from trainers.steps.optimizer import make_learning_rate
from trainers.training.log import TrainingLog
from trainers.utils.reporting import MetricsWriter

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "configs",
    ["trainers/configs/digits.py", "trainers/configs/demo.py"],
    "Configurations to train.",
)
flags.DEFINE_integer("turns", 15, "Turns that count.", lower_bound=1)
flags.DEFINE_integer("steps", 60, "Steps a turn.", lower_bound=1)

_COMPARED_STEPS = 4


def main(argv: list[str]) -> None:
    """Compares, times and writes the CSV."""
    del argv
    rows = []
    for path in FLAGS.configs:
        config = complete_config(load_config_file(path))
        _compare(config)
        arms = {name: make(config) for name, make in ARMS.items()}
        times = interleaved(
            {name: partial(arm.train, FLAGS.steps) for name, arm in arms.items()}, FLAGS.turns
        )
        for name in arms:
            rows.append(
                {
                    "config": path,
                    "model": config.model.name,
                    "batch_size": config.batch_size,
                    "steps": FLAGS.steps,
                    "arm": name,
                    **summary(times[name], times["bare"]),
                    **environment("tensorflow", "keras"),
                }
            )
            print(rows[-1], flush=True)
    print(write_csv("training", rows))


class _Arm(ABC):
    """A model of its own, its optimizer and the data, from a configuration."""

    def __init__(self, config: ConfigDict) -> None:
        self.config = config
        self.source = make_source(config.data.source, config.data.train_split, config.data.data_dir)
        self.schedule = make_training_schedule(config, self.source.num_examples)
        model_config = make_model_config(config, self.source.num_classes)
        self.preprocessing = make_preprocessing(config, model_config)
        self.model, self.optimizer = make_model(config, model_config, self.schedule)
        self.loss = make_loss(config.loss, config.label_smoothing)
        self.step = 0

    def data(self) -> tf.data.Dataset:
        """Returns the endless training batches."""
        return training_dataset(
            self.source,
            self.preprocessing,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            mixup_alpha=self.config.data.mixup_alpha,
        )

    @abstractmethod
    def train(self, num_steps: int) -> None:
        """Trains for some steps."""


class _Bare(_Arm):
    """The first batch again and again, or given ones."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__(config)
        self.batch = next(iter(self.data()))
        self.compiled = tf.function(self._step)

    def train(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.compiled(self.batch["image"], self.batch["target"])
        # Steps are started without waiting for their ends.
        self.model.trainable_variables[0].numpy()

    def train_on(self, batches: list[Any]) -> None:
        """Trains on given batches, for the comparison."""
        for batch in batches:
            self.compiled(batch["image"], batch["target"])

    def _step(self, images: tf.Tensor, targets: tf.Tensor) -> None:
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            images = normalize(images, self.config.data.normalization)
            loss = tf.reduce_mean(self.loss(targets, self.model(images, training=True)))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        gradients, _ = clip_by_global_norm(gradients, self.config.optimizer.global_clipnorm)
        self.optimizer.apply(gradients, variables)


class _Trainer(_Arm):
    """The parts of `trainers.train` in its loop."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__(config)
        engine = make_local_engine()
        self.batches = training_batches(
            self.source,
            self.preprocessing,
            engine,
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=0,
            mixup_alpha=config.data.mixup_alpha,
        )
        self.train_step = make_train_step(config, self.model, self.optimizer, engine)
        self.folder = tempfile.TemporaryDirectory()
        self.writer = MetricsWriter(self.folder.name, 0)
        learning_rate = make_learning_rate(
            config.optimizer,
            warmup_steps=self.schedule.warmup,
            total_steps=self.schedule.total,
        )
        self.log = TrainingLog(self.writer, learning_rate, config.batch_size)

    def train(self, num_steps: int) -> None:
        end = self.step + num_steps
        while self.step < end:
            block = min(self.config.steps_per_loop, end - self.step)
            self.log.add(self.train_step.run(self.batches, self.step, block), block)
            self.step += block
        self.log.write(self.step)


class _Fit(_Arm):
    """`model.fit`; it clips in the optimizer and averages the loss by itself."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__(config)
        self.optimizer.global_clipnorm = config.optimizer.global_clipnorm or None
        self.model.compile(self.optimizer, self.loss, metrics=["categorical_accuracy"])
        dataset = self.data().map(self._pair).prefetch(tf.data.AUTOTUNE)
        batches = iter(dataset)
        # `fit` would begin the dataset anew at each call; this one goes on.
        self.batches = tf.data.Dataset.counter().map(lambda _: next(batches))

    def train(self, num_steps: int) -> None:
        self.model.fit(self.batches, steps_per_epoch=num_steps, verbose=0)

    def _pair(self, batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
        return normalize(batch["image"], self.config.data.normalization), batch["target"]


ARMS: dict[str, type[_Arm]] = {"bare": _Bare, "trainer": _Trainer, "fit": _Fit}


def _compare(config: ConfigDict) -> None:
    """Trains all arms on the same batches and compares their weights with the bare step's.

    Raises:
        SystemExit: If they differ.
    """
    bare = _Bare(config)
    before = [variable.numpy() for variable in bare.model.trainable_variables]
    bare.train_on(list(bare.data().take(_COMPARED_STEPS)))
    expected = bare.model.get_weights()
    moved = max(
        float(np.abs(new - old).max())
        for new, old in zip(bare.model.trainable_variables, before, strict=True)
    )
    for name, make in ARMS.items():
        if make is _Bare:
            continue
        arm = make(config)
        arm.train(_COMPARED_STEPS)
        pairs = zip(arm.model.get_weights(), expected, strict=True)
        worst = max(float(np.abs(mine - other).max()) for mine, other in pairs)
        print(f"{name}: weights differ by {worst:.1e} at most; they moved by {moved:.1e}")
        if not worst < 1e-2 * moved:
            raise SystemExit(f"{name} trains something else than the bare step.")
    keras.backend.clear_session()


if __name__ == "__main__":
    app.run(main)
