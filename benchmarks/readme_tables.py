"""Fills the README and `docs/` from committed results and the code.

    python -m benchmarks.readme_tables [--check]

With `--check` nothing is written, and the exit status is 1 if a document differs.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.tables import demos
from benchmarks.tables import models
from benchmarks.tables import speed
from benchmarks.tables import tpu
from benchmarks.tables import trainer
from benchmarks.tables import value
from benchmarks.tables.speed_goals import speed_goals

ROOT = Path(__file__).parents[1]
DOCUMENTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"demo_accuracy": demos.demo_accuracy, "models": models.readme_models},
    "docs/benchmarks.md": {
        "speed_goals": speed_goals,
        "layer_ratios": speed.layer_ratios,
        "layer_times": speed.layer_times,
        "attention_forms": speed.attention_forms,
        "model_speed": speed.model_speed,
        "updates": speed.updates,
        "video_speed": speed.video_speed,
        "video_growth": speed.video_growth,
        "startup": speed.startup,
        "input_pipeline": trainer.input_pipeline,
    },
    "docs/demos.md": {
        "demo_accuracy": demos.demo_accuracy,
        "demo_output": demos.demo_output,
        "demo_video_accuracy": demos.demo_video_accuracy,
        "demo_video_output": demos.demo_video_output,
    },
    "docs/models.md": {
        "paper_models": models.paper_models,
        "all_models": models.all_models,
        "quantization": demos.quantization,
    },
    "docs/reliability.md": {"reliability": trainer.reliability},
    "docs/tpu.md": {
        "slice_goals": tpu.slice_goals,
        "tpu_fits": tpu.tpu_fits,
        "bound": tpu.bound,
    },
    "docs/training.md": {"trainer": trainer.trainer_table, "elastic": demos.elastic},
    "docs/value.md": {
        "value_pairs": value.value_pairs,
        "value_models": value.value_models,
        "value_ablations": value.value_ablations,
        "value_attention": value.value_attention,
    },
    "docs/video_models.md": {
        "video_modules": models.video_modules,
        "video_models": models.video_models,
    },
}


def filled(document: str, text: str) -> str:
    """Returns a document's text with all parts between `<!-- begin NAME -->` and its end made."""
    for name, make in DOCUMENTS[document].items():
        pieces = re.split(rf"(<!-- (?:begin|end) {name} -->)", text)
        if len(pieces) != 5:
            raise SystemExit(f"{document} must hold the part {name!r} exactly once.")
        before, begin, _, end, after = pieces
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def main(arguments: list[str]) -> int:
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
