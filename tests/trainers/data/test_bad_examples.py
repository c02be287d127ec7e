"""Examples that cannot be read: skipped up to a limit, the same ones on every run."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.video_record_sets import SmallVideo
from tests.helpers.video_record_sets import describe
from tests.helpers.video_record_sets import number_of
from tests.helpers.video_record_sets import write_split
from trainers.configuration.data_options import DataConfig
from trainers.data.bad_examples import BadExamples
from trainers.data.bad_examples import BadExamplesFile
from trainers.data.datasets.video_records import VideoRecordsSource
from trainers.data.decode_errors import explain_data_failures
from trainers.data.shuffling import examples_at_step
from trainers.data.shuffling import shuffled_examples
from trainers.data.shuffling import step_positions
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError

NUM_VIDEOS = 12
BAD = (3, 4, 11)
ORDER = {"num_examples": NUM_VIDEOS, "batch_size": 4, "seed": 5}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path_factory.mktemp("cache")))


def open_source(folder: Path, bad: tuple[int, ...] = BAD) -> VideoRecordsSource:
    describe(folder, ["a"])
    videos = [
        SmallVideo(number, num_frames=3, corrupt_frame=1 if number in bad else None)
        for number in range(NUM_VIDEOS)
    ]
    write_split(folder, "train", videos)
    return VideoRecordsSource(str(folder), "train")


def load_all_frames(source: VideoRecordsSource, index: tf.Tensor, *rest: tf.Tensor) -> Any:
    example = source.load(index)
    frames = tf.map_fn(
        partial(tf.io.decode_jpeg, channels=3), example["frames"], fn_output_signature=tf.uint8
    )
    return {"image": tf.ensure_shape(frames, (3, 24, 32, 3)), "seed": tf.add_n(rest)}


def evaluation_load(source: VideoRecordsSource, index: tf.Tensor) -> Any:
    clip = load_all_frames(source, index, index)
    return {**clip, "mask": tf.constant(1.0), "index": index}


def training_videos(
    source: VideoRecordsSource, examples: BadExamples, start_step: int, num_steps: int
) -> list[list[int]]:
    """Returns the numbers of the videos in each batch."""

    def addresses(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        positions = step_positions(step, ORDER["batch_size"])
        indices, epochs = shuffled_examples(positions, NUM_VIDEOS, ORDER["seed"])
        return indices, indices + 100 * epochs

    load = examples.replacing(partial(load_all_frames, source))
    dataset = tf.data.Dataset.counter(start_step).map(addresses).unbatch()
    dataset = dataset.map(load, num_parallel_calls=4).batch(ORDER["batch_size"])
    batches = list(dataset.take(num_steps).as_numpy_iterator())
    seeds = np.concatenate([batch["seed"] for batch in batches])
    steps = range(start_step, start_step + num_steps)
    indices = np.concatenate([examples_at_step(step, **ORDER) for step in steps])
    assert (
        seeds.tolist()
        == (indices + 100 * (np.arange(len(indices)) // NUM_VIDEOS + start_step // 3)).tolist()
    )
    return [[number_of(clip) for clip in batch["image"]] for batch in batches]


def replaced(index: int) -> int:
    while index % NUM_VIDEOS in BAD:
        index += 1
    return index % NUM_VIDEOS


def test_the_next_good_example_stands_in(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    messages: list[str] = []
    examples = BadExamples(source, 3, log=messages.append)
    videos = training_videos(source, examples, 0, 6)
    expected = [[replaced(i) for i in examples_at_step(step, **ORDER)] for step in range(6)]
    assert videos == expected
    assert examples.count == len(messages) == 3
    assert tuple(examples.reasons) == BAD
    for index, reason in examples.reasons.items():
        shard, record = divmod(index, 6)
        assert f"train.tfrecord-0000{shard}-of-00002, record {record}" in reason
        assert "frame 1" in reason
    assert examples.report().startswith("records/train: 3 of 12 examples cannot be read, 3 are")


def test_a_run_that_goes_on_sees_the_same(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    whole = training_videos(source, BadExamples(source, 3), 0, 9)
    assert training_videos(source, BadExamples(source, 3), 3, 6) == whole[3:]


def test_more_than_the_limit_stops(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    examples = BadExamples(source, 2)
    with (
        pytest.raises(DataError, match=r"3 examples of records/train cannot.*max_bad_examples=2"),
        explain_data_failures(source, lambda: range(NUM_VIDEOS)),
        examples.explain(),
    ):
        training_videos(source, examples, 0, 3)


@pytest.mark.slow
def test_a_run_that_goes_on_counts_on(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    path = str(tmp_path / "bad_examples.jsonl")
    examples = BadExamples(source, 3)
    training_videos(source, examples, 0, 1)
    examples.remember_in(BadExamplesFile(path))
    training_videos(source, examples, 1, 2)
    with open(path, "a") as file:
        file.write('{"source": "records/tr')  # a kill while writing
    messages: list[str] = []
    examples = BadExamples(source, 3, messages.append)
    examples.remember_in(BadExamplesFile(path))
    assert tuple(examples.reasons) == BAD
    lines = Path(path).read_text().splitlines()
    assert sorted(json.loads(line)["index"] for line in lines) == list(BAD)
    training_videos(source, examples, 3, 3)
    assert examples.count == 3 and not messages
    assert Path(path).read_text().splitlines() == lines
    with pytest.raises(DataError, match="max_bad_examples=1"):
        again = BadExamples(source, 1)
        again.remember_in(BadExamplesFile(path))
        with again.explain():
            training_videos(source, again, 0, 3)


def test_nothing_good_at_all(tmp_path: Path) -> None:
    source = open_source(tmp_path, bad=tuple(range(NUM_VIDEOS)))
    examples = BadExamples(source, 100)
    with pytest.raises(DataError, match="no example of records/train can be read"):
        with examples.explain():
            training_videos(source, examples, 0, 1)
    examples = BadExamples(source, 100)
    dataset = tf.data.Dataset.range(NUM_VIDEOS)
    with pytest.raises(DataError, match="no example of records/train can be read"):
        with examples.explain():
            list(dataset.map(examples.leaving_out(partial(evaluation_load, source))))


def test_without_a_limit_the_first_stops_and_is_named(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    examples = BadExamples(source, 0)
    load = partial(load_all_frames, source)
    assert examples.replacing(load) is load and examples.leaving_out(load) is load
    with (
        pytest.raises(DataError, match=r"frame 1.*train\.tfrecord-0000\d-of-00002, record"),
        explain_data_failures(source, lambda: range(NUM_VIDEOS)),
        examples.explain(),
    ):
        training_videos(source, examples, 0, 3)
    assert examples.report() == ""


def test_evaluation_leaves_them_out(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    examples = BadExamples(source, 3)

    load = examples.leaving_out(partial(evaluation_load, source))
    dataset = tf.data.Dataset.range(NUM_VIDEOS).map(load).batch(NUM_VIDEOS)
    (batch,) = dataset.as_numpy_iterator()
    good = [index for index in range(NUM_VIDEOS) if index not in BAD]
    assert np.flatnonzero(batch["mask"]).tolist() == good
    assert batch["index"].tolist() == [i if i in good else -1 for i in range(NUM_VIDEOS)]
    assert [number_of(batch["image"][index]) for index in good] == good
    assert not batch["image"][list(BAD)].any()
    assert tuple(examples.reasons) == BAD


def test_sound_examples_are_not_touched(tmp_path: Path) -> None:
    source = open_source(tmp_path, bad=())
    path = tmp_path / "bad_examples.jsonl"
    examples = BadExamples(source, 5)
    examples.remember_in(BadExamplesFile(str(path)))
    videos = training_videos(source, examples, 0, 3)
    assert videos == [examples_at_step(step, **ORDER).tolist() for step in range(3)]
    assert not path.exists() and examples.report() == ""


def test_a_fault_of_the_program_is_not_passed_over(tmp_path: Path) -> None:
    source = open_source(tmp_path, bad=())
    examples = BadExamples(source, 5)

    def load(index: tf.Tensor) -> Any:
        with tf.control_dependencies([tf.debugging.Assert(index != 2, ["wrong"])]):
            return {"index": tf.identity(index)}

    dataset = tf.data.Dataset.range(4).map(examples.replacing(load))
    with pytest.raises(DataError, match="example 2 of records/train failed, but can be read"):
        with examples.explain():
            list(dataset)


def test_limit_is_checked() -> None:
    with pytest.raises(
        ConfigurationError, match=r"data\.max_bad_examples must be at least 0\. Received: -1"
    ):
        DataConfig(max_bad_examples=-1)
