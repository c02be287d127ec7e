"""Shows what the image demo has learned: `python -m trainers.demo --workdir=DIR`.

Prints the test accuracy of a finished run beside the range that its configuration
expects and beside simple baselines, says how much of the tokens' attention lies on
the object, and draws the attention maps over test images.
"""

import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import flags

import tokenlearner_keras as tk
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from trainers.data.freedoom.dataset import load_freedoom_objects
from trainers.data.freedoom.options import CLASS_NAMES
from trainers.data.freedoom.render_images import RenderedImages
from trainers.data.preprocessing.normalization import normalize
from trainers.demo_report import baseline_accuracies
from trainers.demo_report import example_images
from trainers.demo_report import mass_inside
from trainers.demo_report import object_coverage
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
    """Returns the configuration and the test row of a finished run of the demo.

    Raises:
        ConfigurationError: If the directory holds no such run.
    """
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


if __name__ == "__main__":
    cli.define_path("workdir", "The work directory of a finished demo.")
    cli.run(main, cli.parse_known_flags)
