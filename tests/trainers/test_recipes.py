"""Every recipe: its text, its values, and its whole pipeline on data sets of its names."""

import ast
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import tokenlearner_keras as tk
from tests.helpers.goldens import CHECKPOINT
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import rows
from tokenlearner_keras.graph import without_weights
from trainers.configuration.configuration import whole_config
from trainers.configuration.schedule import make_training_schedule
from trainers.configuration.training_options import check_training
from trainers.evaluation.sets import configured_sets
from trainers.experiment import make_model_config
from trainers.experiment import make_preprocessing
from trainers.steps.optimizer import make_learning_rate

CONFIGS = Path(__file__).parents[2] / "trainers" / "configs"
RECIPES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__")
IMAGENET = [name for name in RECIPES if name.startswith("imagenet")]
IMAGENET_EXAMPLES = 1_281_167

# Of a model small enough for a test, whatever its depth and tokens.
SMALL = [
    "--config.model.image_size=32",
    "--config.model.depth=2",
    "--config.model.width=16",
    "--config.model.num_heads=2",
    "--config.model.mlp_dim=32",
    "--config.model.num_tokens=2",
    "--config.model.token_learner_at=1",
    "--config.batch_size=4",
    "--config.total_steps=2",
    "--config.warmup_steps=1",
    "--config.log_steps=1",
    "--config.eval_steps=2",
    "--config.checkpoint_steps=2",
]


def _config(name: str) -> Any:
    return whole_config(str(CONFIGS / f"{name}.py"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_command_hardware_and_result(name: str) -> None:
    text = ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text()))
    assert text is not None
    assert f"python -m trainers.train --config=trainers/configs/{name}.py" in text
    assert re.search(r"^Hardware: ", text, re.MULTILINE)
    assert re.search(
        r"^Expected (result|test accuracy|test mean average precision): ", text, re.MULTILINE
    )


@pytest.mark.filterwarnings("ignore:image_size")  # A grid of 22 x 22, as in the paper.
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid(name: str) -> None:
    config = _config(name)
    check_training(config)
    model = make_model_config(config, 1000)
    make_preprocessing(config, model)
    assert configured_sets(config.data)[0].split == config.data.eval_split
    assert make_training_schedule(config, IMAGENET_EXAMPLES).total > 0


def test_the_reference_recipe() -> None:
    config = _config("imagenet_vit_b16_tl")
    model = make_model_config(config, 1000)
    schedule = make_training_schedule(config, IMAGENET_EXAMPLES)
    assert (config.seed, config.batch_size, config.loss) == (42, 4096, "sigmoid")
    assert (config.label_smoothing, config.data.mixup_alpha) == (0, 0)
    assert config.dtype_policy == "float32" and config.ema_decay is None
    assert schedule.total == 90 * (IMAGENET_EXAMPLES // 4096) == 28_080
    assert (schedule.warmup, schedule.evaluate, schedule.checkpoint) == (10_000, 1_000, 5_000)
    assert config.data.train_split == "whole_train"
    assert config.data.normalization == "imagenet"

    assert (model.width, model.depth, model.num_heads, model.mlp_dim) == (768, 12, 12, 3072)
    assert (model.image_size, model.patch_size) == ((224, 224), (16, 16))
    assert (model.token_learner, model.num_tokens, model.token_learner_at) == ("v1.1", 16, 9)
    assert (model.token_fuser, model.classifier, model.representation_size) == (False, "gap", None)
    assert (model.dropout, model.attention_dropout, model.stochastic_depth) == (0, 0, 0)
    assert model.head_bias == -10

    augmentation = make_preprocessing(config, model)
    assert (augmentation.crop, augmentation.crop_area) == ("inception", (0.08, 1.0))
    assert augmentation.crop_aspect_ratio == (3 / 4, 4 / 3)
    assert (augmentation.crop_attempts, augmentation.flip) == (10, True)
    assert augmentation.randaugment_layers == 0
    assert augmentation.interpolation == "bicubic"
    assert augmentation.eval_crop_fraction == 224 / (224 + 32)

    optimizer = config.optimizer
    assert (optimizer.name, optimizer.weight_decay) == ("adamw", 0.3)
    assert (optimizer.weight_decay_mask, optimizer.global_clipnorm) == ("all", 1.0)
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
    rate = make_learning_rate(optimizer, warmup_steps=schedule.warmup, total_steps=schedule.total)
    steps = {0: 0.0, 5_000: 2.5e-3, 10_000: 5e-3, 19_040: 2.505e-3, 28_080: 1e-5}
    for step, expected in steps.items():
        assert float(rate(step)) == pytest.approx(expected, rel=1e-4, abs=1e-12)


@pytest.mark.filterwarnings("ignore:image_size")
@pytest.mark.parametrize(
    ("name", "gigaflops"),
    [
        ("kinetics400_tl16at12_l16", 766),
        ("kinetics400_tl16at18_l10", 4076),
        ("kinetics600_tl16at18_fuser_l10", 4100),
    ],
)
def test_the_kinetics_recipes(name: str, gigaflops: float) -> None:
    config = _config(name)
    model = make_model_config(config, 400)
    with without_weights():
        cost = tk.paper_gflops(tk.build_model(model))
    assert cost == pytest.approx(gigaflops, rel=0.005)
    assert (model.token_learner, model.num_frames, model.tubelet_size) == ("v1.0", 32, 2)
    assert (config.batch_size, config.loss, config.label_smoothing) == (64, "softmax", 0)
    assert (config.total_epochs, config.warmup_epochs) == (30, 2.5)
    assert (config.data.mixup_alpha, model.stochastic_depth) == (0, 0)
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.momentum) == ("sgd", 0.05, 0.9)
    assert (optimizer.schedule, optimizer.global_clipnorm) == ("cosine", 1.0)
    video = make_preprocessing(config, model)
    assert (video.num_frames, video.stride, video.min_resize) == (32, 2, 256)
    assert (video.scale_jitter, video.flip, video.color_jitter) == ((0.9, 1.33), True, 0.8)
    assert (video.temporal_views, video.spatial_views, video.view_reduction) == (4, 3, "logits")
    assert video.randaugment_layers == 0


def test_the_modern_recipe_drops_branches() -> None:
    model = make_model_config(_config("imagenet_modern"), 1000)
    small = tk.VisionTransformerConfig(
        **{**model.to_dict(), "image_size": 32, "width": 12, "mlp_dim": 8, "num_classes": 2}
    )
    last = tk.build_model(small).get_layer("encoder_block_11")
    assert last.mlp_depth.rate == last.attention_depth.rate == 0.1


@pytest.fixture(
    scope="module", params=["tfrecord", pytest.param("array_record", marks=pytest.mark.extra)]
)
def data_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorflow_datasets")
    if request.param == "array_record":
        pytest.importorskip("array_record")
    from tests.helpers.tfds_sets import write_sets

    folder = tmp_path_factory.mktemp(request.param)
    write_sets(folder, request.param)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data_dir: Path) -> Any:
    monkeypatch.setenv("TOKENLEARNER_CACHE", str(tmp_path / "cache"))
    keras.backend.clear_session()
    trainer = Trainer(monkeypatch, tmp_path)

    def train(name: str, *flags: str) -> Path:
        trainer.config = str(CONFIGS / f"{name}.py")
        return trainer(name, *SMALL, f"--config.data.data_dir={data_dir}", *flags)

    yield train
    keras.config.set_dtype_policy("float32")


def _check_rows(workdir: Path) -> None:
    train = rows(workdir, "train")
    assert [row["step"] for row in train] == [1, 2]
    assert all(np.isfinite(row["loss"]) for row in train)
    assert (workdir / "model.keras").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param("imagenet_vit_b16_tl", marks=pytest.mark.extra), "imagenet_modern"]
)
def test_imagenet_from_scratch(run: Any, name: str) -> None:
    workdir = run(name)
    _check_rows(workdir)
    (row,) = rows(workdir, "test")
    assert row["num_examples"] == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["imagenet_finetune_384", pytest.param("imagenet_finetune_512", marks=pytest.mark.extra)],
)
def test_imagenet_fine_tuning(
    run: Any, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "start.keras"
    fields = {"width": 16, "num_heads": 2, "mlp_dim": 32, "classifier": "token"}
    tk.create_model("vit_b16_d2", num_classes=7, image_size=48, **fields).save(start)
    workdir = run(name, f"--config.init_from={start}")
    _check_rows(workdir)
    printed = capsys.readouterr().out
    assert re.search(r"1 resized: position_embedding/\w+\n", printed)
    assert "2 skipped: head/bias, head/kernel" in printed
    # An image of ReaL without a label counts for nothing.
    for split, count in (("test", 6), ("real", 5), ("v2", 5)):
        (row,) = rows(workdir, split)
        assert row["num_examples"] == count and np.isfinite(row["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", pytest.param("cifar100", marks=pytest.mark.extra)])
def test_cifar(run: Any, name: str) -> None:
    workdir = run(name)
    _check_rows(workdir)
    assert [row["num_examples"] for row in rows(workdir, "validation")] == [4]
    assert [row["num_examples"] for row in rows(workdir, "test")] == [10]


@pytest.mark.slow
def test_photographs_in_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        for name, ending in (("cat", "jpg"), ("dog", "webp")):
            path = tmp_path / "photographs" / name / f"{number}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 50, 3), 40 * number, np.uint8)).save(path)
    keras.backend.clear_session()
    trainer = Trainer(monkeypatch, tmp_path)
    trainer.config = str(CONFIGS / "folder_finetune.py")
    workdir = trainer(
        "run",
        *SMALL,
        f"--config.data.data_dir={tmp_path / 'photographs'}",
        f"--config.init_from={CHECKPOINT}",
        "--config.model.patch_size=(8, 8)",
        "--config.model.depth=3",
        "--config.model.width=24",
        "--config.model.num_heads=3",
        "--config.model.mlp_dim=48",
    )
    _check_rows(workdir)
    for split in ("validation", "test"):
        assert rows(workdir, split)[-1]["num_examples"] == 2
    printed = capsys.readouterr().out
    assert re.search(r"\d\d parameters loaded as they are", printed)
    assert "skipped: head/bias, head/kernel" in printed
