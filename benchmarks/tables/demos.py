"""The tables and outputs of the demos."""

import statistics

from benchmarks.tables.rows import grouped
from benchmarks.tables.rows import table
from benchmarks.timing import RESULTS
from benchmarks.timing import Row
from benchmarks.timing import read_csv

#: How the metric of a data set of videos is called.
_METRICS = {"freedoom_motion": "accuracy", "freedoom_multilabel": "mean average precision"}


def demo_accuracy() -> str:
    """Returns accuracy over seeds, MACs and attention of the image demo's models."""
    header = (
        "model | test accuracy, mean of seeds | lowest to highest | million MACs "
        "| attention on the object, by seed"
    )
    return table(header, map(_image_line, grouped(read_csv("demo_accuracy"), "model").values()))


def _image_line(rows: list[Row]) -> str:
    first = rows[0]
    accuracies = [float(row["test_accuracy"]) for row in rows]
    shares = [row["mass_on_object"] for row in rows]
    attention = ", ".join(f"{float(share):.2f}" for share in shares) if all(shares) else "–"
    return (
        f"{first['model']} (`{first['name']}`) | {statistics.mean(accuracies):.3f} "
        f"({len(rows)} seeds) | {min(accuracies):.3f} to {max(accuracies):.3f} "
        f"| {int(first['macs']) / 1e6:.1f} | {attention}"
    )


def demo_video_accuracy() -> str:
    """Returns metrics over seeds, as trained and on other frame orders, and MACs."""
    header = (
        "labels, metric | model | test, mean of seeds (lowest to highest) "
        "| one frame repeated | frames shuffled | million MACs"
    )
    rows = read_csv("demo_video_accuracy")
    return table(header, map(_video_line, grouped(rows, "data", "model").values()))


def _video_line(rows: list[Row]) -> str:
    first = rows[0]
    values = [float(row["test"]) for row in rows]
    repeated, shuffled = (
        statistics.mean(float(row[f"test_{order}"]) for row in rows)
        for order in ("repeated", "shuffled")
    )
    return (
        f"{first['data']}, {_METRICS[first['data']]} | {first['model']} (`{first['name']}`) "
        f"| {statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f}) "
        f"| {repeated:.3f} | {shuffled:.3f} | {int(first['macs']) / 1e6:.1f}"
    )


def demo_output(file: str = "demo_output.txt") -> str:
    """Returns the last lines of a `make demo`, from the test accuracy on."""
    text = (RESULTS / file).read_text(encoding="utf-8")
    return f"```text\n{text[text.index('test accuracy') :].rstrip()}\n```"


def demo_video_output() -> str:
    return demo_output("demo_video_output.txt")


def elastic() -> str:
    """Returns the accuracy of each model with each number of tokens, averaged over the seeds."""
    rows = read_csv("elastic")
    trained = dict.fromkeys(row["trained_with"] for row in rows)
    lines = []
    for (num_tokens,), tested in grouped(rows, "num_tokens").items():
        by_model = grouped(tested, "trained_with")
        cells = [f"{int(tested[0]['macs']) / 1e6:.2f}"]
        for numbers in trained:
            found = [float(row["test_accuracy"]) for row in by_model.get((numbers,), [])]
            cells.append(f"{statistics.mean(found):.3f}" if found else "–")
        lines.append(f"{num_tokens} | {' | '.join(cells)}")
    models = " | ".join(
        f"trained with {numbers.replace(' ', ', ')}" if " " in numbers else f"with {numbers} only"
        for numbers in trained
    )
    return table(f"tokens | million MACs | {models}", lines)


def quantization() -> str:
    """Returns size, difference and, of a trained model, accuracy in each precision."""
    lines = []
    for row in read_csv("quantization"):
        name = "trained" if row["model"] == "trained" else f"`{row['model']}`"
        accuracy = f"{float(row['accuracy']):.3f}" if row["accuracy"] else "–"
        lines.append(
            f"{name} | {row['precision']} | {row['megabytes']} | {float(row['size_ratio']):.2f} "
            f"| {float(row['largest_difference']):.3f} | {accuracy}"
        )
    return table("model | precision | MB | of float32 | largest difference | accuracy", lines)
