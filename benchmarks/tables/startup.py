"""The table of seconds until something happens, from `results/startup.csv`."""

from benchmarks.timing import read_csv


def startup() -> str:
    """Returns a line a command: median seconds, lowest and highest."""
    lines = ["| command, from its start to its end | seconds | of turns |", "|---|---|---|"]
    for row in read_csv("startup"):
        seconds, low, high = (
            float(row[f"wall_seconds{each}"]) for each in ("", "_lowest", "_highest")
        )
        lines.append(f"| {row['arm']} | {seconds:.1f} | {low:.1f} to {high:.1f} |")
    return "\n".join(lines)
