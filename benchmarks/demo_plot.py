"""Draws the accuracy of the image demo's family against its cost, from the committed results.

    python -m benchmarks.demo_plot

Writes `results/demo_family.png`.
"""

import statistics
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.timing import RESULTS
from benchmarks.timing import read_csv

Row = dict[str, str]
_MARKERS = {"plain ViT": "o", "TokenLearner": "s", "average pooling": "^", "PatchMerger": "D"}


def main() -> None:
    """Writes the picture."""
    rows = [*read_csv("demo_accuracy"), *read_csv("demo_family")]
    print(draw(rows, RESULTS / "demo_family.png"))


def draw(rows: list[Row], path: Path) -> Path:
    """Draws a line for each kind of model; bars reach from the worst to the best seed.

    Args:
        rows: As in `demo_accuracy.csv`.
        path: The PNG file.
    """
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, marker in _MARKERS.items():
        points = sorted(_point(rows, name) for name in _names(rows, label))
        costs, means, lowest, highest, names = zip(*points, strict=True)
        bars = [
            [mean - low for mean, low in zip(means, lowest, strict=True)],
            [high - mean for mean, high in zip(means, highest, strict=True)],
        ]
        axes.errorbar(costs, means, yerr=bars, marker=marker, capsize=3, label=label)
        for cost, mean, name in zip(costs, means, names, strict=True):
            axes.annotate(name, (cost, mean), (4, -10), textcoords="offset points", fontsize=7)
    axes.set(xlabel="million MACs an image", ylabel="test accuracy")
    axes.legend()
    figure.savefig(path, dpi=120)
    return path


def _names(rows: list[Row], label: str) -> list[str]:
    return list(dict.fromkeys(row["name"] for row in rows if row["model"] == label))


def _point(rows: list[Row], name: str) -> tuple[float, float, float, float, str]:
    """Returns cost, mean, lowest and highest accuracy of a model, and its short name."""
    mine = [row for row in rows if row["name"] == name]
    accuracies = [float(row["test_accuracy"]) for row in mine]
    cost = int(mine[0]["macs"]) / 1e6
    short = name.removeprefix("vit_ti8_")
    return cost, statistics.mean(accuracies), min(accuracies), max(accuracies), short


if __name__ == "__main__":
    main()
