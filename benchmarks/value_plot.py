"""Draws accuracy against cost, every seed visible, for each task of `benchmarks.value`.

    python -m benchmarks.value_plot

Writes `results/value_TASK.png` for each task from `results/value.csv`.
"""

import statistics

from matplotlib.figure import Figure

from benchmarks.tables.rows import grouped
from benchmarks.timing import RESULTS
from benchmarks.timing import Row
from benchmarks.timing import read_csv

_MARKERS = {
    "plain": "o",
    "token_learner": "s",
    "pooling": "^",
    "patch_merger": "D",
    "token_merging": "v",
}


def main() -> None:
    for (task,), rows in grouped(read_csv("value"), "task").items():
        path = RESULTS / f"value_{task}.png"
        _figure(task, rows).savefig(path, dpi=120)
        print(path)


def _figure(task: str, rows: list[Row]) -> Figure:
    """A point a seed, the mean of a model's seeds beside its name."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    families = grouped(rows, "family")
    for number, (family, marker) in enumerate(_MARKERS.items()):
        mine = families.get((family,), [])
        costs = [float(row["million_macs"]) for row in mine]
        values = [float(row["value"]) for row in mine]
        label, color = family.replace("_", " "), f"C{number}"
        axes.scatter(costs, values, marker=marker, color=color, alpha=0.6, label=label)
        for (model,), runs in grouped(mine, "model").items():
            mean = statistics.mean(float(row["value"]) for row in runs)
            place = (float(runs[0]["million_macs"]), mean)
            axes.annotate(model, place, (6, -3), textcoords="offset points", fontsize=7)
    axes.set(xlabel="million MACs", ylabel="test accuracy", title=task)
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
