"""Every video recipe learns the built-in clips, and what it learns is motion.

Each recipe as it is, with another model size, data source and duration only; beside it the
same training on clips that are one frame repeated.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.trainers.small_runs import Trainer
from tests.trainers.small_runs import rows

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "trainers" / "configs"
SEEDS = (0, 1, 2)
SMALL = ("model.image_size=32", "model.num_frames=8", "video.min_resize=32")
TRANSFORMER = (
    *SMALL,
    "model.width=96",
    "model.num_heads=3",
    "model.mlp_dim=192",
    "data.source=freedoom_motion",
    "total_epochs=9",
    "warmup_epochs=1",
)
CONVOLUTIONS = (
    *SMALL,
    "model.stem_width=8",
    "model.widths=(16,32)",
    "model.inner_widths=(32,64)",
    "model.depths=(1,2)",
    "model.module_blocks=1",
    "model.key_width=16",
    "model.num_tokens=4",
    "model.representation_size=64",
    "total_epochs=8",
    "warmup_epochs=1",
)
RECIPES = {
    "kinetics400_tl16at18_l10": (*TRANSFORMER, "model.name=vivit_ti8x4_d3_tl4at1_v10"),
    "kinetics600_tl16at18_fuser_l10": (
        *TRANSFORMER,
        "model.name=vivit_ti8x4_d3_tl4at1_v10_fuser_linear",
    ),
    "charades_x2plus1d": (*CONVOLUTIONS, "data.source=freedoom_multilabel"),
    "avid_x2plus1d": (*CONVOLUTIONS, "data.source=freedoom_motion"),
}
METRICS = {
    "charades_x2plus1d": "mean_average_precision",
    "avid_x2plus1d": "mean_class_accuracy",
}


def _results(trainer: Trainer, recipe: str, name: str, extra: Sequence[str]) -> list[float]:
    """Returns the test metric of each seed."""
    found = []
    for seed in SEEDS:
        overrides = (*RECIPES[recipe], *extra, f"seed={seed}")
        workdir = trainer(f"{name}_{seed}", *(f"--config.{each}" for each in overrides))
        (row,) = rows(workdir, "test")
        found.append(row[METRICS.get(recipe, "accuracy")])
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_learns_motion(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: str
) -> None:
    pytest.importorskip("vizdoom")
    trainer = Trainer(monkeypatch, tmp_path)
    trainer.config = str(CONFIGS / f"{recipe}.py")
    clips = _results(trainer, recipe, "clips", ())
    one_frame = _results(trainer, recipe, "one_frame", ("video.frame_order=repeated",))
    assert min(clips) > 1.5 * max(one_frame), (clips, one_frame)
