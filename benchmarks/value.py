"""Where learned tokens pay: models of equal cost on four tasks, over seeds.

    python -m benchmarks.value --workdir=DIR [--tasks=NAME,...] [--mnist=DIR] [--hours=H]

Each model of a task (`benchmarks.value_tasks`) chooses its learning rate on validation, in runs of
a third of the steps, and is then trained with several seeds and tested once each; at the end the
models' inference is timed side by side. The task `ablations` changes one thing at a time and is
judged on validation. Writes `results/value.csv` and `results/value_ablations.csv`, a row a run, and
`results/value_details.csv`. Runs whose rows are there are not repeated, and an interrupted run
resumes in its work directory.
"""

import math
import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import app
from absl import flags

from benchmarks.comparison import Candidate
from benchmarks.comparison import Comparison
from benchmarks.value_results import ATTENTION_FIGURES
from benchmarks.value_results import Results
from benchmarks.value_results import Run
from benchmarks.value_tasks import ABLATIONS
from benchmarks.value_tasks import LEARNING_RATES
from benchmarks.value_tasks import SCENES
from benchmarks.value_tasks import TASKS
from benchmarks.value_tasks import Task

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "workdir/value", "Where the runs go.")
flags.DEFINE_list("tasks", [*TASKS, "ablations"], "Tasks to run.")
flags.DEFINE_string("mnist", None, "Folder of MNIST's files; none: Keras' cache.")
flags.DEFINE_integer("cores", 2, "Runs at a time, each on its own core.", lower_bound=1)
flags.DEFINE_float("hours", None, "Begin no run after so many hours.")

_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
#: Of the inputs whose inference is timed.
_BATCH_SIZE = 16
#: Test frames whose maps are looked at.
_MAPPED = 1000


def main(_: list[str]) -> None:
    results, until = Results(), time.monotonic() + 3600 * (FLAGS.hours or 1e6)
    for name in FLAGS.tasks:
        task = {**TASKS, "ablations": ABLATIONS}[name]
        if not _train_all(results, [*_choices(task)], until):
            break
        if not _train_all(results, [*_judged(task, results)], until):
            break
        if task is not ABLATIONS:
            results.set_inference(name, _inference_ms(task))


def _choices(task: Task) -> Iterator[Run]:
    if task.rate_of is None:
        for arm in task.arms:
            for rate in LEARNING_RATES:
                yield Run(task, arm, 0, rate, task.choosing_steps)


def _judged(task: Task, results: Results) -> Iterator[Run]:
    for seed, arm in task.runs():
        yield Run(task, arm, seed, results.learning_rate(task, arm), task.steps)


def _train_all(results: Results, runs: list[Run], until: float) -> bool:
    """Trains what is not trained yet, several runs at a time; says whether all are."""
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0))[: FLAGS.cores]:
        free.put(core)

    def work(run: Run) -> None:
        if time.monotonic() > until:
            return
        core = free.get()
        try:
            results.add(run, *_train(run, core))
        finally:
            free.put(core)

    with ThreadPoolExecutor(free.qsize()) as pool:
        for _ in pool.map(work, [run for run in runs if not results.has(run)]):
            pass
    return all(map(results.has, runs))


def _train(run: Run, core: int) -> tuple[float, dict[str, float], int]:
    """Trains, or resumes, on one core; returns CPU seconds, figures and multiply-accumulates."""
    workdir = Path(FLAGS.workdir) / run.folder
    workdir.mkdir(parents=True, exist_ok=True)
    overrides = {
        "seed": run.seed,
        "total_steps": run.steps,
        "optimizer.learning_rate": run.learning_rate,
        "model.name": run.arm.name,
        **dict(run.arm.overrides),
        "data.final_split": "test" if run.split == "test" else None,
    }
    if FLAGS.mnist and "digit" in run.task.recipe:
        overrides["data.data_dir"] = FLAGS.mnist
    command = ["taskset", "--cpu-list", str(core), sys.executable, "-m"]
    if run.arm.change:
        command += ["benchmarks.value_models", f"--change={run.arm.change}"]
    else:
        command += ["trainers.train"]
    command += [f"--config=trainers/configs/{run.task.recipe}.py", f"--workdir={workdir / 'run'}"]
    command += [f"--config.{key}={value}" for key, value in overrides.items()]
    with (workdir / "output.txt").open("a") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    # An interrupted run takes several processes.
    spent = workdir / "cpu_seconds.txt"
    with spent.open("a") as file:
        print(usage.ru_utime + usage.ru_stime, file=file)
    if status:
        raise SystemExit(f"{' '.join(command)} failed; see {output.name}.")
    cpu_seconds = sum(map(float, spent.read_text().split()))
    print(f"{run.folder}: {cpu_seconds:.0f} s", flush=True)
    return (cpu_seconds, *_measured(run, workdir / "run"))


def _measured(run: Run, workdir: Path) -> tuple[dict[str, float], int]:
    """Returns the last accuracy on each split with other figures, and multiply-accumulates."""
    import keras

    import benchmarks.value_models  # noqa: F401  (its layers are in some models)
    import tokenlearner_keras as tk
    from trainers.utils.reporting import read_metrics

    last = {row["split"]: row for row in read_metrics(workdir / "metrics.jsonl")}
    figures = {split: row["accuracy"] for split, row in last.items() if split != "train"}
    if run.task is SCENES and run.split == "test" and run.arm.family == "token_learner":
        figures |= _attention(workdir)
    model = keras.saving.load_model(workdir / "model.keras", compile=False)
    return figures, tk.count_macs(model)


def _attention(workdir: Path) -> dict[str, float]:
    """Returns the share of the maps' mass on the thing, and of the thing in the frame."""
    import numpy as np

    from trainers.data.freedoom.dataset import STANDARD_SETS
    from trainers.data.freedoom.dataset import load_rendered
    from trainers.data.pipeline import evaluation_dataset
    from trainers.data.sources import make_source
    from trainers.demo import finished_run
    from trainers.demo import mass_inside
    from trainers.demo import object_coverage

    run = finished_run(str(workdir), (SCENES.name,))
    source = make_source(SCENES.name, "test", None)
    frames = evaluation_dataset(source, run.preprocessing, batch_size=100).take(_MAPPED // 100)
    maps = np.concatenate([run.attention_maps(batch["image"].numpy()) for batch in frames])
    masks = load_rendered("test", STANDARD_SETS[SCENES.name])["masks"][: len(maps)] > 0
    # The frames are shrunk before they are cut, so patches are no whole pixels of the masks.
    for axis, parts in ((1, maps.shape[2]), (2, maps.shape[3])):
        masks = masks.repeat(parts // math.gcd(parts, masks.shape[axis]), axis)
    shares = mass_inside(maps, masks).mean(axis=0)
    area = object_coverage(masks, maps.shape[2:]).mean()
    return dict(zip(ATTENTION_FIGURES, (shares.mean(), shares.max(), area), strict=True))


def _inference_ms(task: Task) -> dict[str, float]:
    """Times all models of a task side by side on one core; returns milliseconds an example."""
    from trainers.configuration.configuration import model_fields
    from trainers.configuration.configuration import whole_config

    config = whole_config(f"trainers/configs/{task.recipe}.py")
    fields = {**model_fields(config), "num_classes": task.num_classes}
    function = "benchmarks.implementations.keras_models:configured"
    candidates = []
    for arm in task.arms:
        arguments: dict[str, Any] = {"name": arm.name, "fields": {**fields, **arm.fields}}
        arguments |= {"batch_size": _BATCH_SIZE, "direction": "inference", "mode": "graph"}
        candidates.append(Candidate(arm.model, function, arguments, "tensorflow"))
    with Comparison(turns=9, threads=1) as comparison:
        rows = comparison.compare(candidates, candidates[0].name)
    return {row["arm"]: 1000 * row["wall_seconds"] / _BATCH_SIZE for row in rows}


if __name__ == "__main__":
    app.run(main)
