"""Video files in class folders, decoded whenever they are wanted."""

from pathlib import Path

import pytest
import tensorflow as tf

from trainers.data.bad_examples import BadExamples
from trainers.data.decode_errors import explain_data_failures
from trainers.data.sources import SPLITS
from trainers.data.sources import make_source
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

pytest.importorskip("av")

from tests.helpers.tiny_videos import frame_numbers  # noqa: E402
from tests.helpers.tiny_videos import write_video  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "val", "test"):
        write_video(tmp_path / split / "run" / "b.mp4", 6)
        write_video(tmp_path / split / "jump" / "a.avi", 1, size=(48, 32))
    return tmp_path


@pytest.mark.parametrize("split", SPLITS)
def test_videos_of_different_length_and_size(folder: Path, split: str) -> None:
    source = make_source("video_folder", split, str(folder))
    assert source.num_examples == 2
    assert source.class_names == ("jump", "run")
    dataset = tf.data.Dataset.range(2).map(source.load, num_parallel_calls=2)
    assert dataset.element_spec["video"] == tf.TensorSpec((None, None, None, 3), tf.uint8)
    jump, run = dataset.as_numpy_iterator()
    assert (jump["label"], run["label"]) == (0, 1)
    assert jump["video"].shape == (1, 48, 32, 3)
    assert frame_numbers(list(run["video"])) == [0, 1, 2, 3, 4, 5]
    assert run["identity"].decode().endswith("run/b.mp4")


def test_damaged_file_is_named(folder: Path) -> None:
    (folder / "train" / "run" / "b.mp4").write_bytes(b"nothing")
    source = make_source("video_folder", "train", str(folder))
    with (
        pytest.raises(DataError, match=r"train/run/b\.mp4: Invalid data"),
        explain_data_failures(source, lambda: range(2)),
    ):
        list(tf.data.Dataset.range(2).map(source.load))


def test_a_truncated_file_is_left_out(folder: Path) -> None:
    (folder / "train" / "run" / "b.mp4").unlink()
    path = write_video(folder / "train" / "run" / "b.avi", 50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = make_source("video_folder", "train", str(folder))
    bad = BadExamples(source, 1)

    def load(index: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"sum": tf.reduce_sum(source.load(index)["video"]), "mask": tf.constant(1.0)}

    elements = tf.data.Dataset.range(2).map(bad.leaving_out(load))
    masks = [float(element["mask"]) for element in elements]
    assert masks == [1.0, 0.0]
    assert "b.avi" in bad.reasons[1] and "truncated" in bad.reasons[1]


def test_layout_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data.source=video_folder.*CLASS/\*\.\{mp4,"):
        make_source("video_folder", "train", None)
    (tmp_path / "train" / "run").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"no video files .* run: .*\.mp4, \.avi"):
        make_source("video_folder", "train", str(tmp_path))


def test_one_folder_is_split_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    for number in range(6):
        write_video(tmp_path / "run" / "deeper" / f"{number}.mp4", 1)
    (tmp_path / "run" / "a.wmv").write_bytes(b"")
    (tmp_path / "stand").mkdir()
    sources = [make_source("video_folder", split, str(tmp_path)) for split in SPLITS]
    assert [source.num_examples for source in sources] == [4, 1, 1]
    assert sources[0].class_names == ("run",)
    assert len(sources[0].file_splits) == 6
    assert "1 .wmv; video files end in" in sources[0].notes[0]
    assert "without video files: stand" in sources[0].notes[1]


def test_remote_videos_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="received gs://bucket/v. Copy the videos to"):
        make_source("video_folder", "train", "gs://bucket/v")
