"""Draws the accuracy of the image demo's family against its cost, from the committed results.

    python -m benchmarks.demo_plot

Writes `results/demo_family.png`.
"""

import statistics

from matplotlib.figure import Figure

from benchmarks.tables.rows import grouped
from benchmarks.timing import RESULTS
from benchmarks.timing import Row
from benchmarks.timing import read_csv

_MARKERS = {"plain ViT": "o", "TokenLearner": "s", "average pooling": "^", "PatchMerger": "D"}


def main() -> None:
    """Draws a line for each kind of model; bars reach from the worst to the best seed."""
    rows = [*read_csv("demo_accuracy"), *read_csv("demo_family")]
    path = RESULTS / "demo_family.png"
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, marker in _MARKERS.items():
        models = grouped([row for row in rows if row["model"] == label], "name")
        points = sorted(_point(name, mine) for (name,), mine in models.items())
        costs, means, below, above, names = zip(*points, strict=True)
        axes.errorbar(costs, means, [below, above], marker=marker, capsize=3, label=label)
        for cost, mean, name in zip(costs, means, names, strict=True):
            axes.annotate(name, (cost, mean), (4, -10), textcoords="offset points", fontsize=7)
    axes.set(xlabel="million MACs an image", ylabel="test accuracy")
    axes.legend()
    figure.savefig(path, dpi=120)
    print(path)


def _point(name: str, rows: list[Row]) -> tuple[float, float, float, float, str]:
    """Returns cost and mean accuracy of a model, how far the seeds differ, and its short name."""
    accuracies = [float(row["test_accuracy"]) for row in rows]
    mean = statistics.mean(accuracies)
    below, above = mean - min(accuracies), max(accuracies) - mean
    return int(rows[0]["macs"]) / 1e6, mean, below, above, name.removeprefix("vit_ti8_")


if __name__ == "__main__":
    main()
