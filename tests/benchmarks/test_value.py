"""The study of where learned tokens pay: its tasks, its changed models and its results."""

from pathlib import Path

import numpy as np
import pytest

import tokenlearner_keras as tk
from benchmarks import timing
from benchmarks.tables.value import value_models
from benchmarks.tables.value import value_pairs
from benchmarks.value_models import convolutions
from benchmarks.value_models import fixed_maps
from benchmarks.value_results import Results
from benchmarks.value_results import Run
from benchmarks.value_tasks import ABLATIONS
from benchmarks.value_tasks import CLUTTERED
from benchmarks.value_tasks import LEARNING_RATES
from benchmarks.value_tasks import TASKS
from benchmarks.value_tasks import Task
from tests.helpers.arrays import random
from trainers.configuration.configuration import model_fields
from trainers.configuration.configuration import whole_config

FAMILIES = {"plain", "token_learner", "pooling", "patch_merger", "token_merging"}
#: Million multiply-accumulates of the dearest model of a task.
MOST_MACS = {"freedoom_route": 30}


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_task_compares_models_of_its_cost(task: Task) -> None:
    fields = model_fields(whole_config(f"trainers/configs/{task.recipe}.py"))
    costs = {}
    for arm in task.arms:
        model = tk.create_model(arm.name, num_classes=task.num_classes, **{**fields, **arm.fields})
        costs[arm.model] = tk.count_macs(model) / 1e6
    assert max(costs.values()) <= MOST_MACS.get(task.name, 15), costs
    mine = costs[task.claim[0]]
    rivals = {arm.family for arm in task.arms if costs[arm.model] <= 1.02 * mine}
    assert rivals == FAMILIES  # at least one of each kind costs no more
    families = {arm.model: arm.family for arm in task.arms}
    assert len(families) == len(task.arms)
    assert set(families.values()) == FAMILIES
    assert len([*task.runs()]) >= 15


def test_fixed_maps_are_not_trained() -> None:
    model = fixed_maps(tk.create_model("vit_ti8_d2_tl4at1_v10", image_size=32, num_classes=3))
    assert not any("token_learner" in each.path for each in model.trainable_variables)
    assert model.trainable_variables


@pytest.mark.parametrize("name", ["vit_ti8_d2", "vit_ti8_d2_tl4at1"])
def test_convolutions_are_a_residual_that_starts_at_zero(name: str) -> None:
    model = tk.create_model(name, image_size=32, num_classes=3)
    macs = tk.count_macs(model)
    changed = convolutions(model)
    x = random(2, 32, 32, 3)
    np.testing.assert_allclose(changed(x), model(x), atol=1e-5)
    positions, width = 16, 192
    kernels = sum(w.shape.num_elements() for w in changed.get_layer("convolutions").weights[2:-1])
    assert kernels == 9 * 8 * (width + 24) + 8 * width
    assert tk.count_macs(changed) - macs == positions * kernels
    assert changed.get_layer("convolutions").trainable_variables


def test_results_choose_the_rate_and_are_not_measured_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    results, arm = Results(), CLUTTERED.arms[0]
    for rate, accuracy in zip(LEARNING_RATES, (0.5, 0.7, 0.6), strict=True):
        run = Run(CLUTTERED, arm, 0, rate, CLUTTERED.steps // 3)
        assert run.chooses and run.split == "validation" and not results.has(run)
        results.add(run, 10.0, {"validation": accuracy}, 5_000_000)
        assert results.has(run)
    assert results.learning_rate(CLUTTERED, arm) == LEARNING_RATES[1]
    assert results.learning_rate(ABLATIONS, ABLATIONS.arms[1]) == LEARNING_RATES[1]

    for seed, accuracy in enumerate((0.8, 0.82, 0.84)):
        run = Run(CLUTTERED, arm, seed, LEARNING_RATES[1], CLUTTERED.steps)
        results.add(run, 100.0, {"validation": 0.9, "test": accuracy}, 5_400_000)
        rival = Run(CLUTTERED, CLUTTERED.arms[1], seed, 1e-3, CLUTTERED.steps)
        results.add(rival, 90.0, {"validation": 0.8, "test": accuracy - 0.2}, 5_100_000)
    ablation = Run(ABLATIONS, ABLATIONS.arms[1], 0, LEARNING_RATES[1], ABLATIONS.steps)
    results.add(ablation, 100.0, {"validation": 0.6}, 5_400_000)
    assert ablation.split == "validation"

    rows = timing.read_csv("value")
    assert len(rows) == 6 and {row["split"] for row in rows} == {"test"}
    assert ",".join(rows[0]) == (
        "task,family,model,million_macs,inference_ms,train_cpu_seconds,steps,seed,split,metric,value"
    )
    assert len(timing.read_csv("value_ablations")) == 1
    assert Results().has(run) and not Results().has(Run(CLUTTERED, arm, 4, 2e-3, CLUTTERED.steps))


def test_tables_say_by_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    header = "task,family,model,million_macs,inference_ms,train_cpu_seconds,seed,value"
    rows = [
        "cluttered_digits,token_learner,vit_ti8_d6_tl8at1_v10,5.4,1,100,0,0.80",
        "cluttered_digits,token_learner,vit_ti8_d6_tl8at1_v10,5.4,1,100,1,0.82",
        "cluttered_digits,pooling,vit_ti8_d6_pool3at1,5.1,1,90,0,0.60",
        "cluttered_digits,pooling,vit_ti8_d6_pool3at1,5.1,1,90,1,0.62",
        "cluttered_digits,plain,vit_ti8_d2,7.1,1,120,0,0.65",
        "cluttered_digits,plain,vit_ti8_d4,13.4,1,200,0,0.70",
        "cluttered_digits,plain,vit_ti8_d4,13.4,1,200,1,0.72",
    ]
    (tmp_path / "value.csv").write_text("\n".join([header, *rows, ""]))
    lines = value_pairs().splitlines()[2:]
    # By hand: the means differ by 0.2, each with a variance of 0.0002 of two seeds; Student's
    # t at 2 degrees of freedom is 4.303, so the interval is 0.2 -+ 4.303 * sqrt(0.0002).
    assert [line.split(" | ")[2] for line in lines] == ["`vit_ti8_d6_pool3at1`", "`vit_ti8_d4`"]
    assert "| +0.200 | +0.139 to +0.261 | 2, 2 |" in lines[0]
    assert "| 2.48 |" in lines[1] and "| +0.100 |" in lines[1]
    assert len(value_models().splitlines()) == 2 + 4
