"""Compares implementations of several frameworks: their results, times and memory."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from benchmarks.timing import time_in_turns

#: A turn of a candidate lasts about this long, in seconds.
TURN = 0.2
_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class Candidate:
    """An implementation that takes part, made by a function `module:function`."""

    name: str
    function: str
    arguments: dict[str, Any]
    #: KERAS_BACKEND, for an implementation in Keras.
    backend: str = ""
    #: Whether its arrays must equal those of the first compared candidate.
    compared: bool = False

    @property
    def process(self) -> str:
        """The same for all candidates of one backend, which share a process, or else of one module.

        The same program takes up to twice as long in another process, where its arrays lie
        otherwise. A model that torch.compile makes has its own: for each call Dynamo checks the
        guards of all compiled models of the same class in the process.
        """
        alone = self.name if self.arguments.get("mode") == "compile" else ""
        return f"{self.backend or self.function.partition(':')[0]} {alone}".strip()


class Comparison(contextlib.ExitStack):
    """Runs candidates in processes, on some cores each, which start when they are needed first.

    The tolerance of a compared array is relative to its largest value. Peak memory is measured in
    further processes.
    """

    def __init__(
        self, turns: int, threads: int, tolerance: float = 0.0, memory: bool = False
    ) -> None:
        super().__init__()
        self._turns, self._threads, self._tolerance = turns, threads, tolerance
        self._memory = memory
        self._workers: dict[tuple[str, bool], _Worker] = {}

    def compare(self, candidates: list[Candidate], reference: str) -> list[dict[str, Any]]:
        """Returns a row for each candidate: times, ratio to `reference`, memory, versions."""
        versions = {each.name: self._build(each) for each in candidates}
        self._compare_results(candidates)
        seconds = {each.name: self._ask(each, "time", 1)["wall"] for each in candidates}

        def measure(candidate: Candidate) -> Any:
            runs = max(1, round(TURN / seconds[candidate.name]))
            return self._ask(candidate, "time", runs)

        by_name = {each.name: each for each in candidates}
        times = time_in_turns(by_name, self._turns, reference, measure)
        rows = []
        for candidate in candidates:
            machine = versions[candidate.name].pop("machine")
            row = {"arm": candidate.name, **times[candidate.name]}
            row |= {"peak_bytes": self._peak_bytes(candidate), "threads": self._threads}
            packages = " ".join(f"{k} {v}" for k, v in versions[candidate.name].items())
            rows.append({**row, "machine": machine, "versions": packages})
            logging.info("%s: %.2f ms", candidate.name, 1000 * row["wall_seconds"])
        for worker in self._workers.values():
            worker.ask("clear")
        return rows

    def _ask(self, candidate: Candidate, command: str, *more: Any, returning: bool = False) -> Any:
        key = (candidate.process, returning)
        if key not in self._workers:
            self._workers[key] = _Worker(candidate, self._threads, returning)
            self.callback(self._workers[key].end)
        return self._workers[key].ask(command, candidate.name, *more)

    def _build(self, candidate: Candidate, returning: bool = False) -> Any:
        function, arguments = candidate.function, candidate.arguments
        return self._ask(candidate, "build", function, arguments, returning=returning)

    def _peak_bytes(self, candidate: Candidate) -> int | str:
        """Measures in a process that gives freed arrays back at once, which costs time.

        TensorFlow keeps what it has freed, so its processes do not grow again.
        """
        if candidate.backend == "tensorflow" or not self._memory:
            return ""
        self._build(candidate, returning=True)
        return int(self._ask(candidate, "memory", returning=True))

    def _compare_results(self, candidates: list[Candidate]) -> None:
        first: dict[str, np.ndarray] = {}
        for candidate in (each for each in candidates if each.compared):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "result.npz"
                self._ask(candidate, "result", str(path))
                with np.load(path) as file:
                    found = dict(file)
            name, first = candidate.name, first or found
            if first.keys() != found.keys():
                raise SystemExit(f"{name} gives {sorted(found)}, expected {sorted(first)}.")
            for key, expected in first.items():
                difference = np.abs(found[key] - expected).max() / np.abs(expected).max()
                logging.info("%s: %s differs by %.1e", name, key, difference)
                if not difference <= self._tolerance:
                    raise SystemExit(f"{name}: {key} differs by {difference:.1e}.")


class _Worker:
    """The parent's end of a `benchmarks.worker`, which is stopped while nobody asks it."""

    def __init__(self, candidate: Candidate, threads: int, returning: bool) -> None:
        self._name = candidate.process
        cores = sorted(os.sched_getaffinity(0))[:threads]
        environment = {
            **dict.fromkeys(_THREADS, str(len(cores))),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no processes that stay
            "CUDA_VISIBLE_DEVICES": "",
        }
        if candidate.backend:
            environment["KERAS_BACKEND"] = candidate.backend
        # Memory is given back at once, or kept: by default it depends on what ran before.
        mmap, trim = ("65536", "0") if returning else (str(2**25), str(2**40))
        environment |= {"MALLOC_MMAP_THRESHOLD_": mmap, "MALLOC_TRIM_THRESHOLD_": trim}
        self._process = subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, cores))]
            + [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def ask(self, *message: Any) -> Any:
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(message), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The process {self._name!r} ended; see its output above.")
        # Threads that wait for work by turning in circles would slow the others.
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
