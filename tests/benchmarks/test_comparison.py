"""Comparisons of implementations in processes."""

import sys

import pytest

from benchmarks.comparison import Candidate
from benchmarks.comparison import Comparison

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, calls taskset")

CONSTANT = "tests.helpers.implementations:constant"


def _candidate(
    name: str, backend: str = "", compared: bool = True, **arguments: float
) -> Candidate:
    return Candidate(name, CONSTANT, {"value": 1.0, **arguments}, backend, compared)


def test_ratios_and_memory_in_two_processes() -> None:
    slow = _candidate("slow", "another", seconds=0.08, megabytes=64)
    candidates = [_candidate("quick", seconds=0.02), slow]
    with Comparison(turns=3, threads=1, tolerance=1e-6, memory=True) as comparison:
        quick_row, slow_row = comparison.compare(candidates, "quick")
    assert (quick_row["arm"], slow_row["arm"]) == ("quick", "slow")
    assert quick_row["wall_ratio"] == 1 and slow_row["wall_seconds"] > 0
    assert slow_row["peak_bytes"] > 64 << 20 > quick_row["peak_bytes"]
    assert quick_row["turns"] == 3 and "numpy" in quick_row["versions"]


def test_a_different_result_ends_the_comparison() -> None:
    candidates = [_candidate("one"), _candidate("other", value=1.01)]
    with Comparison(1, 1, tolerance=1e-3) as comparison:
        with pytest.raises(SystemExit, match="other: output"):
            comparison.compare(candidates, "one")


def test_a_candidate_that_is_not_compared_may_differ() -> None:
    candidates = [_candidate("one"), _candidate("other", compared=False, value=1.01)]
    with Comparison(1, 1, tolerance=1e-3) as comparison:
        rows = comparison.compare(candidates, "one")
    assert [row["peak_bytes"] for row in rows] == ["", ""]


def test_a_process_that_fails_is_named() -> None:
    candidate = Candidate("broken", "tests.helpers.implementations:nothing", {})
    with Comparison(1, 1) as comparison:
        with pytest.raises(SystemExit, match="'tests.helpers.implementations' ended"):
            comparison.compare([candidate], "broken")
