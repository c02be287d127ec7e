"""The tables of a video model's speed and its growth, from `results/video_speed.csv`."""

import math
import statistics
from collections.abc import Iterator

from benchmarks.timing import read_csv

Row = dict[str, str]

#: What grows, and what of a row says how much: positions of a frame, for the resolution.
GROWTHS = {"frames": "frames", "resolution (pixels of a frame)": "size"}


def video_speed() -> str:
    """Returns a line a clip size: clips a second of both models, speed-up, MAC ratio."""
    lines = [
        "| direction | frames | size | plain, clips/s | TokenLearner, clips/s | speed-up "
        "| by MACs | first half alone | by MACs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for plain, mine, first in triples():
        macs = int(plain["macs"]) / int(mine["macs"])
        lines.append(
            f"| {mine['direction']} | {mine['frames']} | {mine['size']} "
            f"| {float(plain['clips_per_second']):.1f} | {float(mine['clips_per_second']):.1f} "
            f"| {1 / float(mine['wall_ratio']):.2f} | {macs:.2f} "
            f"| {1 / float(first['wall_ratio']):.2f} "
            f"| {int(plain['macs']) / int(first['macs']):.2f} |"
        )
    return "\n".join(lines)


def video_growth() -> str:
    """Returns slopes of log time and log MACs over the log of frames and of pixels."""
    lines = [
        "| direction | model | over | slope of the time | slope of the MACs |",
        "|---|---|---|---|---|",
    ]
    rows = read_csv("video_speed")
    for direction in dict.fromkeys(row["direction"] for row in rows):
        for model in dict.fromkeys(row["model"] for row in rows if row["arm"] != "first half"):
            mine = [r for r in rows if (r["direction"], r["model"]) == (direction, model)]
            for title, key in GROWTHS.items():
                points = _along(mine, key)
                time = _slope(points, "wall_seconds")
                macs = _slope(points, "macs")
                lines.append(f"| {direction} | `{model}` | {title} | {time:.2f} | {macs:.2f} |")
    return "\n".join(lines)


def triples() -> Iterator[tuple[Row, Row, Row]]:
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
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    products = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    return products / sum((a - x) ** 2 for a in xs)
