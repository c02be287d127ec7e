"""The tables of models: cost from the code, the paper's figures from `paper_rows.csv`."""

import csv
import itertools
import os
import warnings
from pathlib import Path

# Only shapes are computed, so any backend does; the others print notices.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tokenlearner_keras as tk
from tokenlearner_keras.graph import without_weights
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.token_fuser import TokenFuser

PAPER_ROWS = Path(__file__).parents[1] / "paper_rows.csv"
HEADER = (
    "| name | input | tokens in the blocks | parameters, M | GMACs | GFLOPS, paper's way "
    "| GFLOPS printed | the paper's accuracy |\n|---|---|---|---|---|---|---|---|"
)


def paper_rows() -> list[dict[str, str]]:
    """Returns the rows of the paper's tables, with its printed figures."""
    with PAPER_ROWS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def readme_models() -> str:
    """Returns the README's table: the rows marked for it."""
    return _paper_table([row for row in paper_rows() if row["readme"]])


def paper_models() -> str:
    """Returns a table of every row of the paper's tables."""
    return _paper_table(paper_rows())


def all_models() -> str:
    """Returns a table of every listed Transformer at its default input."""
    header = (
        "| name | input | tokens in the blocks | parameters, M | GMACs | GFLOPS, paper's way |\n"
        "|---|---|---|---|---|---|"
    )
    with without_weights():
        return "\n".join([header, *(_line(name, 224) for name in tk.list_models("vi*"))])


def _paper_table(rows: list[dict[str, str]]) -> str:
    with without_weights():
        return "\n".join([HEADER, *map(_paper_line, rows)])


def _paper_line(row: dict[str, str]) -> str:
    accuracy = f"{row['paper_accuracy']} ({row['source']})" if row["paper_accuracy"] else "–"
    costs = _line(row["name"], int(row["image_size"]))
    return f"{costs} {row['paper_gflops'] or '–'} | {accuracy} |"


def _line(name: str, image_size: int) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # floored grids
        model = tk.create_model(name, image_size=image_size)
    size = "x".join(map(str, model.input_shape[1:-1]))
    return (
        f"| `{name}` | {size} | {_tokens(model)} | {model.count_params() / 1e6:.1f} "
        f"| {tk.count_macs(model) / 1e9:.2f} | {tk.paper_gflops(model):.2f} |"
    )


def _tokens(model: tk.VisionTransformer) -> str:
    """Returns the tokens that each run of encoder blocks works on, `576 x6, 8 x6`."""
    blocks = [layer for layer in model.layers if isinstance(layer, EncoderBlock)]
    runs = itertools.groupby(block.input.shape[1] for block in blocks)
    text = ", ".join(f"{tokens} x{len(list(group))}" for tokens, group in runs)
    fused = any(isinstance(layer, TokenFuser) for layer in model.layers)
    return f"{text}, fused back" if fused else text
