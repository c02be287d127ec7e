"""The tables of models: cost from the code, the paper's figures from the CSVs beside `tables`."""

import itertools
import os
import warnings
from pathlib import Path

# Only shapes are computed, so any backend does; the others print notices.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tokenlearner_keras as tk
from benchmarks.tables.rows import table
from benchmarks.timing import Row
from benchmarks.timing import read_csv
from tokenlearner_keras.graph import without_weights
from tokenlearner_keras.layers.batch_normalization import BatchNormalization
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.models.x2plus1d import build_module

PAPER = Path(__file__).parents[1]
#: The paper tests at this size; its tables count the grid of 8 x 8 that it leads to.
VIDEO_TEST_SIZE = 256
AVID_CLASSES = 887
_COSTS = "name | input | tokens in the blocks | parameters, M | GMACs | GFLOPS, paper's way"


def readme_models() -> str:
    """Returns the README's table: the rows of the paper marked for it."""
    return _paper_table([row for row in read_csv("paper_rows", PAPER) if row["readme"]])


def paper_models() -> str:
    return _paper_table(read_csv("paper_rows", PAPER))


def all_models() -> str:
    """Returns a table of every listed Transformer at its default input."""
    with without_weights():
        return table(_COSTS, [_costs(name, 224) for name in tk.list_models("vi*")])


def _paper_table(rows: list[Row]) -> str:
    with without_weights():
        header = f"{_COSTS} | GFLOPS printed | the paper's accuracy"
        return table(header, map(_paper_line, rows))


def _paper_line(row: Row) -> str:
    accuracy = f"{row['paper_accuracy']} ({row['source']})" if row["paper_accuracy"] else "–"
    costs = _costs(row["name"], int(row["image_size"]))
    return f"{costs} | {row['paper_gflops'] or '–'} | {accuracy}"


def _costs(name: str, image_size: int) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # floored grids
        model = tk.create_model(name, image_size=image_size)
    size = "x".join(map(str, model.input_shape[1:-1]))
    return (
        f"`{name}` | {size} | {_tokens(model)} | {model.count_params() / 1e6:.1f} "
        f"| {tk.count_macs(model) / 1e9:.2f} | {tk.paper_gflops(model):.2f}"
    )


def _tokens(model: tk.VisionTransformer) -> str:
    """Returns the tokens that each run of encoder blocks works on, `576 x6, 8 x6`."""
    blocks = [layer for layer in model.layers if isinstance(layer, EncoderBlock)]
    runs = itertools.groupby(block.input.shape[1] for block in blocks)
    text = ", ".join(f"{tokens} x{len(list(group))}" for tokens, group in runs)
    fused = any(isinstance(layer, TokenFuser) for layer in model.layers)
    return f"{text}, fused back" if fused else text


def module_cost(module: str) -> tuple[float, float]:
    """Returns GFLOPs and million parameters of a module as the paper counts them.

    A multiply-accumulate is two operations; batch norms are left out of both.
    """
    with without_weights():
        config = tk.X2Plus1DConfig((VIDEO_TEST_SIZE, VIDEO_TEST_SIZE), module=module)
        model = build_module(config)
        layers = [each for each in model.layers if not isinstance(each, BatchNormalization)]
        parameters = sum(layer.count_params() for layer in layers)
        return 2 * tk.count_macs(model) / 1e9, parameters / 1e6


def model_cost(name: str, module: str) -> tuple[float, float]:
    """Returns GFLOPs, two a multiply-accumulate, and million parameters of a video model."""
    with without_weights():
        model = tk.create_model(name, AVID_CLASSES, VIDEO_TEST_SIZE, module=module)
        return 2 * tk.count_macs(model) / 1e9, model.count_params() / 1e6


def video_modules() -> str:
    """Returns a table of the rows of the paper's ablation of modules."""
    lines = []
    for row in read_csv("video_module_rows", PAPER):
        module, gflops, parameters = "not built", "–", "–"
        if row["module"]:
            cost = module_cost(row["module"])
            module, gflops, parameters = f"`{row['module']}`", f"{cost[0]:.2f}", f"{cost[1]:.3f}"
        lines.append(
            f"{row['row']} | {module} | {gflops} | {row['paper_gflops']} "
            f"| {parameters} | {row['paper_parameters']}"
        )
    header = "row of the paper | `module` | GFLOPs | printed | parameters, M | printed"
    return table(header, lines)


def video_models() -> str:
    lines = []
    for row in read_csv("video_model_rows", PAPER):
        gflops, parameters = model_cost(row["name"], row["module"])
        lines.append(
            f'{row["row"]} | `{row["name"]}`, `module="{row["module"]}"` | {gflops:.1f} '
            f"| {row['paper_gflops'] or '–'} | {parameters:.2f}"
        )
    return table("network | built by | GFLOPs | printed | parameters, M", lines)
