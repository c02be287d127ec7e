"""What the learned tokens look at: attention maps and pictures of them."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from tokenlearner_keras.cost import functional_graph
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.checks import check_positive_integer

_ORANGE = np.array([0.95, 0.3, 0.0], "float32")
_YELLOW = np.array([1.0, 0.9, 0.2], "float32")


def attention_maps(model: keras.Model, inputs: Any, batch_size: int = 32) -> dict[str, np.ndarray]:
    """Returns the attention maps of every TokenLearner in a functional model.

    Args:
        model: A functional model with TokenLearner layers, each called once.
        inputs: A batch of the model's inputs: an array, or arrays in the structure of
            `model.input`.
        batch_size: Examples a forward pass.

    Returns:
        Maps by layer name, float32: `(batch, num_tokens, height, width)`, for video
        `(batch, time, num_tokens, height, width)`, and `(batch, num_tokens,
        positions)` where the layer's input is a sequence.

    Raises:
        ValueError: If the model is not functional, has no TokenLearner, one is called
            several times, or one sits inside a model that is itself a layer of this one.
    """
    check_positive_integer(batch_size, "batch_size")
    model = functional_graph(model, "attention_maps")
    layers = _token_learners(model)
    # The arguments of the layers' calls become outputs of a model that shares all
    # weights; the layers are then called eagerly, which leaves the graph as it is.
    calls = {layer.name: layer._inbound_nodes[0].arguments for layer in layers}
    features = keras.Model(model.input, {name: call.keras_tensors for name, call in calls.items()})
    maps: dict[str, list[np.ndarray]] = {name: [] for name in calls}
    if not hasattr(inputs, "shape") and len(keras.tree.flatten(inputs)) != len(model.inputs):
        raise ValueError(
            f"attention_maps expects {len(model.inputs)} array(s) with the batch first, in "
            f"the structure of model.input. Received: {type(inputs).__name__}."
        )
    count = len(keras.tree.flatten(inputs)[0])
    if count == 0:
        raise ValueError("attention_maps needs at least one example. Received an empty batch.")
    for start in range(0, count, batch_size):
        stop = start + batch_size
        batch = keras.tree.map_structure(lambda x, a=start, b=stop: x[a:b], inputs)
        tensors = features(batch, training=False)
        for layer in layers:
            values = dict(
                zip(map(id, calls[layer.name].keras_tensors), tensors[layer.name], strict=True)
            )
            arguments, options = keras.tree.map_structure(
                lambda x, v=values: v.get(id(x), x),
                (calls[layer.name].args, calls[layer.name].kwargs),
            )
            options = {**options, "return_attention_maps": True, "training": False}
            _, weights = layer(*arguments, **options)
            maps[layer.name].append(keras.ops.convert_to_numpy(weights))
    return {name: np.concatenate(parts) for name, parts in maps.items()}


def _token_learners(model: keras.Model) -> list[BaseTokenLearner]:
    """Returns the TokenLearner layers of a functional model; see `attention_maps`."""
    layers = [layer for layer in model.layers if isinstance(layer, BaseTokenLearner)]
    for layer in model.layers:
        nested = getattr(layer, "layers", [])
        if any(isinstance(each, BaseTokenLearner) for each in nested):
            raise ValueError(
                f"Layer {layer.name!r} of {model.name!r} is a model with a TokenLearner of "
                "its own. Call attention_maps on that model, with its inputs."
            )
    if not layers:
        raise ValueError(
            f"Model {model.name!r} has no TokenLearner layer, so there are no maps. Build "
            "one by a name such as vit_b16_tl8at6."
        )
    shared = [layer.name for layer in layers if len(layer._inbound_nodes) != 1]
    if shared:
        raise ValueError(
            f"The TokenLearner {shared[0]!r} is called several times, so its maps have no "
            "single answer. Use return_attention_maps=True where you call it."
        )
    return layers


def plot_attention_maps(
    images: Any,
    maps: Any,
    path: str | Path | None = None,
    titles: list[str] | None = None,
) -> Any:
    """Draws a row an image: the image, then it under each token's attention map.

    Each map is shown on its own scale, from nothing to its largest value.

    Args:
        images: `(batch, height, width, 3)`, uint8 or floats in [0, 1].
        maps: `(batch, num_tokens, grid_height, grid_width)`.
        path: Where to write the picture (PNG, PDF, SVG by suffix). None: nowhere.
        titles: A line of text for each image.

    Returns:
        The Matplotlib figure.

    Raises:
        ImportError: If Matplotlib is not installed.
        ValueError: If the shapes do not fit.
    """
    images, maps = _checked(np.asarray(images), np.asarray(maps), titles)
    figure = _figure(len(images), maps.shape[1] + 1)
    axes = figure.subplots(len(images), maps.shape[1] + 1, squeeze=False)
    for row, (image, image_maps) in enumerate(zip(images, maps, strict=True)):
        axes[row, 0].imshow(image)
        if titles is not None:
            axes[row, 0].set_title(str(titles[row]), fontsize=8, parse_math=False)
        for column, weights in enumerate(image_maps, start=1):
            axes[row, column].imshow(overlay(image, weights))
            if row == 0:
                axes[row, column].set_title(f"token {column}", fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def overlay(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns a grey image with a map over it, from clear over orange to yellow.

    Args:
        image: `(height, width, 3)`, floats in [0, 1].
        weights: `(grid_height, grid_width)`, not negative, any scale.

    Returns:
        `(height, width, 3)`, floats in [0, 1].
    """
    height, width = image.shape[:2]
    peak = float(weights.max())
    heat = _enlarge(weights / peak if peak > 0 else weights, height, width)[..., None]
    grey = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    # Dark pictures stay readable under the colour.
    grey = 0.9 * grey**0.7
    colour = (1 - heat) * _ORANGE + heat * _YELLOW
    opacity = 0.8 * heat
    return np.clip(grey * (1 - opacity) + colour * opacity, 0, 1)


def _enlarge(weights: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a map at the size of its image, bilinear between patch centres."""
    resized = keras.ops.image.resize(
        weights[..., None].astype("float32"),
        (height, width),
        data_format="channels_last",
    )
    return keras.ops.convert_to_numpy(resized)[..., 0]


def _checked(
    images: np.ndarray, maps: np.ndarray, titles: list[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    fits = images.ndim == 4 and images.shape[-1] == 3 and maps.ndim == 4
    if (
        not fits
        or len(images) != len(maps)
        or len(images if titles is None else titles) != len(images)
    ):
        raise ValueError(
            "Expected images (batch, height, width, 3), maps (batch, num_tokens, "
            "grid_height, grid_width) and as many titles. Received images of shape "
            f"{images.shape}, maps of shape {maps.shape}"
            f" and {len(titles) if titles is not None else 'no'} titles."
        )
    if np.issubdtype(images.dtype, np.integer):
        images = images.astype("float32") / 255
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 1.0)
    if images.size == 0 or not (low >= 0 and high <= 1):
        raise ValueError(
            "Expected at least one image, of integers in [0, 255] or floats in [0, 1]. "
            f"Received shape {images.shape}, values from {low:g} to {high:g}. Undo the "
            "normalisation first."
        )
    return images, maps


def _figure(rows: int, columns: int) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot_attention_maps needs Matplotlib: pip install 'tokenlearner-keras[plots]'"
        ) from error
    # A Figure of its own, not pyplot's: no display, no global state to clean up.
    return Figure(figsize=(1.15 * columns, 1.25 * rows), layout="constrained")
