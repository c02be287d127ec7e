"""Timing of several ways to do the same work, side by side, and the CSV files of results."""

import csv
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def interleaved(
    arms: dict[str, Callable[[], None]], repeats: int
) -> dict[str, dict[str, list[float]]]:
    """Times every arm in turn, again and again, after one turn that does not count.

    What else the machine does meets all arms alike that way.

    Args:
        arms: By name; each call does the same amount of work.
        repeats: How many turns count.

    Returns:
        For each arm `wall` and `cpu`, seconds of each turn; `cpu` over all threads of the
        process.
    """
    times: dict[str, dict[str, list[float]]] = {arm: {"wall": [], "cpu": []} for arm in arms}
    for turn in range(repeats + 1):
        for arm, work in arms.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn > 0:
                times[arm]["wall"].append(wall)
                times[arm]["cpu"].append(cpu)
    return times


def summary(times: dict[str, list[float]], reference: dict[str, list[float]]) -> dict[str, Any]:
    """Returns median and spread of an arm, and its ratio to a reference arm.

    The ratio is the median of the turns' ratios; its lowest and highest quarter stand
    beside it.

    Args:
        times: `wall` and `cpu` of the arm, from `interleaved`.
        reference: Those of the arm to compare with.
    """
    ratios = [mine / other for mine, other in zip(times["wall"], reference["wall"], strict=True)]
    quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return {
        "wall_seconds": round(statistics.median(times["wall"]), 4),
        "wall_seconds_lowest": round(min(times["wall"]), 4),
        "wall_seconds_highest": round(max(times["wall"]), 4),
        "cpu_seconds": round(statistics.median(times["cpu"]), 4),
        "wall_ratio": round(statistics.median(ratios), 4),
        "wall_ratio_quarters": f"{quarters[0]:.4f} to {quarters[2]:.4f}",
        "turns": len(ratios),
    }


def environment(*packages: str) -> dict[str, str]:
    """Returns the machine and the versions of packages, for a row of a CSV."""
    found = {"machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    for package in packages:
        found[package] = _version(package)
    return found


def _version(package: str) -> str:
    # TensorFlow's flavours have names of their own.
    for name in (package, f"{package}-cpu", f"{package}-tpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "none"


def read_csv(name: str) -> list[dict[str, str]]:
    """Returns the rows of `benchmarks/results/NAME.csv`."""
    with open(_csv_path(name), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def kept_rows(
    name: str, keep: Callable[[dict[str, str]], bool] = lambda row: True
) -> list[dict[str, Any]]:
    """Returns the rows of a CSV to keep, none if there is no such file yet."""
    return [dict(row) for row in read_csv(name) if keep(row)] if _csv_path(name).exists() else []


def write_csv(name: str, rows: list[dict[str, Any]]) -> Path:
    """Writes rows of equal keys to `benchmarks/results/NAME.csv` and returns the path."""
    path = _csv_path(name)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _csv_path(name: str) -> Path:
    return RESULTS / f"{name}.csv"
