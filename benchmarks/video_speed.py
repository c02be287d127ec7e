"""Clips a second of a video ViT with and without TokenLearner, over frames and resolution.

    python -m benchmarks.video_speed [--turns=5]

In an environment with JAX: inference and a training step in float32, compiled. Writes
`results/video_speed.csv`; `wall_ratio` is the time over the plain model's on the same clips.
"""

from absl import app
from absl import flags

import tokenlearner_keras as tk
from benchmarks.comparison import Candidate
from benchmarks.comparison import Comparison
from benchmarks.timing import write_csv

FLAGS = flags.FLAGS
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
_FUNCTION = "benchmarks.implementations.keras_models:ours"


def main(_: list[str]) -> None:
    rows = []
    for direction in ("inference", "training"):
        for frames, size in CLIPS:
            shape = (BATCH_SIZE, frames, size, size, 3)
            arguments = {"input_shape": shape, "direction": direction, "mode": "jit"}
            candidates = [
                Candidate(arm, _FUNCTION, {**arguments, "name": name}, "jax")
                for arm, name in MODELS.items()
            ]
            with Comparison(FLAGS.turns, FLAGS.threads) as comparison:
                for row in comparison.compare(candidates, "plain"):
                    name = MODELS[row["arm"]]
                    model = tk.create_model(name, image_size=size, num_frames=frames)
                    case = {"direction": direction, "frames": frames, "size": size}
                    clips = round(BATCH_SIZE / row["wall_seconds"], 2)
                    figures = {"clips_per_second": clips, "macs": tk.count_macs(model)}
                    rows.append({**case, "model": name, **row, **figures})
            write_csv("video_speed", rows)


if __name__ == "__main__":
    app.run(main)
