"""Shows what the image demo has learned: `python -m trainers.demo --workdir=DIR`.

Prints the test accuracy of a finished run beside the range that its configuration
expects and beside simple baselines, says how much of the tokens' attention lies on
the object, and draws the attention maps over test images.
"""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import flags
from numpy.typing import NDArray

import tokenlearner_keras as tk
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from trainers.data.freedoom.dataset import load_freedoom_objects
from trainers.data.freedoom.options import CLASS_NAMES
from trainers.data.freedoom.render_images import RenderedImages
from trainers.data.preprocessing.normalization import normalize
from trainers.utils import cli
from trainers.utils.errors import ConfigurationError
from trainers.utils.reporting import read_metrics

FLAGS = flags.FLAGS
PICTURE = "attention_maps.png"
IMAGE_SIDE = 64
_SEED = 3


def main() -> None:
    """Prints accuracy, baselines and attention; writes the picture."""
    workdir = Path(FLAGS.workdir or "")
    config, row = _finished_run(workdir)
    model = keras.saving.load_model(workdir / "model.keras", compile=False)
    test = load_freedoom_objects("test")
    _print_accuracy(config, row, model)
    _print_baselines(test)
    if not any(isinstance(layer, BaseTokenLearner) for layer in model.layers):
        print("\nno TokenLearner in this model, so there are no tokens to show", flush=True)
        return
    images = np.asarray(normalize(test.images, config["data"]["normalization"]))
    maps = next(iter(tk.attention_maps(model, images).values()))
    _print_attention(maps, test)
    path = workdir / PICTURE
    _draw(model, images, maps, test, path)
    print(f"\nwhat the tokens look at: {path}", flush=True)


def _finished_run(workdir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the configuration and the test row of a finished run of the demo."""
    path = workdir / "config.json"
    if not FLAGS.workdir or not path.exists() or not (workdir / "model.keras").exists():
        raise ConfigurationError(
            "Expected --workdir=DIR with a finished run of trainers/configs/demo.py. "
            f"Received {FLAGS.workdir!r}. Train first: python -m trainers.train "
            "--config=trainers/configs/demo.py --workdir=DIR"
        )
    config = json.loads(path.read_text(encoding="utf-8"))
    if config["data"]["source"] != "freedoom_objects":
        raise ConfigurationError(
            "The report is about the data source freedoom_objects. Received a run on "
            f"{config['data']['source']!r}."
        )
    size = tuple(config["resolved_model"]["image_size"])
    if size != (IMAGE_SIDE, IMAGE_SIDE):
        raise ConfigurationError(
            f"The report shows images of {IMAGE_SIDE}x{IMAGE_SIDE} pixels. Received a run "
            f"with model.image_size={size}."
        )
    rows = [r for r in read_metrics(workdir / "metrics.jsonl") if r["split"] == "test"]
    if not rows:
        raise ConfigurationError(
            f"{workdir} holds no test result: run the training command again to finish it."
        )
    return config, rows[-1]


def _print_accuracy(config: dict[str, Any], row: dict[str, Any], model: keras.Model) -> None:
    expected = config["demo"]["expected_accuracy"] or "nothing"
    print(
        f"\ntest accuracy {row['accuracy']:.3f} on {row['num_examples']} rendered images of "
        f"unseen maps, after {row['step']} steps (the whole training is expected to reach "
        f"{expected})\n"
        f"model {model.name}: {tk.count_macs(model) / 1e6:.1f} million MACs an image"
    )


def _print_baselines(test: RenderedImages) -> None:
    train = load_freedoom_objects("train")
    accuracies = baseline_accuracies((train.images, train.labels), (test.images, test.labels))
    for name, accuracy in accuracies.items():
        print(f"  beside it: {name} {accuracy:.3f}")


def _print_attention(maps: np.ndarray[Any, Any], test: RenderedImages) -> None:
    """Prints the share of the maps' mass on the object, against a uniform map."""
    shares = mass_inside(maps, test.masks).mean(axis=0)
    uniform = object_coverage(test.masks, maps.shape[-1]).mean()
    print(
        f"share of a map's mass inside the object: {shares.mean():.2f} on average over the "
        f"tokens, {shares.max():.2f} for the best one; a uniform map has {uniform:.2f}"
    )
    print("  by token: " + " ".join(f"{share:.2f}" for share in shares))


def _draw(
    model: keras.Model,
    images: np.ndarray[Any, Any],
    maps: np.ndarray[Any, Any],
    test: RenderedImages,
    path: Path,
) -> None:
    chosen = example_images(test.labels, _SEED)
    logits = keras.ops.convert_to_numpy(model(images[chosen], training=False))
    titles = []
    for index, guess in zip(chosen, logits.argmax(axis=-1), strict=True):
        right = guess == test.labels[index]
        truth = "" if right else f"\n(it is: {_words(CLASS_NAMES[test.labels[index]])})"
        titles.append(f"{_words(CLASS_NAMES[guess])}{truth}")
    tk.plot_attention_maps(test.images[chosen], maps[chosen], path, titles)


def _words(name: str) -> str:
    """Returns the engine's name in words: `HealthBonus` is `health bonus`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


#: Side of the thumbnails that the simple baselines see.
THUMBNAIL_SIDE = 8
#: Classes of items, whose pictures suit everybody; the others are monsters.
ITEM_CLASSES = range(9, 20)


def baseline_accuracies(
    train: tuple[NDArray[np.uint8], NDArray[np.int64]],
    test: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> dict[str, float]:
    """Returns the test accuracies of two simple classifiers on 8x8 thumbnails, by name.

    `train` and `test` are images `(N, H, W, 3)` and labels `(N,)`.
    """
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
    inputs, targets = thumbnails(train[0]), train[1]
    accuracies = {}
    for name, classifier in classifiers.items():
        with warnings.catch_warnings():
            # 300 iterations give three correct digits.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(inputs, targets)
        accuracies[name] = float(classifier.score(thumbnails(test[0]), test[1]))
    return accuracies


def thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns images averaged to 8x8 and flattened, floats in [0, 1], (N, 192)."""
    averaged = average_blocks(images.astype("float32") / 255, THUMBNAIL_SIDE)
    return averaged.reshape(len(images), -1)


def average_blocks(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Averages (N, H, W, ...) over equal blocks to (N, side, side, ...)."""
    count, height, width = values.shape[:3]
    if height % side or width % side:
        raise ValueError(f"{height}x{width} does not divide into {side}x{side} blocks")
    blocks = values.reshape(count, side, height // side, side, width // side, *values.shape[3:])
    return blocks.mean(axis=(2, 4))


def mass_inside(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns the share of each map's mass that lies on the object, (N, S).

    Args:
        maps: `(N, S, side, side)`, not negative; each is scaled to a sum of 1.
        masks: `(N, H, W)`, True on the object.
    """
    coverage = object_coverage(masks, maps.shape[-1])
    shares = maps / np.maximum(maps.sum(axis=(2, 3), keepdims=True), 1e-12)
    return np.einsum("nshw,nhw->ns", shares, coverage)


def object_coverage(masks: NDArray[np.bool_], side: int) -> NDArray[np.float64]:
    """Returns the share of each patch that the object covers, (N, side, side)."""
    return average_blocks(masks.astype("float64"), side)


def example_images(labels: NDArray[np.int64], seed: int) -> list[int]:
    """Returns one test image of each item class, drawn at random by the seed."""
    generator = np.random.default_rng(seed)
    chosen = []
    for label in ITEM_CLASSES:
        candidates = np.flatnonzero(labels == label)
        if len(candidates):
            chosen.append(int(generator.choice(candidates)))
    return chosen


if __name__ == "__main__":
    cli.define_path("workdir", "The work directory of a finished demo.")
    cli.run(main, cli.parse_known_flags)
