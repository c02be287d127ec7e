"""The table of what the trainer costs and survives, from the committed results."""

from pathlib import Path

from benchmarks.timing import read_csv

Row = dict[str, str]


def trainer_table() -> str:
    """Returns one line a measurement: what, result, goal, command."""
    lines = ["| measured | result | goal | command |", "|---|---|---|---|"]
    lines += [*_loop(), *_pipeline(), _checkpoint(), _kills()]
    return "\n".join(lines)


def _loop() -> list[str]:
    lines = []
    rows = read_csv("training")
    for config in dict.fromkeys(row["config"] for row in rows):
        arms = {row["arm"]: row for row in rows if row["config"] == config}
        trainer, fit = arms["trainer"], arms["fit"]
        step = 1000 * float(arms["bare"]["wall_seconds"]) / int(trainer["steps"])
        lines.append(
            f"| time of a step in the trainer's loop, with data and metrics, over that of a bare "
            f"compiled step of {step:.0f} ms (`{Path(config).stem}`) | {_ratio(trainer)}; "
            f"`model.fit`: {_ratio(fit)} | 1.03 | `python -m benchmarks.training` |"
        )
    return lines


def _pipeline() -> list[str]:
    lines = []
    rows = read_csv("pipeline")
    for interpolation in dict.fromkeys(row["interpolation"] for row in rows):
        arms = {row["arm"]: row for row in rows if row["interpolation"] == interpolation}
        decode, pipeline = (float(arms[arm]["images_per_second"]) for arm in ("decode", "pipeline"))
        resized = float(arms["resize"]["images_per_second"])
        lines.append(
            f"| images/s of the input pipeline ({interpolation}) over bare JPEG decoding of the "
            f"same windows | {pipeline:.0f} / {decode:.0f} = {pipeline / decode:.2f}; decoding "
            f"with nothing but TensorFlow's resizing: {resized / decode:.2f}, of which the "
            f"pipeline reaches {pipeline / resized:.2f} | 0.9 | `python -m benchmarks.pipeline` |"
        )
    return lines


def _checkpoint() -> str:
    arms = {row["arm"]: row for row in read_csv("checkpoints")}
    mine, waiting = arms["asynchronous"], arms["waiting"]
    return (
        f"| time the loop stands still for a checkpoint of {float(mine['megabytes']):,.0f} MB "
        f"(`{mine['model']}` with AdamW) | {float(mine['stall_seconds']):.2f} s; written before "
        f"going on: {float(waiting['stall_seconds']):.2f} s | – | "
        "`python -m benchmarks.checkpoints` |"
    )


def _kills() -> str:
    rows = [row for row in read_csv("kills") if row["engine"] != "BackupAndRestore"]
    kills = sum(int(row["kills"]) for row in rows)
    same = [row["same"] == "True" for row in rows]
    return (
        f"| runs on images and videos, on both engines, killed by SIGKILL {kills} times in all at "
        f"random moments that end with the checksums and rows of one never killed | {sum(same)} of "
        f"{len(rows)} | all | `python -m benchmarks.reliability.random_kills` |"
    )


def _ratio(row: Row) -> str:
    return f"{float(row['wall_ratio']):.2f} ({row['wall_ratio_quarters']})"
