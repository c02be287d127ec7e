import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.fake_source import ArraySource
from tests.helpers.fake_source import FileSource
from tests.helpers.fake_source import photograph
from tests.helpers.processes import PATIENCE
from trainers.configuration.data_options import PreprocessingConfig
from trainers.data.decode_errors import explain_data_failures
from trainers.data.decode_errors import first_damaged
from trainers.data.pipeline import evaluation_dataset
from trainers.data.pipeline import training_dataset
from trainers.data.shuffling import examples_at_step
from trainers.utils.errors import DataError

CONFIG = PreprocessingConfig((16, 16))


def _image_files(folder: Path, count: int) -> list[str]:
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        path.write_bytes(tf.io.encode_jpeg(photograph()).numpy())
    return [str(path) for path in paths]


def _truncate(path: str) -> None:
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 3])


def _write_text(path: str) -> None:
    Path(path).write_text("not an image")


def _write_gif(path: str) -> None:
    Path(path).write_bytes(b"GIF89a" + bytes(20))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, "Invalid JPEG data"),
        (_write_text, "Unknown image file format"),
        (_write_gif, "GIF is not supported"),
    ],
)
def test_training_names_the_damaged_file(
    tmp_path: Path, damage: Callable[[str], None], reason: str
) -> None:
    source = FileSource(_image_files(tmp_path, 6))
    damage(source.paths[4])
    order = {"batch_size": 2, "seed": 1}
    iterator = iter(training_dataset(source, CONFIG, **order))
    with pytest.raises(DataError) as failure:
        for step in range(3):
            indices = partial(examples_at_step, step, num_examples=6, **order)
            with explain_data_failures(source, indices):
                next(iterator)
    message = str(failure.value)
    assert message.startswith(f"cannot decode image {source.paths[4]} (record 4 of ")
    assert "folder/train" in message and reason in message
    assert message.endswith("; remove or replace the file")
    assert "{{" not in message and "\n" not in message
    assert failure.value.__suppress_context__


def test_evaluation_names_the_damaged_file(tmp_path: Path) -> None:
    source = FileSource(_image_files(tmp_path, 5))
    _truncate(source.paths[3])
    with (
        pytest.raises(DataError, match=r"3\.jpg"),
        explain_data_failures(source, lambda: range(source.num_examples)),
    ):
        list(evaluation_dataset(source, CONFIG, batch_size=2))


def test_missing_file_is_named(tmp_path: Path) -> None:
    source = FileSource(_image_files(tmp_path, 3))
    Path(source.paths[1]).unlink()
    with (
        pytest.raises(DataError, match=r"cannot read record 1 .*1\.jpg"),
        explain_data_failures(source, lambda: range(3)),
    ):
        list(evaluation_dataset(source, CONFIG, batch_size=2))


class _RecordSource(ArraySource):
    """Reads by Python code, as the source of TFDS records does; record 2 is damaged."""

    def load(self, index: Any) -> dict[str, Any]:
        """Return one example."""
        label = tf.numpy_function(self._label, [index], tf.int64, stateful=False)
        return {**super().load(index), "label": tf.ensure_shape(label, ())}

    def _label(self, index: np.int64) -> np.int64:
        if index == 2:
            raise DataError("squares.tfrecord is damaged: the record at byte 96 is cut off")
        return np.int64(0)


def test_an_error_of_python_code_is_told_in_one_line() -> None:
    source = _RecordSource(4)
    with (
        pytest.raises(DataError) as failure,
        explain_data_failures(source, lambda: range(4)),
    ):
        list(evaluation_dataset(source, CONFIG, batch_size=2))
    message = "squares.tfrecord is damaged: the record at byte 96 is cut off"
    assert str(failure.value) == message


class _WatchedSource(ArraySource):
    """Sound but for two examples; two are always loaded at the same time."""

    def __init__(self) -> None:
        super().__init__(8)
        self.barrier = threading.Barrier(2)
        self.loaded: list[int] = []

    def load(self, index: Any) -> dict[str, Any]:
        """Return one example, or fail, once another one is loaded, too."""
        self.loaded.append(int(index))
        self.barrier.wait(timeout=PATIENCE)
        if index in (4, 6):
            raise DataError(f"example {int(index)} is damaged")
        return super().load(index)


def test_the_first_of_the_candidates_is_found_side_by_side(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    source = _WatchedSource()
    found = first_damaged(source, [7, 1, 7, 6, 1, 4])
    assert str(found) == "example 6 is damaged"
    assert sorted(source.loaded) == [1, 4, 6, 7]  # each of them once
    told = "looking for the damaged example of array/train ...\n"
    assert capsys.readouterr().err == told
    first_damaged(ArraySource(8), [3])  # one is no search
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [tf.errors.InvalidArgumentError(None, None, "of the model"), ValueError("of the model")],
)
def test_other_errors_pass(error: Exception) -> None:
    source = ArraySource(4)
    assert first_damaged(source, range(4)) is None
    with (
        pytest.raises(type(error), match="of the model"),
        explain_data_failures(source, lambda: range(4)),
    ):
        raise error


def test_sound_images_pass_unchanged(tmp_path: Path) -> None:
    source = FileSource(_image_files(tmp_path, 2))
    with explain_data_failures(source, lambda: range(2)):
        (batch,) = evaluation_dataset(source, CONFIG, batch_size=2)
    assert np.ptp(batch["image"]) > 50
