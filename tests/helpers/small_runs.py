"""A small experiment, and the trainer's command on it inside the test's process."""

import functools
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from trainers import train
from trainers.configuration.configuration import parse_config_flag
from trainers.engines.engine import Engine
from trainers.engines.flags import make_engine

TINY_MODEL = {
    "name": "vit_ti4_d1_tl2at0",
    "image_size": 8,
    "width": 16,
    "num_heads": 2,
    "mlp_dim": 32,
}

TINY_CONFIG = f"""
from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.batch_size = 32
    config.total_steps = 4
    config.log_steps = 1
    config.model = {TINY_MODEL!r}
    config.data = {{"source": "digits"}}
    config.augmentation = {{"crop": "none", "flip": False}}
    config.optimizer = {{"learning_rate": 0.01, "schedule": "constant"}}
    return config
"""


def config_file(folder: Path, text: str = TINY_CONFIG) -> str:
    """Writes a configuration file and returns its path."""
    path = folder / "experiment.py"
    path.write_text(text)
    return str(path)


def parse(*arguments: str) -> flags.FlagValues:
    """Parses a command line of the trainer into flags of its own."""
    values = flags.FlagValues()
    train.define_flags(values)
    parse_config_flag(["train", *arguments], values)
    return values


def write_images(folder: Path, classes: int) -> None:
    """Writes a folder of images: a grey one a class for training, and for validation."""
    for number in range(classes):
        pixels = tf.fill((9, 12, 3), tf.constant(20 * number, tf.uint8))
        for split in ("train", "val"):
            path = folder / split / str(number) / "one.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(tf.io.encode_png(pixels).numpy())


@functools.cache
def engine_of(replicas: int) -> Engine:
    """Returns an engine on one or two (virtual) CPUs, the same one in every test."""
    if keras.backend.backend() == "jax":
        return _jax_engine(replicas)
    if len(tf.config.list_logical_devices("CPU")) < replicas:
        pytest.skip("this process has no logical CPUs")
    return make_engine(strategy="one_device" if replicas == 1 else "mirrored")


def _jax_engine(replicas: int) -> Engine:
    import jax

    from trainers.engines.hosts import Hosts
    from trainers.engines.jax_engine import JaxEngine
    from trainers.engines.jax_sharding import JaxLayout

    if len(jax.devices()) < replicas:
        pytest.skip("this process has no virtual devices")
    return JaxEngine(JaxLayout(jax.devices()[:replicas]), Hosts())


def shares(engine: Engine, batch: Any) -> list[np.ndarray]:
    """Returns the parts of an array of a batch that the replicas work on, in order."""
    if engine.name == "jax":
        parts = sorted(batch.addressable_shards, key=lambda part: part.index[0].start or 0)
        return [np.asarray(part.data) for part in parts]
    return [np.asarray(part) for part in engine.strategy.experimental_local_results(batch)]


def run_command(
    monkeypatch: pytest.MonkeyPatch, module: Any, *arguments: str, **replaced: Any
) -> None:
    """Runs a command in the test's process.

    Args:
        monkeypatch: pytest's.
        module: Of the command, such as `trainers.predict`.
        *arguments: Its command line.
        **replaced: What stands in for names of the module meanwhile.
    """
    values = flags.FlagValues()
    module.define_flags(values)
    values([module.__name__, *arguments])
    with monkeypatch.context() as patch:
        for name, value in {"FLAGS": values, **replaced}.items():
            patch.setattr(module, name, value)
        module.main()


class Trainer:
    """The trainer's command with the tiny experiment, without a process of its own.

    Args:
        monkeypatch: pytest's.
        folder: Takes the configuration file and the work directories.
        text: The configuration file.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, text: str = TINY_CONFIG
    ) -> None:
        self.monkeypatch = monkeypatch
        self.folder = folder
        self.config = config_file(folder, text)

    def __call__(self, name: str, *arguments: str) -> Path:
        """Trains in the work directory `name` and returns it."""
        workdir = self.folder / name
        values = parse(
            f"--config={self.config}",
            f"--workdir={workdir}",
            "--strategy=one_device",
            *arguments,
        )
        with self.monkeypatch.context() as patch:
            patch.setattr(train, "FLAGS", values)
            if values.strategy == "mirrored" and not values.tpu:
                patch.setattr(train, "make_engine", lambda *_, **__: engine_of(2))
            train.main()
        return workdir


def rows(workdir: Path, split: str | None = None) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, of one split or of all."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [row for row in found if split in (None, row["split"])]


def checkpoint_arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint."""
    path = workdir / "checkpoints" / f"step_{step:08d}" / "arrays.npz"
    with np.load(path) as file:
        return dict(file)


def assert_same_arrays(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    """Fails unless two checkpoints are the same, bit for bit."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value.tobytes() == right[name].tobytes(), name
