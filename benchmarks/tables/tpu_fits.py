"""The table of docs/tpu.md: which slice fits which batch, from the committed results."""

from benchmarks.timing import read_csv

HEADER = (
    "| recipe | slice | examples a chip | chips a copy | GiB a chip | of | fits | GFLOP a chip "
    "| between the chips (results on a chip) |\n|---|---|---|---|---|---|---|---|---|"
)


def tpu_fits() -> str:
    """Returns a line a train step that was compiled for a slice, recipes together."""
    rows = read_csv("tpu_fits")
    recipes = dict.fromkeys(row["recipe"] for row in rows)
    lines = [_line(row) for recipe in recipes for row in rows if row["recipe"] == recipe]
    return "\n".join([HEADER, *lines, "", _made_with(rows)])


def _line(row: dict[str, str]) -> str:
    remat = ", remat" if row["remat"] == "True" else ""
    return (
        f"| `{row['recipe']}`: {row['model']}, {row['dtype_policy']}{remat}, batch "
        f"{row['batch_size']} | {row['topology']}, {row['chips']} chips | {row['examples_a_chip']} "
        f"| {row['model_axis']} | {row['memory_gib']} | {row['available_gib']} "
        f"| {'yes' if row['fits'] == 'True' else '**no**'} | {row['gflop_a_chip'] or '–'} "
        f"| {row['collectives'] or '–'} |"
    )


def _made_with(rows: list[dict[str, str]]) -> str:
    versions = {f"jax {row['jax']}, libtpu {row['libtpu']}" for row in rows}
    return f"Compiled with {' and '.join(sorted(versions))} by `python -m benchmarks.tpu_fits`."
