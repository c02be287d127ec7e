"""Times several ways to do the same work side by side, and reads and writes the CSV files."""

import csv
import gc
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

#: Of a CSV file.
Row = dict[str, str]
#: Of a run: `wall`, and `cpu` over all threads of the process.
Seconds = dict[str, float]


def timed(work: Callable[[], object], runs: int = 1) -> Seconds:
    """Returns the mean seconds of some runs."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(runs):
        work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall / runs, "cpu": cpu / runs}


def time_in_turns(
    candidates: Mapping[str, Any],
    turns: int,
    reference: str,
    measure: Callable[[Any], Seconds] = timed,
) -> dict[str, dict[str, Any]]:
    """Times every candidate in turn, again and again, after one turn that does not count.

    Background load then affects all candidates equally. A ratio is the median of the ratios of the
    turns to those of the reference, with their lowest and highest quarter.
    """
    times: dict[str, list[Seconds]] = {name: [] for name in candidates}
    for turn in range(turns + 1):
        for name, candidate in candidates.items():
            seconds = measure(candidate)
            if turn > 0:
                times[name].append(seconds)
    return {name: _summary(mine, times[reference]) for name, mine in times.items()}


def _summary(times: list[Seconds], reference: list[Seconds]) -> dict[str, Any]:
    wall = [each["wall"] for each in times]
    ratios = [mine / other["wall"] for mine, other in zip(wall, reference, strict=True)]
    quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return {
        "wall_seconds": _rounded(statistics.median(wall)),
        "wall_seconds_lowest": _rounded(min(wall)),
        "wall_seconds_highest": _rounded(max(wall)),
        "cpu_seconds": _rounded(statistics.median(each["cpu"] for each in times)),
        "wall_ratio": round(statistics.median(ratios), 4),
        "wall_ratio_quarters": f"{quarters[0]:.4f} to {quarters[2]:.4f}",
        "turns": len(ratios),
    }


def _rounded(seconds: float) -> float:
    """Keeps four digits, also of less than a millisecond."""
    return float(f"{seconds:.4g}")


def memory_growth(work: Callable[[], object]) -> int:
    """Returns by how many bytes this process grew at most during some work."""
    gc.collect()
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak counts from here
    work()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])


def environment(*packages: str) -> dict[str, str]:
    """Returns the processor and the versions of packages, for a row of a CSV."""
    versions = {package: _version(package) for package in packages}
    return {"machine": f"{_processor()}, {os.cpu_count()} cores", **versions}


def _processor() -> str:
    """Returns the name that Linux gives the processor, or its architecture."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(package: str) -> str:
    # TensorFlow's flavours have names of their own.
    for name in (package, f"{package}-cpu", f"{package}-tpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "none"


def read_csv(name: str, folder: Path | None = None) -> list[Row]:
    """Returns the rows of a CSV of `benchmarks/results`, none if the file does not exist yet."""
    path = (folder or RESULTS) / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(name: str, rows: list[dict[str, Any]]) -> Path:
    """Writes rows of equal keys to `benchmarks/results/NAME.csv` and returns the path."""
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path
