"""Files that are made to do harm: `python -m benchmarks.reliability.hostile_files`."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

import tokenlearner_keras as tk
from benchmarks.reliability import part
from benchmarks.reliability.hostile_data import bombs
from benchmarks.reliability.hostile_data import hostile_arrays
from benchmarks.reliability.hostile_models import HOSTILE
from benchmarks.reliability.hostile_models import write_good
from benchmarks.reliability.hostile_models import write_hostile
from benchmarks.timing import memory_growth
from trainers.checkpointing.init_from import initialize
from trainers.checkpointing.keras_archive import load_keras_archive
from trainers.checkpointing.store import CheckpointStore
from trainers.configuration.data_options import PreprocessingConfig
from trainers.data.datasets.folders import ImageFolderSource
from trainers.data.decode_errors import first_damaged
from trainers.data.preprocessing.decoding import decode_image
from trainers.inference.keras_file import InputSettings
from trainers.inference.keras_file import load_keras_file
from trainers.inference.reader import PredictionReader
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

MOST_BYTES = 300 * 2**20
#: What a reader may raise: messages for a person.
_REFUSALS = (ConfigurationError, DataError, ValueError)
#: By the name of what reads a file: takes its path.
Readers = dict[str, Callable[[str], object]]


def measure(workdir: Path) -> Iterator[part.Row]:
    shutil.rmtree(workdir)
    workdir.mkdir()
    marker = workdir / "marker"
    good = workdir / "good.keras"
    write_good(good)
    model = load_keras_archive(str(good))
    vit = tk.create_model("vit_ti16", num_classes=3, image_size=32)

    hostile = {}
    for name in HOSTILE:
        path = workdir / f"{name.replace(' ', '_')}.keras"
        write_hostile(good, path, name, marker)
        hostile[name] = path
    readers: Readers = {
        "predict, evaluate and export --model": lambda path: load_keras_file(path, InputSettings()),
        "init_from": lambda path: initialize(model, path),
    }
    yield _row("`.keras` files", hostile, readers, marker)

    arrays = hostile_arrays(marker)
    weights = {}
    for number, (name, payload) in enumerate(arrays.items()):
        weights[name] = workdir / f"{number}.npz"
        weights[name].write_bytes(payload)
    readers = {
        "tk.load_npz": lambda path: tk.load_npz(vit, path),
        "init_from": lambda path: initialize(vit, path),
    }
    yield _row("`.npz` files of weights", weights, readers, marker)

    checkpoints = {name: _checkpoint(workdir / "runs", name, arrays[name]) for name in arrays}
    yield _row("checkpoints, with manifests that fit", checkpoints, {"resuming": _resume}, marker)

    images = {}
    for ending, payload in bombs().items():
        folder = workdir / "images" / ending[1:]
        for split in ("train", "val"):
            for label in ("a", "b"):
                (folder / split / label).mkdir(parents=True)
                (folder / split / label / f"bomb{ending}").write_bytes(payload)
        images[f"{ending} of 3.6 billion pixels"] = folder / "train" / "a" / f"bomb{ending}"
    reader = PredictionReader(PreprocessingConfig((32, 32)))
    yield _row("images", images, {"predict": reader.read, "training": _train_on}, marker)


def _row(kind: str, hostile: dict[str, Path], readers: Readers, marker: Path) -> part.Row:
    held, most = 0, 0
    for name, path in hostile.items():
        for reader, read in readers.items():
            refused, grown = _is_refused(read, path)
            is_fine = refused and not marker.exists() and grown <= MOST_BYTES
            if not is_fine:
                print(f"{name}, {reader}: refused {refused}, {grown} bytes", flush=True)
            held, most = held + is_fine, max(most, grown)
    return part.Row(
        f"{kind}: {', '.join(hostile)}; read by {', '.join(readers)}: refused in one line that "
        f"names the file, nothing runs, at most {MOST_BYTES // 2**20} MiB more memory",
        len(hostile) * len(readers),
        held,
        f"memory grew by {most / 2**20:.0f} MiB at most",
    )


def _is_refused(read: Callable[[str], object], path: Path) -> tuple[bool, int]:
    """Returns whether a file is refused as it must be, and by how much the process grew."""
    keras.utils.clear_session()
    message = ""

    def try_to_read() -> None:
        nonlocal message
        try:
            read(str(path))
        except _REFUSALS as error:
            message = str(error)
        except Exception as error:  # what would be a traceback
            print(f"{path}: {type(error).__name__}: {error}", flush=True)

    grown = max(0, memory_growth(try_to_read))
    return path.name in message and "\n" not in message.strip(), grown


def _checkpoint(folder: Path, name: str, payload: bytes) -> Path:
    """Writes a checkpoint whose manifest says that its arrays are what was saved."""
    path = folder / name.replace(" ", "_") / "step_00000004"
    path.mkdir(parents=True)
    (path / "arrays.npz").write_bytes(payload)
    manifest = {
        "step": 4,
        "file": "arrays.npz",
        "bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "metrics": {},
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def _resume(path: str) -> None:
    """Looks for the newest checkpoint, as a training does; raises what it says."""
    reports: list[str] = []
    found = CheckpointStore(os.path.dirname(path), 3, reports.append).load_newest()
    if found is None:
        raise DataError(" ".join(reports))


def _train_on(path: str) -> None:
    """Reads an image as the trainer does, and explains the failure as it does."""
    source = ImageFolderSource(str(Path(path).parents[2]), "train")
    try:
        decode_image(source.load(tf.constant(0, tf.int64)))
    except tf.errors.OpError as error:
        raise first_damaged(source, [0]) or error from None


if __name__ == "__main__":
    part.run("hostile_files", measure)
