"""The convolutional video models cost what the paper's tables say, where they can."""

import pytest

import tokenlearner_keras as tk
from benchmarks.tables.models import PAPER
from benchmarks.tables.models import model_cost
from benchmarks.tables.models import module_cost
from benchmarks.timing import read_csv
from tokenlearner_keras.graph import without_weights
from tokenlearner_keras.models.x2plus1d import build_module
from tokenlearner_keras.models.x2plus1d_config import MODULES

MODULE_ROWS = read_csv("video_module_rows", PAPER)
REPRODUCED = [row for row in MODULE_ROWS if row["reproduced"] == "yes"]


@pytest.mark.parametrize("row", REPRODUCED, ids=lambda row: row["module"])
def test_a_module_costs_what_the_paper_prints(row: dict[str, str]) -> None:
    gflops, parameters = module_cost(row["module"])
    # Within the rounding of the print; the paper's joint attention includes its softmax,
    # which is no matrix product: 3.6 % of that row at most.
    allowed = 0.036 if row["module"].endswith("joint") else 0.0
    assert gflops == pytest.approx(float(row["paper_gflops"]), rel=allowed, abs=0.0501)
    assert parameters == pytest.approx(float(row["paper_parameters"]), abs=0.0051)


@pytest.mark.parametrize(
    ("module", "macs", "parameters"),
    [
        ("conv2d", 4096 * 9 * 432**2, 9 * 432**2),
        ("conv2d_conv1d", 4096 * 12 * 432**2, 12 * 432**2),
        # Queries and keys of 128 channels; 64 frames of 64 positions.
        ("joint", 4096 * 560 * 4096 + 4096 * 688 * 432, 688 * 432),
        ("spatial_temporal", 4096 * 560 * (64 + 64) + 2 * 4096 * 688 * 432, 2 * 688 * 432),
        (
            # One convolution for the maps, tokens, a linear mask, fusing and mixing; then
            # 512 tokens, four projections with biases, and a norm in front of each part.
            "token_learner",
            4096 * (9 * 432 * 8 + 3 * 8 * 432)
            + 64 * 8 * 8 * 432
            + 4 * 512 * 432**2
            + 2 * 512**2 * 432,
            9 * 432 * 8 + 8 * 432 + 8 * 8 + 8 + 4 * (432**2 + 432) + 5 * 2 * 432,
        ),
    ],
)
def test_modules_equal_the_closed_forms(module: str, macs: int, parameters: int) -> None:
    assert module_cost(module) == (2 * macs / 1e9, parameters / 1e6)


def test_what_the_paper_prints_of_whole_networks_speaks_for_three_modules() -> None:
    """The totals differ by three times what the modules differ by, within their rounding."""
    printed = {
        row["module"]: float(row["paper_gflops"] or 0)
        for row in read_csv("video_model_rows", PAPER)
    }
    modules = {row["module"]: float(row["paper_gflops"]) for row in MODULE_ROWS}
    for module in ("spatial_temporal", "token_learner"):
        saved = modules["conv2d_conv1d"] - modules[module]
        assert round((printed["conv2d_conv1d"] - printed[module]) / saved) == 3
    assert tk.X2Plus1DConfig().module_blocks == 3


def test_a_network_costs_its_backbone_and_its_modules() -> None:
    plain, _ = model_cost("x2plus1d_m", "conv2d_conv1d")
    other, _ = model_cost("x2plus1d_m", "spatial_temporal")
    saved = module_cost("conv2d_conv1d")[0] - module_cost("spatial_temporal")[0]
    assert plain - other == pytest.approx(3 * saved)
    # Near the 532 that the paper prints, but not within its rounding.
    assert plain == pytest.approx(532, rel=0.02)


def test_every_module_of_the_paper_but_the_mixer_is_there() -> None:
    assert set(MODULES) == {row["module"] for row in MODULE_ROWS if row["module"]} | {"conv2d"}
    with without_weights():
        model = build_module(tk.X2Plus1DConfig(image_size=256, module="joint"))
        assert model.input_shape == model.output_shape == (None, 64, 8, 8, 432)
