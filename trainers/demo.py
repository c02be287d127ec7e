"""Shows what the image demo has learned: `python -m trainers.demo --workdir=DIR`.

Prints the test accuracy of a finished run beside the range that its configuration
expects and beside simple baselines, says how much of the tokens' attention lies on
the object, and draws the attention maps over test images.
"""

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from numpy.typing import NDArray

import tokenlearner_keras as tk
from tokenlearner_keras.introspection import token_learners
from trainers.checkpointing.workdir import read_configuration
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.freedoom.dataset import RenderedImages
from trainers.data.freedoom.dataset import load_freedoom_objects
from trainers.data.freedoom.options import CLASS_NAMES
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.preprocessing.normalization import normalize
from trainers.experiment import make_preprocessing
from trainers.utils import cli
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.reporting import read_metrics

FLAGS = flags.FLAGS
_IMAGE_SIDE = 64
# Classes of items, whose pictures suit everybody; the others are monsters.
_ITEM_CLASSES = range(9, 20)
_SEED = 3


def main() -> None:
    """Prints accuracy, baselines and attention; writes the picture."""
    run = finished_run(FLAGS.workdir, ("freedoom_objects",))
    if run.preprocessing.image_size != (_IMAGE_SIDE, _IMAGE_SIDE):
        raise ConfigurationError(
            f"The report shows images of {_IMAGE_SIDE}x{_IMAGE_SIDE} pixels. Received a run "
            f"with model.image_size={run.preprocessing.image_size}."
        )
    test = load_freedoom_objects("test")
    run.print_result()
    _print_baselines(test)
    if run.has_tokens():
        maps = run.attention_maps(test.images)
        _print_attention(maps, test)
        chosen = _example_images(test.labels)
        run.draw(test.images[chosen], maps[chosen], _titles(run, test, chosen))


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished training of a demo."""

    workdir: str
    config: ConfigDict
    preprocessing: Preprocessing
    model: keras.Model
    test_row: dict[str, Any]  # of metrics.jsonl

    def print_result(self) -> None:
        """Prints the result that the training wrote at its end, and the cost of the model."""
        name, value = headline(self.test_row)
        expected = self.config.demo.expected_accuracy
        promise = f" (the whole training is expected to reach {expected})" if expected else ""
        is_video = isinstance(self.preprocessing, VideoPreprocessingConfig)
        examples, unit = ("clips", "a clip") if is_video else ("images", "an image")
        print(
            f"\ntest {name} {value:.3f} on {self.test_row['num_examples']} rendered {examples} of "
            f"unseen maps, after {self.test_row['step']} steps{promise}\n"
            f"model {self.model.name}: {tk.count_macs(self.model) / 1e6:.1f} million MACs {unit}",
            flush=True,
        )

    def has_tokens(self) -> bool:
        """Returns whether the model has a TokenLearner; if not, prints that."""
        if token_learners(self.model):
            return True
        print("\nno TokenLearner in this model, so there are no tokens to show", flush=True)
        return False

    def normalized(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the model's inputs."""
        return np.asarray(normalize(pixels, self.config.data.normalization))

    def attention_maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the maps of the first TokenLearner."""
        return next(iter(tk.attention_maps(self.model, self.normalized(pixels)).values()))

    def draw(self, pixels: NDArray[np.uint8], maps: NDArray[np.float32], titles: list[str]) -> None:
        """Draws maps over images or clips into a picture of the work directory."""
        path = Path(self.workdir) / "attention_maps.png"
        learner = next(iter(token_learners(self.model).values()))
        tk.plot_attention_maps(pixels, maps, path, titles, learner.per_frame)
        print(f"\nwhat the tokens look at: {path}", flush=True)


def finished_run(workdir: str | None, sources: tuple[str, ...]) -> FinishedRun:
    """Returns the run of a work directory.

    Raises:
        ConfigurationError: If it is not a finished one on one of the sources.
    """
    config, model_config = read_configuration(workdir)
    assert workdir is not None  # read_configuration has refused None
    if config.data.source not in sources:
        raise ConfigurationError(
            f"The report is about the data source {' or '.join(sources)}. Received a run on "
            f"{config.data.source!r}; for your own data: python -m trainers.evaluate "
            f"--workdir={workdir}."
        )
    path = files.join(workdir, "model.keras")
    rows = read_metrics(files.join(workdir, "metrics.jsonl"))
    test_rows = [row for row in rows if row["split"] == "test"]
    if not files.exists(path) or not test_rows:
        raise ConfigurationError(
            f"{workdir} holds no finished training: run the training command again to finish it."
        )
    model = keras.saving.load_model(path, compile=False)
    preprocessing = make_preprocessing(config, model_config)
    return FinishedRun(workdir, config, preprocessing, model, test_rows[-1])


def headline(metrics: dict[str, float]) -> tuple[str, float]:
    """Returns the metric of an evaluation to report: its name in words and its value."""
    name = "mean_average_precision" if "mean_average_precision" in metrics else "accuracy"
    return name.replace("_", " "), metrics[name]


def _print_baselines(test: RenderedImages) -> None:
    """Prints the test accuracies of two simple classifiers on 8x8 thumbnails."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
    except ImportError as error:
        raise ConfigurationError(
            "The demo needs scikit-learn: pip install '.[demo]' in a clone"
        ) from error
    classifiers = {
        "logistic regression on 8x8 thumbnails": LogisticRegression(max_iter=300),
        "nearest neighbour on 8x8 thumbnails": KNeighborsClassifier(1),
    }
    train = load_freedoom_objects("train")
    inputs, test_inputs = _thumbnails(train.images), _thumbnails(test.images)
    for name, classifier in classifiers.items():
        with warnings.catch_warnings():
            # 300 iterations give three correct digits.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(inputs, train.labels)
        print(f"  beside it: {name} {classifier.score(test_inputs, test.labels):.3f}")


def _thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns images averaged to 8x8 and flattened, floats in [0, 1], (N, 192)."""
    return _average_blocks(images.astype("float32") / 255, (8, 8)).reshape(len(images), -1)


def _print_attention(maps: NDArray[np.float32], test: RenderedImages) -> None:
    """Prints the share of the maps' mass on the object, against a uniform map."""
    shares = mass_inside(maps, test.masks).mean(axis=0)
    uniform = object_coverage(test.masks, maps.shape[2:]).mean()
    print(
        f"share of a map's mass inside the object: {shares.mean():.2f} on average over the "
        f"tokens, {shares.max():.2f} for the best one; a uniform map has {uniform:.2f}"
    )
    print("  by token: " + " ".join(f"{share:.2f}" for share in shares))


def _titles(run: FinishedRun, test: RenderedImages, chosen: list[int]) -> list[str]:
    """Returns what the model takes each image for, and what it is if that is wrong."""
    inputs = run.normalized(test.images[chosen])
    logits = keras.ops.convert_to_numpy(run.model(inputs, training=False))
    titles = []
    for index, guess in zip(chosen, logits.argmax(axis=-1), strict=True):
        right = guess == test.labels[index]
        truth = "" if right else f"\n(it is: {_words(CLASS_NAMES[test.labels[index]])})"
        titles.append(f"{_words(CLASS_NAMES[guess])}{truth}")
    return titles


def _words(name: str) -> str:
    """Returns the engine's name in words: `HealthBonus` is `health bonus`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _average_blocks(values: NDArray[Any], grid: tuple[int, ...]) -> NDArray[Any]:
    """Averages (N, H, W, ...) over equal blocks to (N, *grid, ...)."""
    count, height, width = values.shape[:3]
    rows, columns = grid
    if height % rows or width % columns:
        raise ValueError(f"{height}x{width} does not divide into {rows}x{columns} blocks")
    cells = (rows, height // rows, columns, width // columns)
    return values.reshape(count, *cells, *values.shape[3:]).mean(axis=(2, 4))


def mass_inside(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns the share of each map's mass that lies on the object, (N, S).

    Args:
        maps: `(N, S, rows, columns)`, not negative; each is scaled to a sum of 1.
        masks: `(N, H, W)`, True on the object; H is a multiple of the rows, W of the columns.
    """
    coverage = object_coverage(masks, maps.shape[2:])
    shares = maps / np.maximum(maps.sum(axis=(2, 3), keepdims=True), 1e-12)
    return np.einsum("nshw,nhw->ns", shares, coverage)


def object_coverage(masks: NDArray[np.bool_], grid: tuple[int, ...]) -> NDArray[np.float64]:
    """Returns the share of each patch that the object covers, (N, *grid)."""
    return _average_blocks(masks.astype("float64"), grid)


def _example_images(labels: NDArray[np.int64]) -> list[int]:
    """Returns one test image of each item class, drawn at random."""
    generator = np.random.default_rng(_SEED)
    chosen = []
    for label in _ITEM_CLASSES:
        candidates = np.flatnonzero(labels == label)
        if len(candidates):
            chosen.append(int(generator.choice(candidates)))
    return chosen


if __name__ == "__main__":
    cli.define_path("workdir", "The work directory of a finished demo.")
    cli.run(main, cli.parse_known_flags)
