"""Every listed model costs what the closed forms and the paper's tables say."""

import csv
import functools
import math
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import pytest

import tokenlearner_keras as tk
from tokenlearner_keras.graph import without_weights
from tokenlearner_keras.models.config import VisionTransformerConfig
from tokenlearner_keras.models.names import model_config

ROOT = Path(__file__).parents[2]
with (ROOT / "benchmarks" / "paper_rows.csv").open(encoding="utf-8") as _file:
    ROWS = list(csv.DictReader(_file))

pytestmark = pytest.mark.filterwarnings("ignore:image_size")


def _tokens(config: VisionTransformerConfig) -> list[tuple[int, int]]:
    """Returns the positions of a frame, and the tokens of all frames, at each block."""
    frames = config.num_time_steps or 1
    learned_tokens = config.num_tokens * (frames if config.per_frame else 1)
    pooling = dict(config.pooling)
    positions, counts = math.prod(config.grid_size), []
    for block in range(config.depth):
        if block in pooling:
            positions = math.prod(pooling[block])
        first = config.token_learner_block
        learned = first is not None and block >= first
        if learned and config.token_learner == "merging":  # of images
            positions -= config.num_merged[block - first]
        learns = learned and config.token_learner != "merging"
        counts.append((positions, learned_tokens if learns else frames * positions))
    return counts


def _closed_form_macs(config: VisionTransformerConfig) -> int:
    """The formulas of the paper's compute convention, written down once more."""
    width, mlp, tokens = config.width, config.mlp_dim, config.num_tokens
    frames = config.num_time_steps or 1
    patch = 3 * math.prod(config.patch_size) * config.tubelet_size
    total = frames * math.prod(config.grid_size) * patch * width + width * config.num_classes
    for block, (positions, count) in enumerate(_tokens(config)):
        total += 4 * count * width**2 + 2 * count**2 * width + 2 * count * width * mlp
        if config.token_learner_block is None or block < config.token_learner_block:
            continue
        if config.token_learner == "merging":
            before = positions + config.num_merged[block - config.token_learner_block]
            total += before // 2 * (before - before // 2) * width
            total += positions * before * (width + 1)
        elif block == config.token_learner_block or config.token_fuser:
            attention = {
                "v1.0": 9 * width * tokens + 27 * tokens**2,
                "v1.1": 64 * width + 64 * tokens,
                "mha": 2 * width**2 + tokens * width,
                "patch_merger": tokens * width,
            }[config.token_learner]
            total += frames * positions * (attention + tokens * width)
            if config.token_learner == "mha":
                total += (frames if config.per_frame else 1) * 2 * tokens * width**2
        if config.token_fuser:
            linear = config.fuser_bottleneck_dim is None
            mask = tokens * width if linear else 64 * width + 64 * tokens
            total += frames * (positions * (mask + tokens * width) + tokens**2 * width)
    return total


def _closed_form_parameters(config: VisionTransformerConfig) -> int:
    width, mlp, tokens = config.width, config.mlp_dim, config.num_tokens
    patch = 3 * math.prod(config.patch_size) * config.tubelet_size
    positions = (config.num_time_steps or 1) * math.prod(config.grid_size)
    total = (patch + 1) * width + positions * width + 2 * width + (width + 1) * config.num_classes
    total += config.depth * (4 * width * (width + 1) + 2 * width * mlp + mlp + width + 4 * width)
    if config.token_learner_block is None:
        return total
    copies = config.depth - config.token_learner_block if config.token_fuser else 1
    learner = {
        "v1.0": 9 * width * tokens + 27 * tokens**2 + 2 * width,
        "v1.1": 66 * width + 64 + 65 * tokens,
        "mha": 4 * width * (width + 1) + tokens * width,
        "patch_merger": (tokens + 2) * width,
        "merging": 0,
    }
    total += copies * learner[config.token_learner]
    if config.token_fuser:
        linear = config.fuser_bottleneck_dim is None
        mask = width * tokens if linear else 64 * width + 64 + 65 * tokens
        total += copies * (6 * width + tokens**2 + tokens + mask)
    return total


class _Counts(NamedTuple):
    macs: int
    parameters: int
    gflops: float


@functools.cache
def _counts(name: str, image_size: int = 224) -> _Counts:
    """Returns what a model of a name costs; many stand in the tables and in the list."""
    with without_weights():
        model = tk.create_model(name, image_size=image_size)
        return _Counts(tk.count_macs(model), model.count_params(), tk.paper_gflops(model))


@pytest.mark.slow  # All together, and they count the same on every backend.
@pytest.mark.parametrize("name", tk.list_models("vi*"))
def test_every_listed_model_equals_the_closed_forms(name: str) -> None:
    config = model_config(name)
    assert isinstance(config, VisionTransformerConfig)
    counts = _counts(name)
    assert counts.macs == _closed_form_macs(config)
    assert counts.parameters == _closed_form_parameters(config)


@pytest.mark.slow  # All together, and they count the same on every backend.
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['name']}-{row['image_size']}")
def test_every_reproduced_row_of_the_papers_tables(row: dict[str, str]) -> None:
    assert row["name"] in tk.list_models()
    gflops = _counts(row["name"], int(row["image_size"])).gflops
    if not row["xla_gflops"]:
        # ViT-B/32 is not what the paper prints, and L/8 has no printed figure.
        assert not row["paper_gflops"] or row["name"] == "vit_b32"
        return
    assert gflops == pytest.approx(float(row["xla_gflops"]), rel=0.005)
    # What the paper prints, within 0.5 % or its own rounding to one decimal.
    assert gflops == pytest.approx(float(row["paper_gflops"]), rel=0.005, abs=0.05)


def test_every_token_learner_row_has_its_v11_form_and_the_grid_is_floored() -> None:
    names = set(tk.list_models())
    for row in ROWS:
        assert row["name"].replace("_v10", "") in names
    assert model_config("vit_l10_d35_tl16at18", image_size=512).grid_size == (51, 51)
    assert model_config("vivit_l10x2_d35_tl16at18").grid_size == (22, 22)


@pytest.mark.parametrize(
    ("name", "image_size", "num_classes", "millions"),
    [
        ("vit_b16", 224, 1000, 86.566120),
        ("vit_b16_tl8at6", 224, 1000, 86.617392),
        ("vit_h14", 224, 18_291, 654.2),
        ("vit_l8_d35_tl16at18_v10", 224, 18_291, 460.8),
        ("vivit_l16x2", 224, 400, 307.5),
        ("vivit_l16x2_d30_tl8at18_v10", 224, 400, 383.2),
        ("vivit_l14x2_d35_tl16at18_v10", 224, 400, 446.8),
        ("vivit_l10x2_d35_tl16at18_v10", 224, 400, 450.0),
        ("vivit_l10x2_d35_tl16at18_v10_fuser_linear", 224, 400, 452.9),
    ],
)
def test_published_parameter_counts(
    name: str, image_size: int, num_classes: int, millions: float
) -> None:
    with without_weights():
        model = tk.create_model(name, num_classes, image_size)
        parameters = model.count_params()
    digits = len(str(millions).split(".")[1])
    assert round(parameters / 1e6, digits) == millions


def test_the_dtype_policy_survives() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    with without_weights():
        model = tk.create_model("vit_ti16_d2", image_size=32)
        assert all(variable._value is None for variable in model.trainable_variables)
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    # Nothing is allocated later, and new models have values.
    assert tk.create_model("vit_ti16_d2", image_size=32).get_weights()


_MEASURE = """
import resource, keras, tokenlearner_keras as tk
def mebibytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
tk.create_model("vit_ti16_d2", image_size=32)
before = mebibytes()
model = tk.create_model("{name}", image_size={size})
weights = model.count_params() * 4 / 2**20
print(mebibytes() - before, weights, model.get_layer("encoder_block_0").output.shape[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kibibytes on Linux only")
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_l8_d8_tl16at4", 512),
        pytest.param("vivit_l10x2_d8_tl16at4", 224, marks=pytest.mark.extra),
    ],
)
def test_building_needs_the_memory_of_the_weights_only(name: str, size: int) -> None:
    script = _MEASURE.format(name=name, size=size)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    growth, weights, tokens = map(float, run.stdout.split())
    # A forward pass holds the attention of a block's sixteen heads, if nothing else.
    attention = 16 * 4 * tokens**2 / 2**20
    assert attention > 1000
    assert growth < weights + attention / 4
