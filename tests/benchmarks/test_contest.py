"""What a benchmark that compares several arms makes of them."""

import sys

import pytest

from benchmarks.comparison import Arena
from benchmarks.comparison import Entry

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, calls taskset")

ARMS = "tests.helpers.implementations:constant"


def _entry(name: str, process: str = "one", compared: bool = True, **arguments: float) -> Entry:
    return Entry(name, ARMS, {"value": 1.0, **arguments}, process, compared=compared)


def test_ratios_and_memory_of_arms_in_processes_of_their_own() -> None:
    entries = [_entry("quick", seconds=0.02), _entry("slow", "another", seconds=0.08, megabytes=64)]
    with Arena(turns=3, threads=1, tolerance=1e-6) as arena:
        quick, slow = arena.contest(entries, "quick")
    assert (quick["arm"], slow["arm"]) == ("quick", "slow")
    assert quick["wall_ratio"] == 1 and slow["wall_seconds"] > 0
    assert slow["peak_bytes"] > 64 << 20 > quick["peak_bytes"]
    assert quick["turns"] == 3 and "numpy" in quick["versions"]


def test_an_arm_that_computes_something_else_ends_it() -> None:
    entries = [_entry("one"), _entry("other", value=1.01)]
    with Arena(1, 1, tolerance=1e-3) as arena, pytest.raises(SystemExit, match="other: output"):
        arena.contest(entries, "one")


def test_an_arm_that_is_not_compared_may() -> None:
    entries = [_entry("one"), _entry("other", compared=False, value=1.01)]
    with Arena(1, 1, tolerance=1e-3, memory=False) as arena:
        rows = arena.contest(entries, "one")
    assert [row["peak_bytes"] for row in rows] == ["", ""]


def test_a_process_that_fails_is_named() -> None:
    entry = Entry("broken", "tests.helpers.implementations:nothing", {}, "a process")
    with Arena(1, 1, 0) as arena, pytest.raises(SystemExit, match="'a process' ended"):
        arena.contest([entry], "broken")
