"""Every video recipe reads records: all keys, any length, several labels, corrupt frames."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from numpy.typing import NDArray

from tests.helpers.backends import only_on_tensorflow
from tests.helpers.small_runs import engine_of
from tests.helpers.video_record_sets import SmallVideo
from tests.helpers.video_record_sets import describe
from tests.helpers.video_record_sets import frame_of
from tests.helpers.video_record_sets import number_of
from tests.helpers.video_record_sets import small_videos
from tests.helpers.video_record_sets import write_split
from trainers.configuration.configuration import whole_config
from trainers.data.bad_examples import BadExamples
from trainers.data.bad_examples import BadExamplesFile
from trainers.data.decode_errors import explain_data_failures
from trainers.data.shuffling import examples_at_step
from trainers.data.sources import Source
from trainers.data.sources import make_source
from trainers.engines.batches import evaluation_batches
from trainers.engines.batches import training_batches
from trainers.experiment import make_model_config
from trainers.experiment import make_preprocessing
from trainers.experiment import make_records
from trainers.utils.errors import DataError

CONFIGS = Path(__file__).parents[2] / "trainers" / "configs"
NUM_CLASSES = 3
NUM_FRAMES = 4
SIZE = 32
BATCH_SIZE = 4
# Twelve to train on, of 1 to 29 frames; six to test on, so that the last batch is padded.
NUM_VIDEOS = {"train": 12, "test": 6}
# Of three frames a clip shows all, in whatever stride.
CORRUPT = SmallVideo(2, (2,), num_frames=3, corrupt_frame=1)

# Patches of 10 pixels do not fill these clips, and not those of 224 pixels either.
pytestmark = [
    pytest.mark.filterwarnings("ignore:image_size:UserWarning"),
    only_on_tensorflow("on JAX the numbers of the examples stay on the host"),
]

Batch = dict[str, NDArray[Any]]


def _config(name: str) -> ConfigDict:
    return whole_config(str(CONFIGS / f"{name}.py"))


RECIPES = [
    path.stem
    for path in sorted(CONFIGS.glob("*.py"))
    if path.stem != "__init__" and _config(path.stem).data.source == "records"
]


class Recipe:
    """The data of a recipe, as the trainer makes them of its configuration, in small.

    Args:
        config: The recipe's; the place of the data and the size of clips are changed.
        data_dir: The folder of the records.
    """

    def __init__(self, config: ConfigDict, data_dir: Path) -> None:
        config.data.data_dir = str(data_dir)
        config.model.image_size = SIZE
        config.model.num_frames = NUM_FRAMES
        config.video.min_resize = SIZE + 4
        self.config = config
        self.preprocessing = make_preprocessing(config, make_model_config(config, NUM_CLASSES))

    def open(self, split: str) -> Source:
        """Opens a split."""
        data = self.config.data
        return make_source(data.source, split, data.data_dir, records=make_records(self.config))

    def train(self, source: Source, num_steps: int, bad: BadExamples | None = None) -> list[Batch]:
        """Returns the first training batches."""
        batches = training_batches(
            source,
            self.preprocessing,
            engine_of(1),
            batch_size=BATCH_SIZE,
            seed=self.config.seed,
            start_step=0,
            mixup_alpha=self.config.data.mixup_alpha,
            bad_examples=bad,
        )
        return [_arrays(next(batches)) for _ in range(num_steps)]

    def test(self, source: Source, bad: BadExamples | None = None) -> dict[int, Batch]:
        """Returns what a test sees of each video, by its index."""
        found: dict[int, Batch] = {}
        batches = evaluation_batches(
            source, self.preprocessing, BATCH_SIZE, engine_of(1), views=True, bad_examples=bad
        )
        for batch in map(_arrays, batches):
            for place in np.flatnonzero(batch["mask"]):
                index = int(batch["index"][place])
                assert index not in found
                found[index] = {name: values[place] for name, values in batch.items()}
        return found


def _arrays(batch: Any) -> Batch:
    return {name: np.asarray(value) for name, value in batch.items()}


def _videos(config: ConfigDict, split: str) -> list[SmallVideo]:
    """Returns videos of any length; of several labels each label is given twice."""
    several = config.data.multi_label
    videos = small_videos(NUM_VIDEOS[split], NUM_CLASSES, several)
    return [dataclasses.replace(v, labels=v.labels * (1 + several)) for v in videos]


def _target(video: SmallVideo) -> list[float]:
    return [float(number in video.labels) for number in range(NUM_CLASSES)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_the_recipes_of_the_paper_are_here() -> None:
    assert {name.split("_")[0] for name in RECIPES} == {
        "avid",
        "charades",
        "kinetics400",
        "kinetics600",
    }


@pytest.mark.parametrize(
    "name", [RECIPES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in RECIPES[1:])]
)
@pytest.mark.slow
def test_batches_and_views(tmp_path: Path, name: str) -> None:
    config = _config(name)
    describe(tmp_path, ["a", "b", "c"], config.data.multi_label)
    for split in NUM_VIDEOS:
        write_split(tmp_path, split, _videos(config, split))
    recipe = Recipe(config, tmp_path)

    source, videos = recipe.open("train"), _videos(config, "train")
    for step, batch in enumerate(recipe.train(source, num_steps=3)):
        order = examples_at_step(
            step, num_examples=len(videos), batch_size=BATCH_SIZE, seed=config.seed
        )
        assert batch["image"].shape == (BATCH_SIZE, NUM_FRAMES, SIZE, SIZE, 3)
        assert batch["image"].dtype == np.uint8 and batch["image"].std() > 10
        assert batch["target"].tolist() == [_target(videos[index]) for index in order]

    videos = _videos(config, "test")
    tested = recipe.test(recipe.open("test"))
    assert sorted(tested) == list(range(len(videos)))
    num_views = config.video.temporal_views * config.video.spatial_views
    for index, video in enumerate(videos):
        views = tested[index]["image"]
        assert views.shape == (num_views, NUM_FRAMES, SIZE, SIZE, 3)
        assert {number_of(view) for view in views} == {video.number}
        shown = {frame_of(frame) for view in views for frame in view}
        assert shown <= set(range(video.num_frames))
        assert (len(shown) == 1) == (video.num_frames == 1)
        assert tested[index]["target"].tolist() == _target(video)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_corrupt_frame(tmp_path: Path, name: str) -> None:
    config = _config(name)
    videos = _videos(config, "train")
    videos[2] = CORRUPT
    data_dir = tmp_path / "records"
    describe(data_dir, ["a", "b", "c"], config.data.multi_label)
    write_split(data_dir, "train", videos)
    recipe = Recipe(config, data_dir)
    source = recipe.open("train")
    named = r"frame 1, .*/train\.tfrecord-00000-of-00002, record 2"
    explained = explain_data_failures(source, lambda: range(len(videos)))
    with pytest.raises(DataError, match=named), explained:
        recipe.train(source, num_steps=3)

    training = BadExamples(source, 1)
    listed = BadExamplesFile(str(tmp_path / "bad_examples.jsonl"))
    training.remember_in(listed)
    order = [
        examples_at_step(step, num_examples=12, batch_size=BATCH_SIZE, seed=config.seed)
        for step in range(3)
    ]
    batches = recipe.train(source, 3, training)
    stand_ins = {2: 3}  # the next video of the list
    for indices, batch in zip(order, batches, strict=True):
        expected = [_target(videos[stand_ins.get(int(i), int(i))]) for i in indices]
        assert batch["target"].tolist() == expected
    (row,) = map(json.loads, Path(listed.path).read_text().splitlines())
    assert (row["source"], row["index"]) == ("records/train", 2)
    assert "frame 1" in row["reason"] and "record 2" in row["reason"]

    evaluation = BadExamples(source, 1)
    tested = recipe.test(source, evaluation)
    assert sorted(tested) == [index for index in range(12) if index != 2]
    assert tuple(evaluation.reasons) == (2,)


def test_other_keys(tmp_path: Path) -> None:
    config = _config("kinetics400_tl16at12_l16")
    config.records = {"image_key": "frames/jpeg", "label_key": "label", "num_classes": 3}
    videos = _videos(config, "test")
    write_split(tmp_path, "test", videos, image_key="frames/jpeg", label_key="label")
    recipe = Recipe(config, tmp_path)
    tested = recipe.test(recipe.open("test"))
    assert [number_of(tested[i]["image"]) for i in range(6)] == [v.number for v in videos]
    assert [tested[i]["label"] for i in range(6)] == [0, 1, 2, 0, 1, 2]
