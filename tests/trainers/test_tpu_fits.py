"""What the benchmark of slices reads in the report of `trainers.tpu_check`."""

import importlib
import re

import pytest

from benchmarks.timing import read_csv
from benchmarks.tpu_fits import CASES
from benchmarks.tpu_fits import Case
from benchmarks.tpu_fits import parsed
from trainers.aot.cost import Cost
from trainers.aot.roofline import Roofline
from trainers.aot.topology import GENERATIONS
from trainers.configuration.configuration import whole_config

_DESCRIPTION = (
    "vit_b16, mixed_bfloat16: batch 64 on v5e:2x4, chips: 8, each with 16 GB and 8 examples a "
    "step; weights and optimizer 0.06 GiB on each\ncompiler: jax 0.10.2, libtpu 0.0.52; the step\n"
)
_FITS = (
    "train step: 0.17 GiB of 15.75 GiB HBM (1.1%), 144.04 GFLOP, all-reduce: 7 (0.0119 GiB), "
    "reduce-scatter: 5 (0.0066 GiB), lowered in 1 s, compiled in 167 s\nfits: v5e:2x4\n"
)
_BOUND = (
    "train bound: 0.0007312 s by compute, 0.003241 s by memory (2.65 GB through HBM); memory "
    "binds: at most 2468.05 examples/s a chip, utilisation at most 22.6%\n"
)
_TOO_LARGE = "train step: 22.50 GiB of 15.75 GiB HBM (142.9%), refused as too large after 31 s\n"


def test_a_step_that_fits() -> None:
    row = parsed(_DESCRIPTION + _FITS + _BOUND)
    assert (row["model"], row["dtype_policy"]) == ("vit_b16", "mixed_bfloat16")
    assert (row["batch_size"], row["chips"], row["examples_a_chip"]) == ("64", "8", "8")
    assert (row["memory_gib"], row["available_gib"], row["fits"]) == ("0.17", "15.75", True)
    assert row["gflop_a_chip"] == "144.04" and row["compile_seconds"] == "167"
    assert row["collectives"] == "all-reduce: 7 (0.0119 GiB), reduce-scatter: 5 (0.0066 GiB)"
    assert (row["compute_seconds"], row["memory_seconds"]) == ("0.0007312", "0.003241")
    assert (row["hbm_gb"], row["bound_by"]) == ("2.65", "memory")
    assert (row["bound_examples_per_second"], row["bound_utilization"]) == ("2468.05", "22.6%")


def test_the_bound_is_read_as_it_is_printed() -> None:
    roofline = Roofline(Cost(10**15, 10**10), GENERATIONS["v5e"], examples=4)
    row = parsed(f"{_DESCRIPTION}{_FITS}train bound: {roofline}\n")
    assert (row["hbm_gb"], row["bound_by"], row["bound_utilization"]) == (
        "10.00",
        "compute",
        "100.0%",
    )


def test_a_step_that_does_not() -> None:
    row = parsed(_DESCRIPTION + _TOO_LARGE)
    assert (row["memory_gib"], row["fits"], row["gflop_a_chip"]) == ("22.50", False, "")
    assert (row["collectives"], row["compile_seconds"], row["bound_by"]) == ("", "31", "")


def test_no_report_is_no_row() -> None:
    with pytest.raises(ValueError, match="Expected the report of a train step"):
        parsed(_DESCRIPTION)


@pytest.mark.parametrize("recipe", sorted({case.recipe for case in CASES}))
def test_a_recipe_fits_the_slice_that_it_names(recipe: str) -> None:
    """As it stands, on JAX."""
    module = importlib.import_module(f"trainers.configs.{recipe}")
    config = whole_config(module.__file__)
    case = Case(recipe, config.topology, remat=config.model.remat or False)
    (row,) = (row for row in read_csv("tpu_fits") if case.key.items() <= row.items())
    assert row["fits"] == "True" and int(row["batch_size"]) == config.batch_size
    assert re.search(rf"^Hardware: {config.topology}\b", module.__doc__, re.MULTILINE)
    assert not config.model.attention_dropout and not config.data.scaled_decoding


def test_each_case_is_found_by_its_own_key() -> None:
    keys = [tuple(case.key.items()) for case in CASES]
    assert len(set(keys)) == len(keys)
