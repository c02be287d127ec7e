"""The table of whole models' speed, from `results/models.csv`."""

from benchmarks.timing import kept_rows


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


def updates() -> str:
    """Returns a line a model and backend: what the optimizer's update takes of its step."""
    lines = [
        "| size | backend | update, of the plain step | speed-up of the step, of what the MACs "
        "promise | the same without the update |",
        "|---|---|---|---|---|",
    ]
    rows = kept_rows("updates")
    for size, backend in dict.fromkeys((row["size"], row["backend"]) for row in rows):
        mine = {r["arm"]: r for r in rows if (r["size"], r["backend"]) == (size, backend)}
        plain, half, update = (
            float(mine[arm]["wall_seconds"]) for arm in ("plain", "half", "update")
        )
        macs_ratio = float(mine["half"]["macs_ratio"])
        lines.append(
            f"| {size.upper()}/16 | {backend} | {update / plain:.3f} "
            f"| {plain / half * macs_ratio:.2f} "
            f"| {(plain - update) / (half - update) * macs_ratio:.2f} |"
        )
    return "\n".join(lines)
