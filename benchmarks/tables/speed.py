"""The tables of speed, beside that of the goals."""

import math
import statistics
from collections.abc import Iterator

from benchmarks.tables.rows import grouped
from benchmarks.tables.rows import table
from benchmarks.timing import Row
from benchmarks.timing import read_csv

DIRECTIONS = {"forward": "forward", "both": "with gradients"}
#: What stands in a column of the table of layers beside ours: its title, and what the names of the
#: candidates that compete for it begin with.
OTHERS = {
    "by hand in JAX": "handwritten jax",
    "floor": "floor",
    "Keras example": "keras.io",
    "k3im": "k3im",
    "PatchMerger (vit-pytorch)": "vit-pytorch",
    "tokenlearner-pytorch": "tokenlearner-pytorch",
}
OURS_ON_JAX = "ours, jax jit"
#: What grows, and what of a row says how much: positions of a frame, for the resolution.
GROWTHS = {"frames": "frames", "resolution (pixels of a frame)": "size"}


def layer_cases() -> dict[tuple[str, ...], list[Row]]:
    """Returns the rows in which other candidates took part, by case."""
    cases = grouped(read_csv("layers"), "layer", "shape", "num_tokens", "direction", "threads")
    return {key: rows for key, rows in cases.items() if best(rows, "floor")}


def best(rows: list[Row], prefix: str) -> Row | None:
    """Returns the row of the fastest candidate whose name begins so, None if there is none."""
    return min((row for row in rows if row["arm"].startswith(prefix)), key=seconds, default=None)


def seconds(row: Row) -> float:
    return float(row["wall_seconds"])


def layer_times() -> str:
    """Returns a line a case: our best time, and how many times as long the others take."""
    lines = []
    for (layer, shape, tokens, direction, _), rows in layer_cases().items():
        mine = best(rows, "ours")
        assert mine is not None
        way = mine["arm"].removeprefix("ours, ")
        cells = [_times(best(rows, prefix), mine) for prefix in OTHERS.values()]
        lines.append(
            f"{layer} | {shape} | {tokens} | {DIRECTIONS[direction]} "
            f"| {1000 * seconds(mine):.1f} ({way}) | {' | '.join(cells)}"
        )
    return table(f"layer | input | tokens | direction | ours, ms | {' | '.join(OTHERS)}", lines)


def layer_ratios() -> str:
    """Returns a line a layer: our time on JAX over that by hand, 8 and 16 tokens, by shape."""
    rows = [row for row in read_csv("layers") if row["arm"] == OURS_ON_JAX]
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    lines = []
    for (layer, direction, threads), mine in grouped(rows, "layer", "direction", "threads").items():
        by_shape = grouped(mine, "shape")
        cells = [_ratio_cell(by_shape.get((shape,), [])) for shape in shapes]
        lines.append(f"{layer} | {DIRECTIONS[direction]} | {threads} | {' | '.join(cells)}")
    return table(f"layer | direction | cores | {' | '.join(shapes)}", lines)


def _ratio_cell(rows: list[Row]) -> str:
    return ", ".join(f"{float(row['wall_ratio']):.2f}" for row in rows) or "–"


def _times(row: Row | None, mine: Row) -> str:
    return "–" if row is None else f"{seconds(row) / seconds(mine):.2f}"


def attention_forms() -> str:
    """Returns a line a case: the matrix of all weights, and the other form of that backend."""
    lines = []
    cases = grouped(read_csv("attention"), "backend", "mode", "shape", "direction")
    for (backend, mode, shape, direction), (matrix, other) in cases.items():
        megabytes = [
            f"{int(row['peak_bytes']) / 1e6:,.0f}" if row["peak_bytes"] else "–"
            for row in (matrix, other)
        ]
        lines.append(
            f"{backend} {mode} | {shape} | {DIRECTIONS[direction]} | {1000 * seconds(matrix):.1f} "
            f"| {other['arm']} | {float(other['wall_ratio']):.2f} | {' | '.join(megabytes)}"
        )
    header = (
        "backend | batch, heads, tokens, channels | direction | matrix, ms | other form "
        "| its time, of the matrix's | memory of the matrix, MB | of the other form"
    )
    return table(header, lines)


def model_speed() -> str:
    """Returns a line a model: images a second, and the gain over its package's plain model."""
    lines = []
    for row in read_csv("models"):
        images = int(row["batch_size"]) / seconds(row)
        macs = f"{1 / float(row['macs_ratio']):.2f}" if row["macs_ratio"] else "–"
        lines.append(
            f"{row['size'].upper()}/16 | {row['direction']} | {row['family']} | {row['arm']} "
            f"| {row['machine'].split(',')[0]} | {images:.1f} "
            f"| {1 / float(row['wall_ratio']):.2f} | {macs}"
        )
    header = (
        "size | direction | package and backend | model | processor | images/s | speed-up | by MACs"
    )
    return table(header, lines)


def updates() -> str:
    """Returns a line a model and backend: what the optimizer's update takes of its step."""
    lines = []
    for (size, backend), rows in grouped(read_csv("updates"), "size", "backend").items():
        arms = {row["arm"]: row for row in rows}
        plain, half, update = (seconds(arms[arm]) for arm in ("plain", "half", "update"))
        macs_ratio = float(arms["half"]["macs_ratio"])
        lines.append(
            f"{size.upper()}/16 | {backend} | {update / plain:.3f} "
            f"| {plain / half * macs_ratio:.2f} "
            f"| {(plain - update) / (half - update) * macs_ratio:.2f}"
        )
    header = (
        "size | backend | update, of the plain step | speed-up of the step, of what the MACs "
        "promise | the same without the update"
    )
    return table(header, lines)


def video_speed() -> str:
    """Returns a line a clip size: clips a second of the models, speed-up, MAC ratio."""
    lines = []
    for plain, mine, first in video_triples():
        macs = int(plain["macs"]) / int(mine["macs"])
        lines.append(
            f"{mine['backend']} | {mine['direction']} | {mine['frames']} | {mine['size']} "
            f"| {float(plain['clips_per_second']):.1f} | {float(mine['clips_per_second']):.1f} "
            f"| {1 / float(mine['wall_ratio']):.2f} | {macs:.2f} "
            f"| {1 / float(first['wall_ratio']):.2f} "
            f"| {int(plain['macs']) / int(first['macs']):.2f}"
        )
    header = (
        "backend | direction | frames | size | plain, clips/s | TokenLearner, clips/s "
        "| speed-up | by MACs | first half alone | by MACs"
    )
    return table(header, lines)


def video_growth() -> str:
    """Returns slopes of log time and log MACs over the log of frames and of pixels."""
    lines = []
    rows = [row for row in read_csv("video_speed") if row["arm"] != "first half"]
    groups = grouped(rows, "backend", "direction", "model")
    for (backend, direction, model), mine in groups.items():
        for title, key in GROWTHS.items():
            points = _along(mine, key)
            time = _slope(points, "wall_seconds")
            macs = _slope(points, "macs")
            figures = f"{time:.2f} | {macs:.2f}"
            lines.append(f"{backend} | {direction} | `{model}` | {title} | {figures}")
    header = "backend | direction | model | over | slope of the time | slope of the MACs"
    return table(header, lines)


def video_triples() -> Iterator[tuple[Row, Row, Row]]:
    """Yields the rows of the plain model, TokenLearner and first half on the same clips."""
    rows = read_csv("video_speed")
    yield from zip(rows[::3], rows[1::3], rows[2::3], strict=True)


def _along(rows: list[Row], key: str) -> list[tuple[float, Row]]:
    """Returns the rows in which only `key` changes, each with how much of it there is."""
    other = "size" if key == "frames" else "frames"
    shared = statistics.mode(row[other] for row in rows)
    power = 2 if key == "size" else 1
    return [(float(row[key]) ** power, row) for row in rows if row[other] == shared]


def _slope(points: list[tuple[float, Row]], figure: str) -> float:
    """Returns the least-squares slope of log figure over log amount."""
    xs = [math.log(amount) for amount, _ in points]
    ys = [math.log(float(row[figure])) for _, row in points]
    return statistics.linear_regression(xs, ys).slope


def startup() -> str:
    """Returns a line a command: median seconds, lowest and highest."""
    lines = []
    for row in read_csv("startup"):
        low, high = float(row["wall_seconds_lowest"]), float(row["wall_seconds_highest"])
        lines.append(f"{row['arm']} | {seconds(row):.1f} | {low:.1f} to {high:.1f}")
    return table("command, from its start to its end | seconds | of turns", lines)
