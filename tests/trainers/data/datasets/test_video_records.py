"""TFRecords of videos: what they give, and every way in which they can be wrong."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.video_record_sets import SmallVideo
from tests.helpers.video_record_sets import describe
from tests.helpers.video_record_sets import frame_of
from tests.helpers.video_record_sets import number_of
from tests.helpers.video_record_sets import sequence_example
from tests.helpers.video_record_sets import small_videos
from tests.helpers.video_record_sets import write_small_set
from tests.helpers.video_record_sets import write_split
from trainers.configuration.data_options import RecordsConfig
from trainers.data.datasets.video_records import VideoRecordsSource
from trainers.data.decode_errors import explain_data_failures
from trainers.data.decode_errors import first_damaged
from trainers.data.sources import SPLITS
from trainers.data.sources import make_source
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

SEVERAL = RecordsConfig(multi_label=True)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path_factory.mktemp("cache")))


def examples_of(source: VideoRecordsSource) -> list[dict[str, Any]]:
    dataset = tf.data.Dataset.range(source.num_examples).map(source.load)
    return list(dataset.as_numpy_iterator())


@pytest.mark.parametrize("split", SPLITS)
def test_all_videos_of_all_shards(tmp_path: Path, split: str) -> None:
    source = make_source("records", split, str(write_small_set(tmp_path)))
    videos = small_videos({"train": 12, "validation": 5, "test": 4}[split])
    assert source.num_examples == len(videos)
    assert source.class_names == ("class 0", "class 1", "class 2")
    for video, example in zip(videos, examples_of(source), strict=True):
        assert example["label"] == video.labels[0]
        assert example["frames"].shape == (video.num_frames,)
        last = tf.io.decode_image(example["frames"][-1]).numpy()
        assert last.shape == (24, 32, 3)
        assert number_of(last) == video.number
        assert frame_of(last) == video.num_frames - 1


def test_shapes_and_types(tmp_path: Path) -> None:
    source = make_source("records", "train", str(write_small_set(tmp_path)))
    spec = tf.data.Dataset.range(1).map(source.load).element_spec
    assert spec["label"] == tf.TensorSpec((), tf.int64)
    assert spec["frames"] == tf.TensorSpec((None,), tf.string)
    assert spec["identity"] == tf.TensorSpec((), tf.string)


def test_identity_names_file_and_record(tmp_path: Path) -> None:
    source = VideoRecordsSource(str(write_small_set(tmp_path)), "train")
    identity = examples_of(source)[8]["identity"].decode()
    place = f"{tmp_path}/train.tfrecord-00001-of-00002, record 2 at byte "
    assert identity.startswith(place) and int(identity.removeprefix(place)) > 0
    assert source.identity(8) == identity


def test_several_labels(tmp_path: Path) -> None:
    source = VideoRecordsSource(str(write_small_set(tmp_path, multi_label=True)), "train", SEVERAL)
    spec = tf.data.Dataset.range(1).map(source.load).element_spec
    assert spec["label"] == tf.TensorSpec((3,), tf.float32)
    labels = [example["label"].tolist() for example in examples_of(source)]
    assert labels[:6] == [[0, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 1]]


def test_several_labels_must_be_expected(tmp_path: Path) -> None:
    write_small_set(tmp_path, multi_label=True)
    with pytest.raises(ConfigurationError, match=r"any number of labels.*data\.multi_label=True"):
        VideoRecordsSource(str(tmp_path), "train")


def test_a_label_given_twice_is_one(tmp_path: Path) -> None:
    describe(tmp_path, ["a", "b"], multi_label=True)
    write_split(tmp_path, "train", [SmallVideo(0, (1, 1, 1), num_frames=1)], 1)
    assert examples_of(VideoRecordsSource(str(tmp_path), "train", SEVERAL))[0][
        "label"
    ].tolist() == [0, 1]


def test_keys_and_classes_from_the_configuration(tmp_path: Path) -> None:
    write_split(tmp_path, "train", small_videos(3), image_key="frames/png", label_key="y")
    config = RecordsConfig(image_key="frames/png", label_key="y", num_classes=5)
    source = make_source("records", "train", str(tmp_path), records=config)
    assert source.num_classes == 5
    assert source.class_names == ("0", "1", "2", "3", "4")
    assert [int(example["label"]) for example in examples_of(source)] == [0, 1, 2]


def test_other_names_of_files(tmp_path: Path) -> None:
    write_small_set(tmp_path)
    for path in tmp_path.glob("*.tfrecord-*"):
        path.rename(tmp_path / path.name.replace(".tfrecord", "").replace("validation", "val"))
    assert VideoRecordsSource(str(tmp_path), "validation").num_examples == 5
    assert VideoRecordsSource(str(tmp_path), "train").num_examples == 12


def test_label_map_as_json(tmp_path: Path) -> None:
    write_small_set(tmp_path)
    (tmp_path / "labels.txt").unlink()
    (tmp_path / "labels.json").write_text('{"run": 1, "jump": 0, "throw": 2}')
    assert VideoRecordsSource(str(tmp_path), "test").class_names == ("jump", "run", "throw")


def test_numbers_of_classes_that_differ(tmp_path: Path) -> None:
    write_small_set(tmp_path)
    with pytest.raises(ConfigurationError, match="3 in the label map, 4 in records.num_classes"):
        VideoRecordsSource(str(tmp_path), "train", RecordsConfig(num_classes=4))


def test_unknown_number_of_classes(tmp_path: Path) -> None:
    write_split(tmp_path, "train", small_videos(2))
    with pytest.raises(ConfigurationError, match=r"records\.num_classes\. Received none"):
        VideoRecordsSource(str(tmp_path), "train")


@pytest.mark.parametrize("key", ["image_key", "label_key"])
def test_wrong_key_lists_those_there_are(tmp_path: Path, key: str) -> None:
    config = RecordsConfig(**{key: "nonsense"})
    with pytest.raises(
        ConfigurationError, match=f"records.{key}.* it has .*(image|clip)/"
    ) as error:
        VideoRecordsSource(str(write_small_set(tmp_path)), "train", config)
    assert "train.tfrecord-00000-of-00002, record 0" in str(error.value)


def test_missing_shard(tmp_path: Path) -> None:
    write_small_set(tmp_path)
    (tmp_path / "train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(ConfigurationError, match=r"lacks 1 of 2 files.*number 00001"):
        VideoRecordsSource(str(tmp_path), "train")


def test_two_sets_of_shards(tmp_path: Path) -> None:
    write_small_set(tmp_path)
    write_split(tmp_path, "train", small_videos(2), num_shards=1)
    with pytest.raises(ConfigurationError, match=r"\*-of-00001, train.tfrecord-\*-of-00002"):
        VideoRecordsSource(str(tmp_path), "train")


@pytest.mark.parametrize("data_dir", [None, "/nonexistent/folder"])
def test_missing_folder(data_dir: str | None) -> None:
    message = r"needs data.data_dir.*SPLIT\.tfrecord-00000.*make_video_records makes"
    with pytest.raises(ConfigurationError, match=message):
        make_source("records", "train", data_dir)


def test_no_file_of_the_split(tmp_path: Path) -> None:
    describe(tmp_path, ["a"])
    made = r"Make it by trainers\.make_video_records --split="
    for split, hint in (("test", r"test, or set data\.final_split=None\."), ("train", r"train\.")):
        with pytest.raises(ConfigurationError, match=f"'{split}', found none.*{made}{hint}$"):
            VideoRecordsSource(str(tmp_path), split)


def write_last(folder: Path, record: bytes) -> VideoRecordsSource:
    """Writes two good videos, then another and a record of any kind in a second file."""
    write_small_set(folder)
    write_split(folder, "train", small_videos(2), num_shards=1)
    (folder / "train.tfrecord-00000-of-00001").replace(folder / "train.tfrecord-00000-of-00002")
    with tf.io.TFRecordWriter(str(folder / "train.tfrecord-00001-of-00002")) as writer:
        writer.write(labelled(1))
        writer.write(record)
    return VideoRecordsSource(str(folder), "train")


def labelled(*labels: int) -> bytes:
    return sequence_example(SmallVideo(1, labels, num_frames=1))


@pytest.mark.parametrize(
    ("make_record", "reason"),
    [
        (lambda: b"\xff\xff\xff", "Invalid protocol message"),
        (lambda: sequence_example(SmallVideo(1), image_key="pictures"), "image/encoded"),
        (lambda: labelled(3), "outside of 0 to 2, for 3 classes"),
        (lambda: labelled(-1), "outside of 0 to 2"),
        (lambda: labelled(0, 1), r"data\.multi_label=True"),
        (lambda: labelled(), "one label was expected"),
    ],
)
def test_bad_record_is_named(tmp_path: Path, make_record: Callable[[], bytes], reason: str) -> None:
    source = write_last(tmp_path, make_record())
    with (
        pytest.raises(DataError, match=reason) as error,
        explain_data_failures(source, lambda: range(source.num_examples)),
    ):
        examples_of(source)
    assert "train.tfrecord-00001-of-00002, record 1" in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_frame_names_the_video_and_what_to_do(tmp_path: Path) -> None:
    source = write_last(tmp_path, sequence_example(SmallVideo(7, num_frames=2, corrupt_frame=1)))
    failure = first_damaged(source, range(source.num_examples))
    assert failure is not None
    message = str(failure)
    assert message.startswith("cannot decode frame 1, counted from 0, of video ")
    assert re.search(
        r"00001-of-00002, record 1 at byte \d+ \(record 3 of records/train, made of 7\.mp4\): ",
        message,
    )
    hint = "; remove its file and convert again, or skip it by data.max_bad_examples=N"
    assert message.endswith(hint)


def test_a_flipped_byte_is_named(tmp_path: Path) -> None:
    source = write_last(tmp_path, labelled(1))
    path = tmp_path / "train.tfrecord-00001-of-00002"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with (
        pytest.raises(DataError, match=r"00001-of-00002 is damaged: .* its checksum is wrong"),
        explain_data_failures(source, lambda: range(source.num_examples)),
    ):
        examples_of(source)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    source = write_last(tmp_path, labelled(1))
    (tmp_path / "train.tfrecord-00001-of-00002").unlink()
    with (
        pytest.raises(DataError, match=r"00001-of-00002.*remove its file and convert again"),
        explain_data_failures(source, lambda: range(source.num_examples)),
    ):
        examples_of(source)


def test_record_without_frames(tmp_path: Path) -> None:

    source = write_last(tmp_path, sequence_example(SmallVideo(1, num_frames=0)))
    with (
        pytest.raises(DataError, match=r"00001-of-00002, record 1.*no frames"),
        explain_data_failures(source, lambda: range(source.num_examples)),
    ):
        examples_of(source)


def test_first_record_is_of_another_kind(tmp_path: Path) -> None:
    describe(tmp_path, ["a"])
    with tf.io.TFRecordWriter(str(tmp_path / "train.tfrecord-00000-of-00001")) as writer:
        writer.write(b"\xff\xff")
    with pytest.raises(DataError, match=r"record 0 at byte 0 is not a tf\.train\.SequenceExample"):
        VideoRecordsSource(str(tmp_path), "train")


def test_images_in_place_of_videos(tmp_path: Path) -> None:
    describe(tmp_path, ["a"])
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(b"image")
    example.features.feature["label"].int64_list.value.append(0)
    with tf.io.TFRecordWriter(str(tmp_path / "train.tfrecord-00000-of-00001")) as writer:
        writer.write(example.SerializeToString())
    message = (
        r"record 0 at byte 0 is a tf\.train\.Example, with the features image/encoded, label\. "
        r"Expected a tf\.train\.SequenceExample, .*'image/encoded'.*trainers\.make_video_records"
    )
    with pytest.raises(ConfigurationError, match=message):
        VideoRecordsSource(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dataset.json", "{", "is not JSON"),
        ("dataset.json", "{}", "must hold"),
        ("labels.txt", "a\n\nb\n", "line 2 is empty"),
        ("labels.txt", "a\nb\na\n", "line 3 names 'a' again"),
        ("labels.txt", "", "is empty"),
    ],
)
def test_damaged_small_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    write_small_set(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        VideoRecordsSource(str(tmp_path), "train")


@pytest.mark.parametrize("changes", [{"image_key": ""}, {"num_classes": 0}])
def test_configuration_is_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"records.{next(iter(changes))}"):
        RecordsConfig(**changes)


def test_frames_are_the_bytes_that_were_written(tmp_path: Path) -> None:
    source = VideoRecordsSource(str(write_small_set(tmp_path)), "test")
    content = (tmp_path / "test.tfrecord-00000-of-00002").read_bytes()
    assert np.all([frame in content for frame in examples_of(source)[1]["frames"]])
