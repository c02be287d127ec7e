"""Compares several arms, in a process for each framework, then times them in turns."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from absl import logging

from benchmarks.timing import summary

#: A turn of an arm lasts about this long, in seconds.
TURN = 0.2


@dataclass(frozen=True)
class Entry:
    """An arm that takes part.

    Args:
        name: Of the arm, in the CSV.
        function: `module:function` that makes it.
        arguments: Of that function.
        process: Of the arms that share a process.
        backend: KERAS_BACKEND of that process.
        compared: Whether its arrays must equal those of the first compared entry.
    """

    name: str
    function: str
    arguments: dict[str, Any]
    process: str
    backend: str = ""
    compared: bool = True


class Arena(contextlib.AbstractContextManager["Arena"]):
    """The processes of several contests, started when the first arm needs them.

    Args:
        turns: Turns that count, after one that does not.
        threads: Cores that each process may use.
        tolerance: Largest difference of a compared array, relative to its largest value.
        memory: Whether peak memory is measured, in processes of their own.
    """

    def __init__(self, turns: int, threads: int, tolerance: float, memory: bool = True) -> None:
        self._turns, self._threads, self._tolerance = turns, threads, tolerance
        self._memory = memory
        self._workers: dict[tuple[str, bool], _Worker] = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for worker in self._workers.values():
            worker.end()

    def contest(self, entries: list[Entry], reference: str) -> list[dict[str, Any]]:
        """Returns a row for each entry: times, memory, versions.

        Args:
            entries: Those of one comparison.
            reference: Name of the entry that ratios are relative to.

        Raises:
            SystemExit: If an entry computes something else than the first one.
        """
        versions = {entry.name: self._ask(entry, "build") for entry in entries}
        self._compare(entries)
        runs = {entry.name: self._runs(entry) for entry in entries}
        times: dict[str, dict[str, list[float]]] = {n: {"wall": [], "cpu": []} for n in versions}
        for turn in range(self._turns + 1):
            for entry in entries:
                seconds = self._ask(entry, "time", runs[entry.name])
                for clock, each in seconds.items():
                    times[entry.name][clock].extend([each] if turn else [])
        rows = []
        for entry in entries:
            machine = versions[entry.name].pop("machine")
            row = {"arm": entry.name, **summary(times[entry.name], times[reference])}
            row |= {"peak_bytes": self._peak_bytes(entry), "threads": self._threads}
            packages = " ".join(f"{k} {v}" for k, v in versions[entry.name].items())
            rows.append({**row, "machine": machine, "versions": packages})
            logging.info("%s: %.2f ms", entry.name, 1000 * row["wall_seconds"])
        for worker in self._workers.values():
            worker.ask("clear")
        return rows

    def _ask(self, entry: Entry, command: str, *arguments: Any, returning: bool = False) -> Any:
        key = (entry.process, returning)
        if key not in self._workers:
            self._workers[key] = _Worker(entry, self._threads, returning)
        if command == "build":
            arguments = (entry.function, entry.arguments)
        return self._workers[key].ask(command, entry.name, *arguments)

    def _runs(self, entry: Entry) -> int:
        return max(1, round(TURN / self._ask(entry, "time", 1)["wall"]))

    def _peak_bytes(self, entry: Entry) -> int | str:
        """Measures in a process that gives freed arrays back at once, which costs time.

        TensorFlow keeps what it has freed, so its processes do not grow again.
        """
        if entry.backend == "tensorflow" or not self._memory:
            return ""
        self._ask(entry, "build", returning=True)
        return int(self._ask(entry, "memory", returning=True))

    def _compare(self, entries: list[Entry]) -> None:
        first: dict[str, np.ndarray] = {}
        for entry in (entry for entry in entries if entry.compared):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "result.npz"
                self._ask(entry, "result", str(path))
                with np.load(path) as file:
                    found = dict(file)
            first = first or found
            if first.keys() != found.keys():
                raise SystemExit(f"{entry.name} gives {sorted(found)}, expected {sorted(first)}.")
            for key, expected in first.items():
                difference = np.abs(found[key] - expected).max() / np.abs(expected).max()
                logging.info("%s: %s differs by %.1e", entry.name, key, difference)
                if not difference <= self._tolerance:
                    raise SystemExit(f"{entry.name}: {key} differs by {difference:.1e}.")


class _Worker:
    """The parent's end of a process. It stands still while nobody asks it."""

    def __init__(self, entry: Entry, threads: int, returning: bool) -> None:
        self._name = entry.process
        cores = sorted(os.sched_getaffinity(0))[:threads]
        count = str(len(cores))
        environment = {
            **dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), count),
            "TF_NUM_INTEROP_THREADS": count,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "",
        }
        if entry.backend:
            environment["KERAS_BACKEND"] = entry.backend
        if returning:
            environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
        self._process = subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, cores))]
            + [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def ask(self, *message: Any) -> Any:
        """Returns the answer to a command."""
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(message), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The process {self._name!r} ended; what it said stands above.")
        # Threads that wait for work by turning in circles would slow the others.
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def end(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.wait()
