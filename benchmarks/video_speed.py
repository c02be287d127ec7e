"""Clips a second of a video ViT with and without TokenLearner, over frames and resolution.

    python -m benchmarks.video_speed [--backends=...] [--turns=5]

In an environment with requirements/benchmarks.txt: inference and a training step in float32,
compiled. `wall_ratio` is the time over the plain model's on the same clips. Writes
`results/video_speed.csv`, and keeps the rows of other backends.
"""

import itertools
from typing import Any

from absl import app
from absl import flags

import tokenlearner_keras as tk
from benchmarks.comparison import Candidate
from benchmarks.comparison import Comparison
from benchmarks.tables.rows import grouped
from benchmarks.timing import read_csv
from benchmarks.timing import write_csv
from tokenlearner_keras.graph import without_weights

FLAGS = flags.FLAGS
flags.DEFINE_list("backends", ["jax", "tensorflow", "torch"], "Backends to measure on.")
flags.DEFINE_integer("turns", 5, "Turns that count.", lower_bound=1)
flags.DEFINE_integer("threads", 2, "Cores of each process.", lower_bound=1)

#: Both of the others begin with the last one: nothing before the TokenLearner gets faster by it.
MODELS = {
    "plain": "vivit_ti16x2",
    "TokenLearner": "vivit_ti16x2_tl8at6",
    "first half": "vivit_ti16x2_d6",
}
#: Frames at a size, and sizes at a number of frames.
CLIPS = ((8, 112), (16, 112), (32, 112), (16, 160), (16, 224))
BATCH_SIZE = 2
#: The compiled mode of each backend.
MODES = {"jax": "jit", "tensorflow": "xla", "torch": "compile"}
_FUNCTION = "benchmarks.implementations.keras_models:ours"


def main(_: list[str]) -> None:
    groups: dict[tuple[str, ...], list[Any]]
    groups = {**grouped(read_csv("video_speed"), "backend", "direction", "frames", "size")}
    for backend, direction in itertools.product(FLAGS.backends, ("inference", "training")):
        for frames, size in CLIPS:
            shape = (BATCH_SIZE, frames, size, size, 3)
            arguments = {"input_shape": shape, "direction": direction, "mode": MODES[backend]}
            candidates = [
                Candidate(arm, _FUNCTION, {**arguments, "name": name}, backend)
                for arm, name in MODELS.items()
            ]
            case = {"backend": backend, "direction": direction, "frames": frames, "size": size}
            with Comparison(FLAGS.turns, FLAGS.threads) as comparison:
                rows = comparison.compare(candidates, "plain")
            groups[tuple(map(str, case.values()))] = [
                {**case, "model": MODELS[row["arm"]], **row, **_figures(row, frames, size)}
                for row in rows
            ]
            write_csv("video_speed", list(itertools.chain.from_iterable(groups.values())))


def _figures(row: dict[str, Any], frames: int, size: int) -> dict[str, Any]:
    with without_weights():
        model = tk.create_model(MODELS[row["arm"]], image_size=size, num_frames=frames)
        macs = tk.count_macs(model)
    return {"clips_per_second": round(BATCH_SIZE / row["wall_seconds"], 2), "macs": macs}


if __name__ == "__main__":
    app.run(main)
