"""What the trainer's loop adds to a bare compiled step, beside `model.fit`.

    python -m benchmarks.training [--configs=trainers/configs/digits.py,...] [--turns=15]

All train the same model on the same data. Before anything is timed, all must end with the same
weights. Writes `results/training.csv`: seconds a turn and the ratio to the bare step.
"""

import itertools
import tempfile
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from ml_collections import ConfigDict

from benchmarks.timing import environment
from benchmarks.timing import time_in_turns
from benchmarks.timing import write_csv
from trainers.configuration.configuration import whole_config
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


def main(_: list[str]) -> None:
    rows = []
    for path in FLAGS.configs:
        config = whole_config(path)
        _compare(config)
        candidates = {name: partial(way(config).train, FLAGS.steps) for name, way in WAYS.items()}
        times = time_in_turns(candidates, FLAGS.turns, "bare")
        for name, result in times.items():
            rows.append(
                {
                    "config": path,
                    "model": config.model.name,
                    "batch_size": config.batch_size,
                    "steps": FLAGS.steps,
                    "arm": name,
                    **result,
                    **environment("tensorflow", "keras"),
                }
            )
            print(rows[-1], flush=True)
    print(write_csv("training", rows))


class _Way:
    """A way to train: its model and optimizer, and the data."""

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
        return training_dataset(
            self.source,
            self.preprocessing,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            mixup_alpha=self.config.data.mixup_alpha,
            cutmix_alpha=self.config.data.cutmix_alpha,
        )

    def train(self, num_steps: int) -> None:
        raise NotImplementedError


class _Bare(_Way):
    """A compiled step without metrics, on a batch that is in memory."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__(config)
        self.batches = itertools.repeat(next(iter(self.data())))
        self.compiled = tf.function(self._step)

    def train(self, num_steps: int) -> None:
        for batch in itertools.islice(self.batches, num_steps):
            self.compiled(batch["image"], batch["target"])
        # Steps are started without waiting for their ends.
        self.model.trainable_variables[0].numpy()

    def _step(self, images: tf.Tensor, targets: tf.Tensor) -> None:
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            images = normalize(images, self.config.data.normalization)
            loss = tf.reduce_mean(self.loss(targets, self.model(images, training=True)))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        gradients, _ = clip_by_global_norm(gradients, self.config.optimizer.global_clipnorm)
        self.optimizer.apply(gradients, variables)


class _Trainer(_Way):
    """The loop of `trainers.train`: pipeline, compiled loop, averages, rows of metrics.jsonl."""

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
            cutmix_alpha=config.data.cutmix_alpha,
        )
        self.train_step = make_train_step(config, self.model, self.optimizer, engine)
        self.folder = tempfile.TemporaryDirectory()
        warmup, total = self.schedule.warmup, self.schedule.total
        learning_rate = make_learning_rate(config.optimizer, warmup_steps=warmup, total_steps=total)
        writer = MetricsWriter(self.folder.name, 0)
        self.log = TrainingLog(writer, learning_rate, config.batch_size)

    def train(self, num_steps: int) -> None:
        end = self.step + num_steps
        while self.step < end:
            block = min(self.config.steps_per_loop, end - self.step)
            sums = self.train_step.run(self.batches, self.step, block)
            self.log.add(sums, block, compiled=self.train_step.has_compiled)
            self.step += block
        self.log.write(self.step)


class _Fit(_Way):
    """`model.fit` on the same pipeline; the optimizer clips, `fit` averages the loss."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__(config)
        self.optimizer.global_clipnorm = config.optimizer.global_clipnorm or None
        self.model.compile(self.optimizer, self.loss, metrics=["categorical_accuracy"])
        batches = iter(self.data().map(self._pair).prefetch(tf.data.AUTOTUNE))
        # `fit` would begin the dataset again at each call; this iterator continues.
        self.batches = tf.data.Dataset.counter().map(lambda _: next(batches))

    def train(self, num_steps: int) -> None:
        self.model.fit(self.batches, steps_per_epoch=num_steps, verbose=0)

    def _pair(self, batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
        return normalize(batch["image"], self.config.data.normalization), batch["target"]


WAYS: dict[str, type[_Way]] = {"bare": _Bare, "trainer": _Trainer, "fit": _Fit}


def _compare(config: ConfigDict) -> None:
    """Trains on the same batches in all ways and compares the weights with the bare step's."""
    bare = _Bare(config)
    before = [variable.numpy() for variable in bare.model.trainable_variables]
    bare.batches = iter(bare.data())
    bare.train(_COMPARED_STEPS)
    expected = bare.model.get_weights()
    moved = max(
        float(np.abs(new - old).max())
        for new, old in zip(bare.model.trainable_variables, before, strict=True)
    )
    others: dict[str, _Way] = {"trainer": _Trainer(config), "fit": _Fit(config)}
    for name, way in others.items():
        way.train(_COMPARED_STEPS)
        pairs = zip(way.model.get_weights(), expected, strict=True)
        worst = max(float(np.abs(mine - other).max()) for mine, other in pairs)
        print(f"{name}: weights differ by {worst:.1e} at most; they moved by {moved:.1e}")
        if not worst < 1e-2 * moved:
            raise SystemExit(f"{name} trains something else than the bare step.")
    keras.backend.clear_session()


if __name__ == "__main__":
    app.run(main)
