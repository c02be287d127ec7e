"""The table of whole models' speed, from `results/models.csv`."""

from benchmarks.measuring import kept_rows


def model_speed() -> str:
    """Returns a line an arm: images a second, and the gain over its own plain model."""
    lines = [
        "| size | direction | package and backend | model | images/s | speed-up | by MACs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in kept_rows("models"):
        images = int(row["batch_size"]) / float(row["wall_seconds"])
        macs = f"{1 / float(row['macs_ratio']):.2f}" if row["macs_ratio"] else "–"
        lines.append(
            f"| {row['size'].upper()}/16 | {row['direction']} | {row['family']} | {row['arm']} "
            f"| {images:.1f} | {1 / float(row['wall_ratio']):.2f} | {macs} |"
        )
    return "\n".join(lines)
