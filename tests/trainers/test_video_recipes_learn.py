"""Every video recipe learns the built-in clips, and what it learns is motion.

Each recipe as it is, with another model size, data source and duration only; beside it the
same training on clips that are one frame repeated. Those for Kinetics start from an image
model with a TokenLearner, as their docstrings say.
"""

import gc
import itertools
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import rows

# By make test TEST_FLAGS="-m extra", in an hour.
pytestmark = pytest.mark.extra

CONFIGS = Path(__file__).parents[2] / "trainers" / "configs"
SEEDS = (0, 1, 2)
SMALL = ("model.num_frames=8", "video.min_resize=16", "eval_epochs=100")
WIDTHS = ("model.image_size=16", "model.width=96", "model.num_heads=3", "model.mlp_dim=192")
IMAGES = (
    *WIDTHS,
    "model.name=vit_ti4_d2_tl4at1_v10",
    "augmentation.padding=1",
    "data.final_split=None",
    "total_epochs=5",
)
TRANSFORMER = (
    *SMALL,
    *WIDTHS,
    "data.source=freedoom_motion",
    "total_epochs=12",
    "warmup_epochs=1",
)
CONVOLUTIONS = (
    *SMALL,
    "model.image_size=16",
    "model.stem_width=8",
    "model.widths=(8,24)",
    "model.inner_widths=(16,48)",
    "model.depths=(1,2)",
    "model.module_blocks=1",
    "model.key_width=16",
    "model.num_heads=2",
    "model.num_tokens=4",
    "model.representation_size=256",
    "warmup_epochs=1",
)
#: The longest first: processes that are done with theirs take over from the end of the list.
RECIPES = {
    "charades_x2plus1d": (*CONVOLUTIONS, "data.source=freedoom_multilabel", "total_epochs=8"),
    "kinetics600_tl16at18_fuser_l10": (
        *TRANSFORMER,
        "model.name=vivit_ti4x4_d2_tl4at1_v10_fuser_linear",
    ),
    "kinetics400_tl16at18_l10": (*TRANSFORMER, "model.name=vivit_ti4x4_d2_tl4at1_v10"),
    "avid_x2plus1d": (*CONVOLUTIONS, "data.source=freedoom_motion", "total_epochs=14"),
}
CASES = list(itertools.product(RECIPES, SEEDS))
METRICS = {
    "charades_x2plus1d": "mean_average_precision",
    "avid_x2plus1d": "mean_class_accuracy",
}


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An image TokenLearner of the size of the video models, trained on the image demo."""
    pytest.importorskip("vizdoom")
    with pytest.MonkeyPatch.context() as monkeypatch:
        trainer = _trainer(monkeypatch, tmp_path_factory.mktemp("images"), "demo")
        yield trainer("run", *_flags(IMAGES))


def _trainer(monkeypatch: pytest.MonkeyPatch, folder: Path, recipe: str) -> Trainer:
    trainer = Trainer(monkeypatch, folder)
    trainer.config = str(CONFIGS / f"{recipe}.py")
    return trainer


def _flags(overrides: Sequence[str]) -> list[str]:
    return [f"--config.{each}" for each in overrides]


@pytest.mark.parametrize(("recipe", "seed"), CASES)
def test_a_recipe_learns_motion(
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    recipe: str,
    seed: int,
) -> None:
    pytest.importorskip("vizdoom")
    trainer = _trainer(monkeypatch, tmp_path, recipe)
    overrides = [*RECIPES[recipe], f"seed={seed}"]
    if recipe.startswith("kinetics"):
        overrides.append(f"init_from={request.getfixturevalue('image_model')}")

    def result(frame_order: str) -> float:
        workdir = trainer(frame_order, *_flags((*overrides, f"video.frame_order={frame_order}")))
        (row,) = rows(workdir, "test")
        gc.collect()  # Or the clips of several trainings lie in memory, half a gigabyte each.
        return row[METRICS.get(recipe, "accuracy")]

    clips, one_frame = result("natural"), result("repeated")
    print(f"{recipe}, seed {seed}: clips {clips}, one frame {one_frame}")
    # One frame is worth little more than a guess: nine classes, or eight labels of which
    # a quarter are there.
    assert clips > 1.4 * one_frame, (clips, one_frame)
