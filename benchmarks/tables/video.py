"""The tables of the convolutional video models: cost from the code, the paper's from CSV."""

import csv
import os
from pathlib import Path

# Only shapes are computed, so any backend does; the others print notices.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tokenlearner_keras as tk
from tokenlearner_keras.graph import without_weights
from tokenlearner_keras.layers.batch_normalization import BatchNormalization
from tokenlearner_keras.models.x2plus1d import build_module

FOLDER = Path(__file__).parents[1]
#: The paper tests at this size; its tables count the grid of 8 x 8 that it leads to.
TEST_SIZE = 256
AVID_CLASSES = 887


def module_rows() -> list[dict[str, str]]:
    """Returns the rows of the paper's ablation of modules, with its printed figures."""
    return _rows("video_module_rows.csv")


def model_rows() -> list[dict[str, str]]:
    """Returns whole networks with the paper's printed figures."""
    return _rows("video_model_rows.csv")


def module_cost(module: str) -> tuple[float, float]:
    """Returns GFLOPs and million parameters of a module as the paper counts them.

    A multiply-accumulate is two operations; batch norms are left out of both.
    """
    with without_weights():
        model = build_module(tk.X2Plus1DConfig((TEST_SIZE, TEST_SIZE), module=module))
        layers = [each for each in model.layers if not isinstance(each, BatchNormalization)]
        parameters = sum(layer.count_params() for layer in layers)
        return 2 * tk.count_macs(model) / 1e9, parameters / 1e6


def model_cost(name: str, module: str) -> tuple[float, float]:
    """Returns GFLOPs, two a multiply-accumulate, and million parameters of a network."""
    with without_weights():
        model = tk.create_model(name, AVID_CLASSES, TEST_SIZE, module=module)
        return 2 * tk.count_macs(model) / 1e9, model.count_params() / 1e6


def video_modules() -> str:
    """Returns the table of modules."""
    lines = [
        "| row of the paper | `module` | GFLOPs | printed | parameters, M | printed |",
        "|---|---|---|---|---|---|",
    ]
    for row in module_rows():
        module, gflops, parameters = "not built", "–", "–"
        if row["module"]:
            cost = module_cost(row["module"])
            module, gflops, parameters = f"`{row['module']}`", f"{cost[0]:.2f}", f"{cost[1]:.3f}"
        lines.append(
            f"| {row['row']} | {module} | {gflops} | {row['paper_gflops']} "
            f"| {parameters} | {row['paper_parameters']} |"
        )
    return "\n".join(lines)


def video_models() -> str:
    """Returns the table of whole networks."""
    lines = [
        "| network | built by | GFLOPs | printed | parameters, M |",
        "|---|---|---|---|---|",
    ]
    for row in model_rows():
        gflops, parameters = model_cost(row["name"], row["module"])
        lines.append(
            f'| {row["row"]} | `{row["name"]}`, `module="{row["module"]}"` | {gflops:.1f} '
            f"| {row['paper_gflops'] or '–'} | {parameters:.2f} |"
        )
    return "\n".join(lines)


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
