"""Each goal of speed: what was measured, and whether it is met. From the committed results."""

from collections.abc import Iterable

from benchmarks.tables.layer import Row
from benchmarks.tables.layer import best
from benchmarks.tables.layer import cases
from benchmarks.tables.layer import seconds
from benchmarks.tables.video_speed import triples
from benchmarks.timing import kept_rows

_TOKENLEARNERS = ("half", "three quarters")


def speed_goals() -> str:
    """Returns one line a goal: what, the goal, what was measured, met or not."""
    lines = ["| what | goal | measured | met |", "|---|---|---|---|"]
    return "\n".join([*lines, *_layers(), *_models(), *_video()])


def _measured() -> list[str]:
    """Returns the layers that the CSV has."""
    return list(dict.fromkeys(case[0] for case, _ in cases()))


def _layers() -> list[str]:
    lines = []
    for direction, goal in (("forward", 6.0), ("both", 4.0)):
        what = "forward" if direction == "forward" else "with gradients"
        for ways, name in (("", "the best backend and mode of each"), *_BACKENDS):
            found = _ratios("v1.0", direction, f"keras.io{ways}", f"ours{ways}")
            title = f"v1.0 {what}: time of the Keras example's formulation over ours, {name}"
            lines.append(_line(title, f"at least {goal:.0f}", found, min(found) >= goal))
        bound = _ratios("v1.0", direction, "keras.io", "floor")
        title = f"v1.0 {what}: time of the Keras example's over the floor's, the most there can be"
        lines.append(f"| {title} | – | {_figures(bound)} | – |")
    for layer in _measured():
        for direction in ("forward", "both"):
            what = f"{layer} {'forward' if direction == 'forward' else 'with gradients'}"
            by_hand = _ratios(layer, direction, "ours, jax", "handwritten")
            title = f"{what}, on JAX: our time over that of JAX by hand"
            lines.append(_line(title, "at most 1", by_hand, max(by_hand) <= 1))
            floor = _ratios(layer, direction, "ours", "floor")
            title = f"{what}: our time over the floor's"
            lines.append(_line(title, "at most 1.5", floor, max(floor) <= 1.5))
            if layer == "v1.0":
                bare = _ratios(layer, direction, "ours", "floor, convolution")
                title += ", whose convolution is one"
                lines.append(_line(title, "at most 1.5", bare, max(bare) <= 1.5))
    for direction in ("forward", "both"):
        what = "forward" if direction == "forward" else "with gradients"
        memory = _ratios("v1.0", direction, "keras.io, jax", "ours, jax", "peak_bytes")
        title = f"v1.0 {what}, on JAX: peak memory of the Keras example's over ours"
        lines.append(_line(title, "about the number of tokens", memory, min(memory) >= 8))
    return lines


_BACKENDS = ((", jax", "JAX"), (", tensorflow", "TensorFlow"))


def _ratios(
    layer: str, direction: str, above: str, below: str, figure: str = "wall_seconds"
) -> list[float]:
    """Returns the ratio of the fastest arms of two kinds in every case."""
    found = []
    for case, rows in cases():
        if (case[0], case[3]) == (layer, direction):
            top = best(rows, lambda arm: arm.startswith(above))
            bottom = best(rows, lambda arm: arm.startswith(below))
            assert top is not None and bottom is not None
            found.append(float(top[figure]) / float(bottom[figure]))
    return found


def _models() -> list[str]:
    lines = []
    rows = kept_rows("models")
    for size in dict.fromkeys(row["size"] for row in rows):
        for direction in ("inference", "training"):
            mine = [r for r in rows if (r["size"], r["direction"]) == (size, direction)]
            names = [f"ours {variant}" for variant in _TOKENLEARNERS]
            found = [
                float(row["macs_ratio"]) / float(row["wall_ratio"])
                for row in mine
                if row["arm"] in names
            ]
            title = (
                f"ViT-{size.upper()}/16, {direction}, TokenLearner at half and three quarters, "
                "JAX and TensorFlow: speed-up over the plain ViT, of what the MACs promise"
            )
            lines.append(_line(title, "at least 0.95", found, min(found) >= 0.95))
            plain = list(_plain_over_hub(mine))
            title = f"plain ViT-{size.upper()}/16, {direction}: our time over keras-hub's"
            lines.append(_line(title, "at most 1", plain, max(plain) <= 1))
    return lines


def _video() -> list[str]:
    lines = []
    for direction in ("inference", "training"):
        found = [
            int(mine["macs"]) / int(plain["macs"]) / float(mine["wall_ratio"])
            for plain, mine, _ in triples()
            if mine["direction"] == direction
        ]
        title = (
            f"video ViT, {direction}, TokenLearner at half, JAX, 8 to 32 frames, "
            "112 to 224 pixels: speed-up over the plain ViT, of what the MACs promise"
        )
        lines.append(_line(title, "at least 0.95", found, min(found) >= 0.95))
    return lines


def _plain_over_hub(rows: list[Row]) -> Iterable[float]:
    for hub in (row for row in rows if row["arm"] == "keras-hub plain"):
        (mine,) = (
            row for row in rows if (row["arm"], row["family"]) == ("ours plain", hub["family"])
        )
        yield seconds(mine) / seconds(hub)


def _line(title: str, goal: str, found: list[float], met: bool) -> str:
    return f"| {title} | {goal} | {_figures(found)} | {'yes' if met else 'no'} |"


def _figures(found: list[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in found)
