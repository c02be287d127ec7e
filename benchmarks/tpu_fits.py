"""Which slice fits which batch: the recipes' train steps compiled for TPU slices, without a TPU.

    python -m benchmarks.tpu_fits

Runs `trainers.tpu_check` for each row that `results/tpu_fits.csv` lacks; a row takes from five
minutes to half an hour on two cores and up to 12 GB of memory. It needs the extra `tpu-check`.
"""

import dataclasses
import re
import subprocess
import sys
from typing import Any

from absl import app
from absl import flags

from benchmarks.timing import environment
from benchmarks.timing import read_csv
from benchmarks.timing import write_csv

NAME = "tpu_fits"
FLAGS = flags.FLAGS
flags.DEFINE_list("recipes", [], "Recipes to compile; none: all of them.")
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
_BOUND = re.compile(
    r"train bound: (?P<compute_seconds>\S+) s by compute, (?P<memory_seconds>\S+) s by memory "
    r"\((?P<hbm_gb>[\d.]+) GB through HBM\); (?P<bound_by>\w+) binds: at most "
    r"(?P<bound_examples_per_second>\S+) examples/s a chip, utilisation at most "
    r"(?P<bound_utilization>[\d.]+%)"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A recipe of trainers/configs and a slice to compile its step for."""

    recipe: str
    topology: str
    engine: str = "jax"
    model_axis: int = 1
    accumulation: int = 1
    remat: bool | str = False
    attention: str = "auto"

    @property
    def key(self) -> dict[str, str]:
        return {name: str(value) for name, value in dataclasses.asdict(self).items()}


def _forms(recipe: str, topology: str, **options: Any) -> tuple[Case, Case]:
    """Returns a case as the recipe runs and, for the same slice, without the kernel."""
    case = Case(recipe, topology, **options)
    return case, dataclasses.replace(case, attention="plain", remat=bool(case.remat))


_L10, _L16 = "kinetics400_tl16at18_l10", "kinetics400_tl16at12_l16"
_FUSER, _512 = "kinetics600_tl16at18_fuser_l10", "imagenet_finetune_512"
_KEPT = "all_but_attention"

# For each generation the smallest slice that holds a recipe's batch, with and without the kernel,
# and what rematerialisation costs there; in the order in which they are worth waiting for.
CASES = (
    *_forms(_L10, "v5e:2x4", remat=True),
    *_forms(_L10, "v6e:2x2", remat=True),
    *_forms(_FUSER, "v5e:2x4", remat=True),
    *_forms(_FUSER, "v6e:2x2", remat=True),
    Case(_L10, "v5e:2x2", accumulation=2, remat=True),
    Case(_FUSER, "v5e:2x2", accumulation=2, remat=True),
    Case(_L10, "v5e:2x4", remat=_KEPT),
    Case(_L10, "v6e:2x2", remat=_KEPT),
    Case(_FUSER, "v6e:2x2", remat=_KEPT),
    Case(_L16, "v5e:2x2"),
    Case(_L16, "v5e:2x2", attention="plain", remat=True),
    *_forms(_512, "v5e:2x2", remat=True),
    Case(_512, "v5e:2x2", remat=_KEPT),
    Case(_512, "v6e:2x2", remat=_KEPT),
    Case(_L16, "v6e:2x2"),
    *_forms("imagenet_finetune_384", "v5e:2x2"),
    Case("imagenet_finetune_384", "v6e:2x2"),
    Case("imagenet_vit_b16_tl", "v5e:2x4"),
    Case("imagenet_modern", "v5e:2x4"),
    Case("imagenet_vit_b16_tl", "v6e:2x2"),
    Case("imagenet_modern", "v6e:2x2"),
    Case(_L16, "v5e:4x4", engine="tensorflow", remat=True),
    Case(_L10, "v5e:8x8", engine="tensorflow", remat=True),
    Case(_FUSER, "v5e:8x8", engine="tensorflow", remat=True),
    Case("charades_x2plus1d", "v5e:4x4", engine="tensorflow", remat=True),
    Case("imagenet_finetune_384", "v5e:2x4", engine="tensorflow"),
    Case(_512, "v5e:8x8", engine="tensorflow", remat=True),
    Case("imagenet_vit_b16_tl", "v5e:4x4", engine="tensorflow"),
    Case("imagenet_modern", "v5e:4x4", engine="tensorflow"),
    Case("charades_x2plus1d", "v5e:4x4", remat=True),
    Case("charades_x2plus1d", "v6e:2x2", remat=True),
    Case("avid_x2plus1d", "v5e:4x4", remat=True),
    Case("avid_x2plus1d", "v6e:2x2", remat=True),
    *_forms(_L10, "v5e:8x8", remat=True),
)


def main(_: list[str]) -> None:
    rows: list[dict[str, Any]] = [*read_csv(NAME)]
    for case in CASES:
        if FLAGS.recipes and case.recipe not in FLAGS.recipes:
            continue
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
    flops, seconds, bound = _GFLOP.search(rest), _SECONDS.search(rest), _BOUND.search(output)
    if seconds is None:
        raise ValueError(f"Expected the seconds of a compilation. Received: {rest}")
    return {
        "model": model,
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
        **(bound.groupdict() if bound else dict.fromkeys(_BOUND.groupindex, "")),
    }


def _measure(case: Case) -> dict[str, Any]:
    (classes,) = (n for prefix, n in _CLASSES.items() if case.recipe.startswith(prefix))
    command = [sys.executable, "-m", "trainers.tpu_check", f"--engine={case.engine}"]
    command += [f"--config=trainers/configs/{case.recipe}.py", f"--num_classes={classes}"]
    command += ["--train_only", f"--topology={case.topology}", f"--model_axis={case.model_axis}"]
    command += [f"--config.model.remat={case.remat}"]
    command += [f"--config.gradient_accumulation_steps={case.accumulation}"]
    if case.attention != "auto":
        command += [f"--config.model.attention={case.attention}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} left with status {done.returncode}.")
    return parsed(done.stdout) | environment("jax", "libtpu", "keras")


if __name__ == "__main__":
    app.run(main)
