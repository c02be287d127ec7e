"""The tables of the study of where learned tokens pay."""

import statistics
from collections.abc import Iterator

from scipy import stats

from benchmarks.tables.rows import grouped
from benchmarks.tables.rows import table
from benchmarks.timing import Row
from benchmarks.timing import read_csv
from benchmarks.value_results import ATTENTION_FIGURES
from benchmarks.value_tasks import TASKS

#: Models of at most this many times a model's cost are its rivals.
_EQUAL_COST = 1.02
_MODEL = ("task", "family", "model")


def value_models() -> str:
    """Returns a line a task and model: cost, time, and accuracy over the seeds."""
    lines = []
    for (task, family, model), runs in grouped(read_csv("value"), *_MODEL).items():
        found = _values(runs)
        seconds = statistics.mean(float(row["train_cpu_seconds"]) for row in runs)
        milliseconds = f"{float(runs[0]['inference_ms']):.2f}" if runs[0]["inference_ms"] else "–"
        lines.append(
            f"{task} | {family.replace('_', ' ')} | `{model}` | {runs[0]['million_macs']} "
            f"| {milliseconds} | {seconds:.0f} | {statistics.mean(found):.3f} "
            f"| {min(found):.3f} to {max(found):.3f} ({len(found)})"
        )
    header = (
        "task | family | model | million MACs | inference, ms | training, CPU seconds "
        "| test accuracy | of the seeds"
    )
    return table(header, lines)


def value_pairs() -> str:
    """Returns a line for each rival of the model that carries a task's claim."""
    lines: list[str] = []
    for (task,), rows in grouped(read_csv("value"), "task").items():
        models = {model: runs for (model,), runs in grouped(rows, "model").items()}
        claim = TASKS[task].claim[0]
        if claim in models:
            lines += _pairs(task, claim, models)
    header = (
        "task | TokenLearner | rival | cost of the rival, of ours | mean accuracy, ours and theirs "
        "| difference | 95 % interval | seeds"
    )
    return table(header, lines)


def value_ablations() -> str:
    """Returns a line for each changed model, judged on validation."""
    lines = []
    for (model,), runs in grouped(read_csv("value_ablations"), "model").items():
        found = _values(runs)
        lines.append(
            f"`{model}` | {runs[0]['million_macs']} | {statistics.mean(found):.3f} "
            f"| {min(found):.3f} to {max(found):.3f} ({len(found)})"
        )
    return table("model | million MACs | validation accuracy | of the seeds", lines)


def value_attention() -> str:
    """Returns where the maps' mass lies on frames whose objects are known, over the seeds."""
    shares = [row for row in read_csv("value_details") if "object" in row["figure"]]
    lines = []
    for (task, model), rows in grouped(shares, "task", "model").items():
        means = {
            figure: statistics.mean(_values(runs))
            for (figure,), runs in grouped(rows, "figure").items()
        }
        cells = " | ".join(f"{means[figure]:.3f}" for figure in ATTENTION_FIGURES)
        lines.append(f"{task} | `{model}` | {cells}")
    header = "task | model | on the object | of the best token | area of the object"
    return table(header, lines)


def _pairs(task: str, claim: str, models: dict[str, list[Row]]) -> Iterator[str]:
    mine, cost = _values(models[claim]), _macs(models[claim])
    for model, runs in models.items():
        found, ratio = _values(runs), _macs(runs) / cost
        plain_twice = runs[0]["family"] == "plain" and ratio >= 2
        if runs[0]["family"] == "token_learner" or not (ratio <= _EQUAL_COST or plain_twice):
            continue
        means = statistics.mean(mine), statistics.mean(found)
        # Welch's interval: the seeds of two models are no pairs, nor are their variances equal.
        low, high = stats.ttest_ind(mine, found, equal_var=False).confidence_interval(0.95)
        interval = f"{low:+.3f} to {high:+.3f}" if min(len(mine), len(found)) > 1 else "–"
        yield (
            f"{task} | `{claim}` | `{model}` | {ratio:.2f} | {means[0]:.3f}, {means[1]:.3f} "
            f"| {means[0] - means[1]:+.3f} | {interval} | {len(mine)}, {len(found)}"
        )


def _macs(runs: list[Row]) -> float:
    return float(runs[0]["million_macs"])


def _values(runs: list[Row]) -> list[float]:
    return [float(row["value"]) for row in runs]
