"""The tables of one layer's speed, from `results/layers.csv`."""

from collections.abc import Callable
from collections.abc import Iterator

from benchmarks.timing import kept_rows

Row = dict[str, str]
Case = tuple[str, str, str, str]

#: What stands in a column: its title and which arms compete for it.
COLUMNS: dict[str, Callable[[str], bool]] = {
    "ours": lambda arm: arm.startswith("ours"),
    "by hand in JAX": lambda arm: arm == "handwritten jax",
    "floor": lambda arm: arm.startswith("floor"),
    "Keras example": lambda arm: arm.startswith("keras.io"),
    "k3im": lambda arm: arm.startswith("k3im"),
    "PatchMerger (vit-pytorch)": lambda arm: arm.startswith("vit-pytorch"),
    "tokenlearner-pytorch": lambda arm: arm.startswith("tokenlearner-pytorch"),
}


def cases() -> Iterator[tuple[Case, list[Row]]]:
    """Yields layer, shape, tokens and direction of each contest, with its rows."""
    rows = kept_rows("layers")
    keys = [(r["layer"], r["shape"], r["num_tokens"], r["direction"]) for r in rows]
    for case in dict.fromkeys(keys):
        yield case, [row for row, key in zip(rows, keys, strict=True) if key == case]


def best(rows: list[Row], competes: Callable[[str], bool]) -> Row | None:
    """Returns the row of the fastest of some arms, None if there is none."""
    mine = [row for row in rows if competes(row["arm"])]
    return min(mine, key=lambda row: float(row["wall_seconds"]), default=None)


def seconds(row: Row) -> float:
    """Returns the median time of a row."""
    return float(row["wall_seconds"])


def layer_times() -> str:
    """Returns a line a case: our best time, and how many times as long the others take."""
    others = list(COLUMNS)[1:]
    lines = [
        f"| layer | input | tokens | direction | ours, ms | {' | '.join(others)} |",
        f"|---|---|---|---|---|{'---|' * len(others)}",
    ]
    for (layer, shape, tokens, direction), rows in cases():
        mine = best(rows, COLUMNS["ours"])
        assert mine is not None
        way = mine["arm"].removeprefix("ours, ")
        cells = [_times(best(rows, COLUMNS[other]), mine) for other in others]
        what = "forward" if direction == "forward" else "with gradients"
        lines.append(
            f"| {layer} | {shape} | {tokens} | {what} | {1000 * seconds(mine):.1f} ({way}) "
            f"| {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _times(row: Row | None, mine: Row) -> str:
    return "–" if row is None else f"{seconds(row) / seconds(mine):.2f}"
