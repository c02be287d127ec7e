"""The tables of what the trainer costs and survives."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.tables.rows import grouped
from benchmarks.tables.rows import table
from benchmarks.tables.rows import versions
from benchmarks.timing import Row
from benchmarks.timing import read_csv

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


def trainer_table() -> str:
    lines = [*_loop(), *_pipeline(), _checkpoint(), _kills()]
    return table("measured | result | goal | command", lines)


def _loop() -> Iterator[str]:
    for (config,), rows in grouped(read_csv("training"), "config").items():
        arms = {row["arm"]: row for row in rows}
        trainer, fit = arms["trainer"], arms["fit"]
        step = 1000 * float(arms["bare"]["wall_seconds"]) / int(trainer["steps"])
        yield (
            f"time of a step in the trainer's loop, with data and metrics, over that of a bare "
            f"compiled step of {step:.0f} ms (`{Path(config).stem}`) | {_ratio(trainer)}; "
            f"`model.fit`: {_ratio(fit)} | 1.03 | `python -m benchmarks.training`"
        )


def _ratio(row: Row) -> str:
    return f"{float(row['wall_ratio']):.2f} ({row['wall_ratio_quarters']})"


def _pipeline() -> Iterator[str]:
    for (inputs, interpolation), speeds in _input_speeds().items():
        if "resize" not in speeds:
            continue  # videos
        decode, resize, pipeline = speeds["decode"], speeds["resize"], speeds["pipeline"]
        yield (
            f"images/s a core of the input pipeline ({inputs}, {interpolation}) over bare JPEG "
            f"decoding of the same windows | {pipeline:.0f} / {decode:.0f} = "
            f"{pipeline / decode:.2f}; decoding with nothing but TensorFlow's resizing: "
            f"{resize / decode:.2f}, of which the pipeline reaches {pipeline / resize:.2f} | 0.9 "
            f"| `python -m benchmarks.pipeline`"
        )


def input_pipeline() -> str:
    """Returns a line for each kind of input: images or frames a second and core."""
    sizes = {row["inputs"]: int(row["mean_file_bytes"]) for row in read_csv("pipeline")}
    lines = []
    for (inputs, interpolation), speeds in _input_speeds().items():
        decode, pipeline, scaled = (speeds[arm] for arm in ("decode", "pipeline", "scaled"))
        lines.append(
            f"{inputs}, {sizes[inputs] / 1000:.0f} kB | {interpolation} | {decode:,.0f} "
            f"| {speeds['half']:,.0f} | {pipeline:,.0f} = {pipeline / decode:.2f} "
            f"| {scaled:,.0f} = {scaled / decode:.2f}"
        )
    header = (
        "JPEGs | interpolation | decoding | at half scale | pipeline, over decoding "
        "| with `data.scaled_decoding`"
    )
    return table(header, lines)


def _input_speeds() -> dict[tuple[str, ...], dict[str, float]]:
    groups = grouped(read_csv("pipeline"), "inputs", "interpolation")
    return {
        key: {row["arm"]: float(row["per_core_second"]) for row in rows}
        for key, rows in groups.items()
    }


def _checkpoint() -> str:
    arms = {row["arm"]: row for row in read_csv("checkpoints")}
    mine, waiting = arms["asynchronous"], arms["waiting"]
    return (
        f"time the loop stands still for a checkpoint of {float(mine['megabytes']):,.0f} MB "
        f"(`{mine['model']}` with AdamW) | {float(mine['stall_seconds']):.2f} s; written before "
        f"going on: {float(waiting['stall_seconds']):.2f} s | – | "
        "`python -m benchmarks.checkpoints`"
    )


def _kills() -> str:
    rows = [row for row in read_csv("kills") if row["engine"] != "BackupAndRestore"]
    kills = sum(int(row["kills"]) for row in rows)
    same = sum(row["same"] == "True" for row in rows)
    return (
        f"runs on images and videos, on both engines, killed by SIGKILL {kills} times in all at "
        f"random moments that end with the checksums and rows of one never killed | {same} of "
        f"{len(rows)} | all | `python -m benchmarks.reliability.random_kills`"
    )


def reliability() -> str:
    """Returns a line a case, the cases of a part together under its command."""
    rows = read_csv("reliability")
    parts = grouped(rows, "part")
    lines = []
    for part, heading in _HEADINGS.items():
        if (part,) in parts:
            lines.append(f"**{heading}**: `python -m benchmarks.reliability.{part}` | | |")
            lines += map(_reliability_line, parts[part,])
    text = table("what was done, and what must hold | tries | held | figures", lines)
    return f"{text}\n\nWith {versions(rows, 'TensorFlow', 'JAX', 'Keras')}."


def _reliability_line(row: Row) -> str:
    all_held = row["held"] == row["tries"]
    held = row["held"] if all_held else f"**{row['held']}**"
    return f"{row['case']} | {row['tries']} | {held} | {row['figures'] or '–'}"
