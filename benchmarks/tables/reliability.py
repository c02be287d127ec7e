"""The table of docs/reliability.md: what was done to runs and files, and what held."""

from benchmarks.timing import kept_rows

#: The parts in the order of the table, with their headings.
_HEADINGS = {
    "random_kills": "Killed at random moments",
    "crash_points": "Killed at a chosen operation of a save",
    "signals_and_full_disks": "Signals, full and vanishing disks",
    "concurrent_runs": "Two runs on one work directory",
    "bit_flips": "Flipped bits in checkpoints",
    "damaged_data": "Damaged data",
    "not_finite": "NaN and infinity",
    "configurations": "Random configurations",
    "hostile_files": "Hostile files",
    "determinism": "The same again",
    "soak": "A long run",
}


def reliability() -> str:
    """Returns a line a case, the cases of a part together under its command."""
    rows = kept_rows("reliability")
    lines = ["| what was done, and what must hold | tries | held | figures |", "|---|---|---|---|"]
    for part, heading in _HEADINGS.items():
        mine = [row for row in rows if row["part"] == part]
        if mine:
            lines.append(f"| **{heading}**: `python -m benchmarks.reliability.{part}` | | | |")
            lines += map(_line, mine)
    return "\n".join([*lines, "", _made_with(rows)])


def _line(row: dict[str, str]) -> str:
    all_held = row["held"] == row["tries"]
    held = row["held"] if all_held else f"**{row['held']}**"
    return f"| {row['case']} | {row['tries']} | {held} | {row['figures'] or '–'} |"


def _made_with(rows: list[dict[str, str]]) -> str:
    versions = {
        f"TensorFlow {row['tensorflow']}, JAX {row['jax']}, Keras {row['keras']}" for row in rows
    }
    return f"With {' and '.join(sorted(versions))}."
