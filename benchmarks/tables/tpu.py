"""What the compiled train steps of the recipes need on a TPU slice, and what bounds them."""

import importlib

from benchmarks.tables.rows import grouped
from benchmarks.tables.rows import table
from benchmarks.tables.rows import versions
from benchmarks.timing import Row
from benchmarks.timing import read_csv

_L10, _FUSER = "kinetics400_tl16at18_l10", "kinetics600_tl16at18_fuser_l10"
#: Recipe, slice and the most GiB that a chip may need: those of a prototype of the kernel with the
#: first recipe's model, or None for all that the chip has.
_GOALS = (
    (_L10, "v5e:2x4", 10.71),
    (_FUSER, "v5e:2x4", 10.71),
    (_L10, "v6e:2x2", 15.72),
    (_FUSER, "v6e:2x2", 15.72),
    (_L10, "v5e:2x2", None),
    (_FUSER, "v5e:2x2", None),
    ("kinetics400_tl16at12_l16", "v5e:2x2", None),
    ("imagenet_finetune_512", "v5e:2x2", None),
)


def slice_goals() -> str:
    """Returns a line a goal for the memory of a recipe's step on a slice."""
    header = (
        "recipe | slice | goal, GiB a chip | least measured | ratio | met | as the recipe runs "
        "| plain attention"
    )
    return table(header, [_goal_line(*goal) for goal in _GOALS])


def _goal_line(recipe: str, topology: str, goal: float | None) -> str:
    rows = [
        row
        for row in read_csv("tpu_fits")
        if (row["engine"], row["recipe"], row["topology"]) == ("jax", recipe, topology)
    ]
    plain = [_memory(row) for row in rows if row["attention"] == "plain"]
    fused = [row for row in rows if row["attention"] == "auto"]
    least = min(fused, key=lambda row: float(row["memory_gib"]))
    config = importlib.import_module(f"trainers.configs.{recipe}").get_config()
    remat = str(config.model.get("remat", False))
    own = [_memory(row) for row in fused if (row["remat"], row["accumulation"]) == (remat, "1")]
    most = goal or float(least["available_gib"])
    ratio = float(least["memory_gib"]) / most
    return (
        f"`{recipe}` | {topology} | {most:.2f}{'' if goal else ', all'} "
        f"| {_memory(least)} | {ratio:.2f} | {'yes' if ratio <= 1 else 'no'} "
        f"| {', '.join(own) or '–'} | {', '.join(plain) or '–'}"
    )


def _memory(row: Row) -> str:
    return f"{row['memory_gib']} ({_form(row, attention=False)})"


def tpu_fits() -> str:
    """Returns a line a train step that was compiled for a slice, recipes together."""
    rows = read_csv("tpu_fits")
    lines = [_slice_line(row) for mine in grouped(rows, "recipe").values() for row in mine]
    header = (
        "recipe | slice | examples a chip | chips a copy | GiB a chip | of | fits | GFLOP a chip "
        "| between the chips (results on a chip)"
    )
    made_with = f"Compiled with {versions(rows, 'jax', 'libtpu')}"
    return f"{table(header, lines)}\n\n{made_with} by `python -m benchmarks.tpu_fits`."


def _slice_line(row: Row) -> str:
    return (
        f"`{row['recipe']}`: {row['model']}, {row['dtype_policy']}, {_form(row)}, batch "
        f"{row['batch_size']} | {row['topology']}, {row['chips']} chips | {row['examples_a_chip']} "
        f"| {row['model_axis']} | {row['memory_gib']} | {row['available_gib']} "
        f"| {'yes' if row['fits'] == 'True' else '**no**'} | {row['gflop_a_chip'] or '–'} "
        f"| {row['collectives'] or '–'}"
    )


def bound() -> str:
    """Returns a line a train step whose time the peak rates of the chip bound, recipes together."""
    rows = [row for row in read_csv("tpu_fits") if row["bound_by"]]
    lines = [_bound_line(row) for mine in grouped(rows, "recipe").values() for row in mine]
    header = (
        "recipe | slice | GFLOP a chip | GB through HBM | seconds by compute | by memory | binds "
        "| bound of examples/s a chip | bound of utilisation"
    )
    return table(header, lines)


def _bound_line(row: Row) -> str:
    return (
        f"`{row['recipe']}`: {_form(row)} | {row['topology']} "
        f"| {row['gflop_a_chip']} | {row['hbm_gb']} | {row['compute_seconds']} "
        f"| {row['memory_seconds']} | {row['bound_by']} | {row['bound_examples_per_second']} "
        f"| {row['bound_utilization']}"
    )


def _form(row: Row, attention: bool = True) -> str:
    parts = [] if row["engine"] == "jax" else ["TensorFlow"]
    parts += {"False": ["no remat"], "True": ["remat"]}.get(row["remat"], [f"remat {row['remat']}"])
    if row["accumulation"] != "1":
        parts.append(f"{row['accumulation']} micro-batches")
    # The convolutional models have no such option.
    if attention and not row["model"].startswith("x2plus1d"):
        parts.append(f"{row['attention']} attention")
    return ", ".join(parts)
