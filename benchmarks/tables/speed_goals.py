"""Each goal of speed: what was measured, and whether it is met."""

import itertools
from collections.abc import Iterator

from benchmarks.tables.rows import grouped
from benchmarks.tables.rows import table
from benchmarks.tables.speed import DIRECTIONS
from benchmarks.tables.speed import OURS_ON_JAX
from benchmarks.tables.speed import best
from benchmarks.tables.speed import layer_cases
from benchmarks.tables.speed import seconds
from benchmarks.tables.speed import video_triples
from benchmarks.timing import Row
from benchmarks.timing import read_csv

_TOKENLEARNERS = ("ours half", "ours three quarters")
#: What the names of candidates begin with, and how they are called together.
_WAYS = {"": "the best backend and mode of each", ", jax": "JAX", ", tensorflow": "TensorFlow"}
#: What the names of families of models begin with, and how they are called.
_BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
_OF_THE_MACS = "speed-up over the plain ViT, of what the MACs promise"
_PEERS = ("keras-hub", "vit-pytorch", "timm")


def speed_goals() -> str:
    lines = [*_keras_example(), *_layers(), *_memory(), *_models(), *_video()]
    return table("what | goal | measured | met", [line for line in lines if line])


def _keras_example() -> Iterator[str]:
    for direction, goal in (("forward", 6.0), ("both", 4.0)):
        what = f"v1.0 {DIRECTIONS[direction]}: time of the Keras example's"
        for way, name in _WAYS.items():
            found = _ratios("v1.0", direction, f"keras.io{way}", f"ours{way}")
            yield _at_least(f"{what} formulation over ours, {name}", goal, found)
        bound = _figures(_ratios("v1.0", direction, "keras.io", "floor"))
        yield f"{what} over the floor's, the most there can be | – | {bound} | –"


def _layers() -> Iterator[str]:
    for (layer, direction), rows in grouped(read_csv("layers"), "layer", "direction").items():
        mine, again = (
            [float(row["wall_ratio"]) for row in rows if row["arm"] == arm]
            for arm in (OURS_ON_JAX, "again by hand")
        )
        title = f"{layer} {DIRECTIONS[direction]}, on JAX: our time over that of JAX by hand"
        yield _at_most(f"{title}, the worst of {len(mine)} cases", 1.05, [max(mine)])
        if again:
            title = f"{layer} {DIRECTIONS[direction]}, JAX by hand, measured twice: the worst ratio"
            yield f"{title} of {len(again)} cases | – | {max(again):.3f} | –"
    for layer in dict.fromkeys(layer for layer, *_ in layer_cases()):
        for direction, words in DIRECTIONS.items():
            title = f"{layer} {words}: our time over the floor's"
            yield _at_most(title, 1.5, _ratios(layer, direction, "ours", "floor"))
            if layer == "v1.0":
                bare = _ratios(layer, direction, "ours", "floor, convolution")
                yield _at_most(f"{title}, whose convolution is one", 1.5, bare)


def _memory() -> Iterator[str]:
    for direction, words in DIRECTIONS.items():
        found = _ratios("v1.0", direction, "keras.io, jax", "ours, jax", "peak_bytes")
        title = f"v1.0 {words}, on JAX: peak memory of the Keras example's over ours"
        yield _line(title, "about the number of tokens", found, min(found) >= 8)


def _ratios(
    layer: str, direction: str, above: str, below: str, figure: str = "wall_seconds"
) -> list[float]:
    """Returns the ratio of the fastest candidates of two kinds in every case."""
    found = []
    for case, rows in layer_cases().items():
        if (case[0], case[3]) == (layer, direction):
            top = best(rows, above)
            bottom = best(rows, below)
            assert top is not None and bottom is not None
            found.append(float(top[figure]) / float(bottom[figure]))
    return found


def _models() -> Iterator[str]:
    for (size, direction), rows in grouped(read_csv("models"), "size", "direction").items():
        model = f"ViT-{size.upper()}/16, {direction}"
        for backend, name in _BACKENDS.items():
            found = [
                float(row["macs_ratio"]) / float(row["wall_ratio"])
                for row in rows
                if row["arm"] in _TOKENLEARNERS and row["family"].startswith(backend)
            ]
            title = f"{model}, {name}, TokenLearner at half and three quarters: {_OF_THE_MACS}"
            yield _at_least(title, 0.95, found)
        for peer in _PEERS:
            found = list(_plain_over(peer, rows))
            yield _at_most(f"plain {model}: our time over {peer}'s, by backend", 1, found)


def _plain_over(peer: str, rows: list[Row]) -> Iterator[float]:
    """Yields our time over a peer's on every backend they share, each in its best mode."""
    for backend in _BACKENDS:
        shared = [row for row in rows if row["family"].startswith(backend)]
        mine, other = best(shared, "ours plain"), best(shared, f"{peer} plain")
        if mine and other:
            yield seconds(mine) / seconds(other)


def _video() -> Iterator[str]:
    cases = itertools.product(("inference", "training"), _BACKENDS.items())
    for direction, (backend, name) in cases:
        found = [
            int(mine["macs"]) / int(plain["macs"]) / float(mine["wall_ratio"])
            for plain, mine, _ in video_triples()
            if mine["direction"] == direction and mine["backend"] == backend
        ]
        title = (
            f"video ViT, {direction}, {name}, TokenLearner at half, 8 to 32 frames, "
            f"112 to 224 pixels: {_OF_THE_MACS}"
        )
        yield _at_least(title, 0.95, found)


def _at_least(title: str, goal: float, found: list[float]) -> str:
    return _line(title, f"at least {goal:g}", found, min(found, default=0) >= goal)


def _at_most(title: str, goal: float, found: list[float]) -> str:
    return _line(title, f"at most {goal:g}", found, max(found, default=0) <= goal)


def _line(title: str, goal: str, found: list[float], met: bool) -> str:
    """Returns a line; none about a backend that was not measured."""
    if not found:
        return ""
    return f"{title} | {goal} | {_figures(found)} | {'yes' if met else 'no'}"


def _figures(found: list[float]) -> str:
    return ", ".join(f"{each:.3f}" for each in found)
