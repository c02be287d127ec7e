"""The tables of what the video demo learned, from the committed results."""

import statistics

from benchmarks.timing import read_csv

Row = dict[str, str]
#: What is shown of each data set, and how its metric is called in the heading.
_DATA = {
    "freedoom_motion": "accuracy",
    "freedoom_multilabel": "mean average precision",
}


def demo_video_accuracy() -> str:
    """Returns test metrics over seeds, as trained and on other frame orders, with MACs."""
    rows = read_csv("demo_video_accuracy")
    lines = [
        "| labels, metric | model | test, mean of seeds (lowest to highest) "
        "| one frame repeated | frames shuffled | million MACs |",
        "|---|---|---|---|---|---|",
    ]
    for data, metric in _DATA.items():
        mine = [row for row in rows if row["data"] == data]
        for model in dict.fromkeys(row["model"] for row in mine):
            lines.append(_line(f"{data}, {metric}", [r for r in mine if r["model"] == model]))
    return "\n".join(lines)


def _line(what: str, rows: list[Row]) -> str:
    first = rows[0]
    values = [float(row["test"]) for row in rows]
    repeated, shuffled = (
        statistics.mean(float(row[f"test_{order}"]) for row in rows)
        for order in ("repeated", "shuffled")
    )
    return (
        f"| {what} | {first['model']} (`{first['name']}`) | {statistics.mean(values):.3f} "
        f"({min(values):.3f} to {max(values):.3f}) | {repeated:.3f} | {shuffled:.3f} "
        f"| {int(first['macs']) / 1e6:.1f} |"
    )
