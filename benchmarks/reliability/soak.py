"""Memory and open files of a long run: `python -m benchmarks.reliability.soak`."""

import os
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.reliability import part
from benchmarks.reliability import small_runs

STEPS = 20_000
MOST_GROWTH = 0.01
_FLAGS = (
    "--config.log_steps=100",
    "--config.checkpoint_steps=200",
    "--config.eval_steps=1000",
    "--config.model.width=24",
    "--config.model.mlp_dim=48",
    "--config.model.name=vit_ti4_d2_tl4at1",
)


def measure(workdir: Path) -> Iterator[part.Row]:
    for engine in ("tensorflow", "jax"):
        memory, files = _watch(workdir / f"run_{engine}", engine)
        grown = [_growth(each) for each in (memory, files)]
        yield part.Row(
            f"{STEPS:,} steps, {engine}: memory and open files grow by less than "
            f"{MOST_GROWTH:.0%} after the first tenth of them",
            2,
            sum(each < MOST_GROWTH for each in grown),
            f"memory {grown[0]:+.2%} of {statistics.median(memory) / 2**20:.0f} MiB, open files "
            f"{grown[1]:+.2%} of {statistics.median(files):.0f}; {len(memory)} samples",
        )


def _watch(run: Path, engine: str) -> tuple[list[float], list[float]]:
    """Returns resident bytes and open files, second by second after the first tenth."""
    shutil.rmtree(run, ignore_errors=True)
    process = small_runs.start(run, *_FLAGS, total_steps=STEPS, engine=engine)
    memory: list[float] = []
    files: list[float] = []
    # A full pipe would stop the process.
    reader = threading.Thread(target=process.communicate)
    reader.start()
    while reader.is_alive():
        time.sleep(1)
        if not STEPS // 10 <= small_runs.last_step(run) < STEPS:
            continue
        try:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
            files.append(len(os.listdir(f"/proc/{process.pid}/fd")))
        except OSError:
            break  # it has just ended
    reader.join()
    if process.returncode or not memory:
        raise SystemExit(f"{run}: the training has failed, or was too quick to be watched.")
    return memory[: len(files)], files


def _growth(samples: list[float]) -> float:
    """Returns the growth from the first fifth of the samples to the last one."""
    count = max(1, len(samples) // 5)
    return statistics.median(samples[-count:]) / statistics.median(samples[:count]) - 1


if __name__ == "__main__":
    part.run("soak", measure)
