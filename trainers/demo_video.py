"""Shows what the video demo has learned: `python -m trainers.demo_video --workdir=DIR`.

Prints the result on the test clips, and that of the same model on clips that do not move
(their middle frame in all places) and on clips whose frames are in another order: a model
that is as good there does not look at motion. Draws the attention maps over a clip.
"""

import dataclasses

import numpy as np
import tensorflow as tf
from absl import flags

from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.preprocessing.videos import evaluation_clip
from trainers.data.sources import Source
from trainers.data.sources import make_source
from trainers.demo import FinishedRun
from trainers.demo import finished_run
from trainers.demo import headline
from trainers.engines.flags import make_local_engine
from trainers.experiment import make_evaluator
from trainers.utils import cli

FLAGS = flags.FLAGS
SOURCES = ("freedoom_motion", "freedoom_multilabel")
_CONTROLS = {
    "repeated": "on one frame of each clip, repeated",
    "shuffled": "on the frames of each clip in another order",
}
#: A clip of each of these classes is drawn, where an example has one label.
_SHOWN_CLASSES = ("forward", "strafe_left", "turn_right", "look_up")


def main() -> None:
    """Prints the result and the controls; writes the picture."""
    run = finished_run(FLAGS.workdir, SOURCES)
    test = make_source(run.config.data.source, "test", None)
    run.print_result()
    if not run.config.data.multi_label:
        print(f"  beside it: chance {1 / test.num_classes:.3f}", flush=True)
    for order, description in _CONTROLS.items():
        name, value = headline(evaluate_order(run, test, order))
        print(f"  the same model {description}: {name} {value:.3f}", flush=True)
    if run.has_tokens():
        chosen = _examples(test)
        clips = [evaluation_clip(test.load(index), _preprocessing(run)) for index in chosen]
        pixels = np.stack(clips)
        titles = [_title(test, index) for index in chosen]
        run.draw(pixels, run.attention_maps(pixels), titles)


def evaluate_order(run: FinishedRun, source: Source, frame_order: str) -> dict[str, float]:
    """Returns the metrics of a trained model on clips whose frames are in another order.

    For `frame_order` see `VideoPreprocessingConfig`.
    """
    preprocessing = dataclasses.replace(_preprocessing(run), frame_order=frame_order)
    evaluator = make_evaluator(run.config, run.model, None, make_local_engine(), preprocessing)
    return evaluator.evaluate(source)


def _preprocessing(run: FinishedRun) -> VideoPreprocessingConfig:
    assert isinstance(run.preprocessing, VideoPreprocessingConfig)  # the sources hold videos
    return run.preprocessing


def _examples(test: Source) -> list[tf.Tensor]:
    """Returns the first clip of each class to show; with several labels, the first clips."""
    labels = [test.load(tf.constant(i, tf.int64))["label"] for i in range(test.num_examples)]
    if labels[0].shape.rank:
        return [tf.constant(i, tf.int64) for i in range(len(_SHOWN_CLASSES))]
    wanted = [test.class_names.index(name) for name in _SHOWN_CLASSES]
    numbers = [int(label) for label in labels]
    return [tf.constant(numbers.index(each), tf.int64) for each in wanted]


def _title(test: Source, index: tf.Tensor) -> str:
    label = np.asarray(test.load(index)["label"])
    numbers = [int(label)] if label.ndim == 0 else np.flatnonzero(label)
    return ", ".join(test.class_names[number].replace("_", " ") for number in numbers) or "still"


if __name__ == "__main__":
    cli.define_path("workdir", "The work directory of a finished video demo.")
    cli.run(main, cli.parse_known_flags)
