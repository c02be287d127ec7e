"""Flipped bits in checkpoints: `python -m benchmarks.reliability.bit_flips`."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.reliability import part
from benchmarks.reliability import small_runs
from trainers.checkpointing.checkpoint_file import digest
from trainers.checkpointing.store import CheckpointStore

#: Flips of each file, in all 500: by size alone the manifest would get none.
FLIPS = {"arrays.npz": 350, "manifest.json": 150}
COMMANDS = 5
_STEPS = (8, 12)
_SKIPPED = re.compile(r"checkpoint (\S+) is damaged, skipped: ")


def measure(workdir: Path) -> Iterator[part.Row]:
    run = workdir / "run"
    small_runs.train_to_end(run, total_steps=_STEPS[-1])
    generator = random.Random(0)
    for name, count in FLIPS.items():
        held = sum(is_noticed(run / "checkpoints", name, generator) for _ in range(count))
        yield part.Row(
            f"one bit of `{name}` of the newest checkpoint flipped: it is not loaded, the one "
            "before it is, and a line says so",
            count,
            held,
        )
    held = sum(_command_falls_back(run, generator) for _ in range(COMMANDS))
    yield part.Row("the same, and the training command run again", COMMANDS, held)


def is_noticed(checkpoints: Path, name: str, generator: random.Random) -> bool:
    """Tells whether a flipped bit in the newest checkpoint is reported and skipped."""
    reports: list[str] = []
    store = CheckpointStore(checkpoints, 9, reports.append)
    *_, before, newest = store.steps()
    expected = digest(store.load(before))
    path = checkpoints / f"step_{newest:08d}" / name
    original = path.read_bytes()
    _flip(path, generator)
    found = store.load_newest()
    path.write_bytes(original)
    says_so = [bool(_SKIPPED.match(report)) for report in reports] == [True]
    return found is not None and found[0] == before and digest(found[1]) == expected and says_so


def _command_falls_back(run: Path, generator: random.Random) -> bool:
    newest = run / "checkpoints" / f"step_{_STEPS[-1]:08d}"
    before = (newest / "arrays.npz").read_bytes()
    _flip(newest / generator.choice(list(FLIPS)), generator)
    done = small_runs.train(run, total_steps=_STEPS[-1])
    resumed = f"resuming at step {_STEPS[0]}\n" in done.stdout
    # It has trained the last steps again, and written the same.
    is_same = (newest / "arrays.npz").read_bytes() == before
    return not done.returncode and resumed and bool(_SKIPPED.search(done.stderr)) and is_same


def _flip(path: Path, generator: random.Random) -> None:
    changed = bytearray(path.read_bytes())
    changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    path.write_bytes(changed)


if __name__ == "__main__":
    part.run("bit_flips", measure)
