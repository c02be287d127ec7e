"""Which slice fits which batch: the recipes' train steps compiled for TPU slices, without a TPU.

    python -m benchmarks.tpu_fits

Runs `trainers.tpu_check --engine=jax` for each row that `results/tpu_fits.csv` lacks; a row takes
from five minutes to half an hour on two cores and up to 12 GB of memory. It needs the extra
`tpu-check`.
"""

import dataclasses
import re
import subprocess
import sys
from typing import Any

from absl import app

from benchmarks.timing import environment
from benchmarks.timing import read_csv
from benchmarks.timing import write_csv

NAME = "tpu_fits"
_CLASSES = {
    "imagenet": 1000,
    "kinetics400": 400,
    "kinetics600": 600,
    "charades": 157,
    "avid": 887,
}

_DESCRIPTION = re.compile(r"(\S+), (\S+): batch (\d+) on \S+, chips: (\d+), .* and (\d+) examples")
_STEP = re.compile(r"train step: ([\d.]+) GiB of ([\d.]+) GiB HBM \([\d.]+%\), (.+)")
_GFLOP = re.compile(r"([\d.]+) GFLOP")
_COLLECTIVES = re.compile(r"[a-z]+-[a-z-]+: \d+ \([\d.]+ GiB\)")
_SECONDS = re.compile(r"(?:compiled in|too large after) (\d+) s")


@dataclasses.dataclass(frozen=True)
class Case:
    """A recipe of trainers/configs and a slice to compile its step for."""

    recipe: str
    topology: str
    model_axis: int = 1
    remat: bool = False

    @property
    def key(self) -> dict[str, str]:
        return {name: str(value) for name, value in dataclasses.asdict(self).items()}


# For each generation a slice that should hold a recipe's batch, and what sharing the weights
# saves; in the order in which they are worth waiting for.
CASES = (
    Case("imagenet_vit_b16_tl", "v5e:4x4"),
    Case("kinetics400_tl16at12_l16", "v5e:4x4", remat=True),
    Case("kinetics400_tl16at18_l10", "v5e:8x8", remat=True),
    Case("kinetics400_tl16at18_l10", "v5e:8x8", model_axis=4, remat=True),
    Case("imagenet_vit_b16_tl", "v6e:2x4"),
    Case("imagenet_vit_b16_tl", "v5p:2x2x1"),
    Case("kinetics400_tl16at18_l10", "v6e:4x4", remat=True),
    Case("kinetics400_tl16at12_l16", "v6e:2x2", remat=True),
    Case("kinetics600_tl16at18_fuser_l10", "v5e:8x8", remat=True),
    Case("kinetics600_tl16at18_fuser_l10", "v6e:4x4", remat=True),
    Case("kinetics600_tl16at18_fuser_l10", "v5p:2x2x1", remat=True),
    Case("kinetics400_tl16at18_l10", "v5p:2x2x1", remat=True),
    Case("kinetics400_tl16at12_l16", "v5p:2x2x1", remat=True),
    Case("imagenet_finetune_512", "v5e:8x8", remat=True),
    Case("imagenet_finetune_512", "v6e:4x4", remat=True),
    Case("imagenet_finetune_512", "v5p:2x2x2", remat=True),
    Case("imagenet_modern", "v5e:4x4"),
    Case("imagenet_modern", "v6e:2x4"),
    Case("imagenet_modern", "v5p:2x2x1"),
    Case("kinetics400_tl16at12_l16", "v5e:2x2", remat=True),
    Case("kinetics400_tl16at18_l10", "v5e:4x8", remat=True),
    Case("imagenet_finetune_512", "v5e:8x8", model_axis=4, remat=True),
    Case("charades_x2plus1d", "v5e:4x4", remat=True),
    Case("charades_x2plus1d", "v6e:2x4", remat=True),
    Case("avid_x2plus1d", "v5e:4x4", remat=True),
    Case("avid_x2plus1d", "v6e:2x4", remat=True),
)


def main(_: list[str]) -> None:
    rows: list[dict[str, Any]] = [*read_csv(NAME)]
    for case in CASES:
        if any(case.key.items() <= row.items() for row in rows):
            continue
        print(f"compiling {case}", flush=True)
        rows.append(case.key | _measure(case))
        print(rows[-1], flush=True)
        write_csv(NAME, rows)
    print(f"{len(rows)} rows")


def parsed(output: str) -> dict[str, Any]:
    """Returns the figures in the output of `trainers.tpu_check` about a train step."""
    description, step = _DESCRIPTION.search(output), _STEP.search(output)
    if description is None or step is None:
        raise ValueError(f"Expected the report of a train step. Received:\n{output}")
    model, policy, batch_size, chips, examples = description.groups()
    memory, available, rest = step.groups()
    flops, seconds = _GFLOP.search(rest), _SECONDS.search(rest)
    if seconds is None:
        raise ValueError(f"Expected the seconds of a compilation. Received: {rest}")
    return {
        "model": model,
        "engine": "jax",
        "dtype_policy": policy,
        "batch_size": batch_size,
        "chips": chips,
        "examples_a_chip": examples,
        "memory_gib": memory,
        "available_gib": available,
        "fits": float(memory) <= float(available) and flops is not None,
        "gflop_a_chip": flops[1] if flops else "",
        "collectives": ", ".join(_COLLECTIVES.findall(rest)),
        "compile_seconds": seconds[1],
    }


def _measure(case: Case) -> dict[str, Any]:
    (classes,) = (n for prefix, n in _CLASSES.items() if case.recipe.startswith(prefix))
    command = [sys.executable, "-m", "trainers.tpu_check", "--engine=jax", "--train_only"]
    command += [f"--config=trainers/configs/{case.recipe}.py", f"--num_classes={classes}"]
    command += [f"--topology={case.topology}", f"--model_axis={case.model_axis}"]
    command += [f"--config.model.remat={case.remat}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} left with status {done.returncode}.")
    return parsed(done.stdout) | environment("jax", "libtpu", "keras")


if __name__ == "__main__":
    app.run(main)
