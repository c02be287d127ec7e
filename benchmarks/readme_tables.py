"""Fills the README and `docs/` from committed results and the code.

`python -m benchmarks.readme_tables`. Each part stands between `<!-- begin NAME -->` and
`<!-- end NAME -->`. With `--check` nothing is written and the exit status is 1 if a document
differs.
"""

import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.tables.demo_video import demo_video_accuracy
from benchmarks.tables.layer import layer_times
from benchmarks.tables.model import all_models
from benchmarks.tables.model import paper_models
from benchmarks.tables.model import readme_models
from benchmarks.tables.model_speed import model_speed
from benchmarks.tables.model_speed import updates
from benchmarks.tables.reliability import reliability
from benchmarks.tables.speed_goals import speed_goals
from benchmarks.tables.startup import startup
from benchmarks.tables.tpu_fits import tpu_fits
from benchmarks.tables.trainer import trainer_table
from benchmarks.tables.video import video_models
from benchmarks.tables.video import video_modules
from benchmarks.tables.video_speed import video_growth
from benchmarks.tables.video_speed import video_speed
from benchmarks.timing import RESULTS
from benchmarks.timing import read_csv

ROOT = Path(__file__).parents[1]


def demo_accuracy() -> str:
    """Returns test accuracy over seeds, MACs and parameters of the demo's two models."""
    rows = read_csv("demo_accuracy")
    lines = [
        "| model | test accuracy, mean of seeds | lowest to highest | million MACs "
        "| attention on the object, by seed |",
        "|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        accuracies = [float(row["test_accuracy"]) for row in mine]
        lines.append(
            f"| {model} (`{mine[0]['name']}`) | {statistics.mean(accuracies):.3f} "
            f"({len(mine)} seeds) | {min(accuracies):.3f} to {max(accuracies):.3f} "
            f"| {int(mine[0]['macs']) / 1e6:.1f} | {_attention(mine)} |"
        )
    return "\n".join(lines)


def _attention(rows: list[dict[str, str]]) -> str:
    shares = [row["mass_on_object"] for row in rows]
    return ", ".join(f"{float(share):.2f}" for share in shares) if all(shares) else "–"


def demo_output(file: str = "demo_output.txt") -> str:
    """Returns the last lines of a `make demo`, from the test accuracy on."""
    text = (RESULTS / file).read_text(encoding="utf-8")
    return f"```text\n{text[text.index('test accuracy') :].rstrip()}\n```"


def demo_video_output() -> str:
    """Returns the last lines of a `make demo-video`."""
    return demo_output("demo_video_output.txt")


Parts = dict[str, Callable[[], str]]
DOCUMENTS: dict[str, Parts] = {
    "README.md": {"demo_accuracy": demo_accuracy, "models": readme_models},
    "docs/benchmarks.md": {
        "speed_goals": speed_goals,
        "layer_times": layer_times,
        "model_speed": model_speed,
        "updates": updates,
        "video_speed": video_speed,
        "video_growth": video_growth,
        "startup": startup,
    },
    "docs/demos.md": {
        "demo_accuracy": demo_accuracy,
        "demo_output": demo_output,
        "demo_video_accuracy": demo_video_accuracy,
        "demo_video_output": demo_video_output,
    },
    "docs/models.md": {"paper_models": paper_models, "all_models": all_models},
    "docs/reliability.md": {"reliability": reliability},
    "docs/tpu.md": {"tpu_fits": tpu_fits},
    "docs/training.md": {"trainer": trainer_table},
    "docs/video_models.md": {"video_modules": video_modules, "video_models": video_models},
}


def filled(document: str, text: str) -> str:
    """Returns a document's text with every marked part replaced by the current one."""
    for name, make in DOCUMENTS[document].items():
        pieces = re.split(rf"(<!-- (?:begin|end) {name} -->)", text)
        if len(pieces) != 5:
            raise SystemExit(f"{document} must hold the part {name!r} exactly once.")
        before, begin, _, end, after = pieces
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def main(arguments: list[str]) -> int:
    """Writes or checks the documents; returns the exit status."""
    status = 0
    for document in DOCUMENTS:
        path = ROOT / document
        text = path.read_text(encoding="utf-8")
        new = filled(document, text)
        if "--check" not in arguments:
            path.write_text(new, encoding="utf-8")
        elif new != text:
            print(f"{document} is out of date: run python -m benchmarks.readme_tables")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
