"""A training as one would write it with Keras alone, which resumes after a kill.

    python -m benchmarks.reliability.backup_and_restore DIR STEPS INTERVAL

`model.fit` with `keras.callbacks.BackupAndRestore` after every INTERVAL batches, on the digits. It
writes the steps to `metrics.jsonl`, and at its end the sha256 of the weights.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tokenlearner_keras as tk
from trainers.configs.digits import get_config
from trainers.data.datasets.digits import digits_source

_BATCH = 64
_LOG_STEPS = 7


class _StepWriter(keras.callbacks.Callback):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = int(self.model.optimizer.iterations)
        if step % _LOG_STEPS == 0:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step}) + "\n")


def main(folder: Path, steps: int, interval: int) -> None:
    keras.utils.set_random_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    source = digits_source("train")
    config = get_config().model.to_dict()
    model = tk.create_model(config.pop("name"), num_classes=10, dropout=0.1, **config)
    model.compile(
        keras.optimizers.AdamW(2e-3, weight_decay=0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images = np.stack([source.load(tf.constant(i))["image"] for i in range(source.num_examples)])
    labels = np.array([source.load(tf.constant(i))["label"] for i in range(source.num_examples)])
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.shuffle(len(labels), seed=0).batch(_BATCH, drop_remainder=True)
    data = data.map(lambda image, label: (tf.image.resize(image, (16, 16)) / 255.0, label))
    per_epoch = len(labels) // _BATCH
    model.fit(
        data,
        epochs=-(-steps // per_epoch),
        verbose=0,
        callbacks=[
            keras.callbacks.BackupAndRestore(str(folder / "backup"), save_freq=interval),
            _StepWriter(folder / "metrics.jsonl"),
        ],
    )
    total = hashlib.sha256()
    for weights in model.get_weights():
        total.update(weights.tobytes())
    (folder / "weights.sha256").write_text(total.hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
