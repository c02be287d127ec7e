"""The tasks of `benchmarks.value`, and the models that compete on each at equal cost."""

import dataclasses
from collections.abc import Iterator

#: Rates that each model chooses from, on validation.
LEARNING_RATES = (1e-3, 2e-3, 4e-3)
#: Seeds of a model, and of the two that carry a task's claim.
SEEDS, SEEDS_OF_THE_CLAIM = (0, 1, 2), (0, 1, 2, 3, 4)


@dataclasses.dataclass(frozen=True)
class Arm:
    """A model that takes part in a task.

    Attributes:
        family: plain, token_learner, pooling, patch_merger or token_merging.
        name: Its name, as `tk.create_model` takes it.
        overrides: What else differs from the task's recipe: keys and values.
        change: How `benchmarks.value_models` changes the model, if it does.
    """

    family: str
    name: str
    overrides: tuple[tuple[str, int | str], ...] = ()
    change: str = ""

    @property
    def fields(self) -> dict[str, int | str]:
        """Fields of the model's configuration that differ from the recipe's."""
        return {
            key.removeprefix("model."): value
            for key, value in self.overrides
            if key.startswith("model.")
        }

    @property
    def model(self) -> str:
        """What tells it from the others, as in the column `model`."""
        overrides = [f"{key}={value}" for key, value in self.fields.items()]
        return " ".join(filter(None, [self.name, *overrides, self.change]))


@dataclasses.dataclass(frozen=True)
class Task:
    """A data source with a recipe, which all its models share.

    Attributes:
        name: What it is called in the results.
        recipe: Its file in trainers/configs.
        num_classes: Of the data.
        steps: Length of a training.
        arms: What competes.
        claim: The TokenLearner model that carries the task's claim, and its nearest rival.
        rate_of: The task and the model whose learning rate all take; none: each chooses its own.
    """

    name: str
    recipe: str
    num_classes: int
    steps: int
    arms: tuple[Arm, ...]
    claim: tuple[str, ...] = ()
    rate_of: tuple[str, str] | None = None

    @property
    def choosing_steps(self) -> int:
        """Length of a training that a learning rate is chosen by."""
        return self.steps // 3

    def runs(self) -> Iterator[tuple[int, Arm]]:
        """Yields seeds and models, first all models with the first seed."""
        for seed in SEEDS_OF_THE_CLAIM:
            for arm in self.arms:
                if seed in SEEDS or arm.model in self.claim:
                    yield seed, arm


CLUTTERED = Task(
    "cluttered_digits",
    "cluttered_digits",
    10,
    4500,
    (
        Arm("token_learner", "vit_ti8_d6_tl8at1_v10"),
        Arm("pooling", "vit_ti8_d6_pool3at1"),
        Arm("patch_merger", "vit_ti8_d6_tl8at1_pm"),
        Arm("token_merging", "vit_ti8_d4_tl8at0_merge"),
        Arm("plain", "vit_ti16_d7"),
        Arm("token_learner", "vit_ti8_d6_tl8at1"),
        Arm("token_learner", "vit_ti8_d6_tl8at1_mha"),
        Arm("plain", "vit_ti8_d4"),
    ),
    claim=("vit_ti8_d6_tl8at1_v10", "vit_ti8_d6_pool3at1"),
)
RELATION = Task(
    "digit_relation",
    "digit_relation",
    10,
    3600,
    (
        Arm("token_learner", "vit_ti12_d6_tl8at1_v10"),
        Arm("pooling", "vit_ti12_d6_pool3at1"),
        Arm("patch_merger", "vit_ti12_d6_tl8at1_pm"),
        Arm("token_merging", "vit_ti12_d4_tl8at0_merge"),
        Arm("plain", "vit_ti16_d3"),
        Arm("plain", "vit_ti12_d4"),
    ),
    claim=("vit_ti12_d6_tl8at1_v10", "vit_ti12_d6_pool3at1"),
)
SCENES = Task(
    "freedoom_scenes",
    "freedoom_scenes",
    8,
    3000,
    (
        Arm("token_learner", "vit_ti10_d6_tl8at1_v10"),
        Arm("pooling", "vit_ti10_d6_pool3at1"),
        Arm("patch_merger", "vit_ti10_d6_tl8at1_pm"),
        Arm("token_merging", "vit_ti10_d4_tl10at0_merge"),
        Arm("plain", "vit_ti15_d3"),
        Arm("plain", "vit_ti10_d2"),
    ),
    claim=("vit_ti10_d6_tl8at1_v10", "vit_ti10_d6_pool3at1"),
)
_EVERY_SECOND_FRAME = (("model.num_frames", 16), ("video.stride", 2))
ROUTE = Task(
    "freedoom_route",
    "freedoom_route",
    2,
    2700,
    (
        Arm("token_learner", "vivit_ti16x2_d4_tl1at1_v10"),
        Arm("pooling", "vivit_ti16x2_d4_pool1at1"),
        Arm("patch_merger", "vivit_ti16x2_d4_tl1at1_pm"),
        Arm("token_merging", "vivit_ti16x2_d4_tl8at0_st_merge"),
        Arm("plain", "vivit_ti16x2_d5", _EVERY_SECOND_FRAME),
        Arm("plain", "vivit_ti16x4_d3"),
        Arm("token_learner", "vivit_ti16x2_d6_tl8at1_st_v10"),
        Arm("plain", "vivit_ti16x2_d2"),
    ),
    claim=("vivit_ti16x2_d4_tl1at1_v10", "vivit_ti16x2_d4_pool1at1"),
)
TASKS = {task.name: task for task in (CLUTTERED, RELATION, SCENES, ROUTE)}

_V10 = "vit_ti8_d6_tl8at1_v10"
#: One change each to the first model, judged on validation.
ABLATIONS = Task(
    "cluttered_digits ablations",
    CLUTTERED.recipe,
    CLUTTERED.num_classes,
    CLUTTERED.steps,
    (
        Arm("token_learner", _V10),
        Arm("token_learner", _V10, change="fixed_maps"),
        Arm("plain", "vit_ti8_d4", change="convolutions"),
        Arm("token_learner", "vit_ti8_d6_tl8at1", change="convolutions"),
        Arm("token_learner", _V10, (("model.token_learner_pooling", "mean"),)),
        Arm("token_learner", "vit_ti8_d6_tl4at1_v10"),
        Arm("token_learner", "vit_ti8_d6_tl16at1_v10"),
        Arm("token_learner", "vit_ti8_d6_tl8at2_v10"),
        Arm("token_learner", "vit_ti8_d6_tl8at0_v10"),
    ),
    rate_of=(CLUTTERED.name, _V10),
)
