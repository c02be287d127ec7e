"""Turns on low-rank adaptation (LoRA) for the layers inside a model's blocks and tokenizers."""

import difflib
import fnmatch
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras

from tokenlearner_keras.layers.common import check_finite
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import is_quantized
from tokenlearner_keras.layers.common import optional


def enable_lora(
    model: keras.Model,
    rank: int,
    layers: Sequence[str] = ("*",),
    *,
    trainable: Sequence[str] = ("head",),
    alpha: float | None = None,
) -> tuple[str, ...]:
    """Freezes a model but for low-rank updates of its kernels, and layers trained in full.

    Each adapted kernel `W`, frozen, becomes `W + alpha / rank * A @ B`, where `B` starts at zero:
    the outputs are unchanged until the model is trained. Adapted are the Dense, EinsumDense,
    Embedding and convolution layers inside other layers: query, key, value, output and both MLP
    layers of the encoder blocks and of the attention head (`classifier="map"`), the patch kernel,
    the tokenizer's MLP, attention or convolutions, and the fuser's layers. Everything else is
    frozen: biases, norms, positions and, in inference mode, batch norms. Layers that stand directly
    in the model, such as the classifier, are never adapted: train them in full, or leave them
    frozen. So is a TokenLearner that was just inserted: `trainable=("head", "token_learner")`.

    A file of the model (`model.save`, `model.save_weights`) holds the sums in place of the kernels:
    the model that is loaded from it is as if trained in full, without LoRA's variables.

    Load weights, insert and resize before this call, and compile after it.

    Args:
        model: A built model, which is changed: one of `tk.create_model` or any other.
        rank: Rank of the updates, at least 1.
        layers: Patterns (as in a shell, `*` also for slashes) of the paths of the layers to adapt,
            such as `"encoder_block_*/attention/*"`, or `"*/query"` and `"*/value"`.
        trainable: Patterns of the names or paths of layers that are trained in full, in place of
            an adaptation. By default the classifier of this package's models.
        alpha: Scale of the updates. None: the rank, so that the scale is 1.

    Returns:
        The paths of the adapted layers.

    Raises:
        ValueError: If a pattern matches nothing, a layer is quantised or adapted already, or the
            model is not built or has nothing to adapt; the model is unchanged then. Under Keras 2.

    Example:
        >>> model = tk.create_model("vit_s16_tl8at6", num_classes=10)
        >>> adapted = tk.enable_lora(model, rank=8)
        >>> model.compile("adam", "categorical_crossentropy")  # fit, save

    Reference:
        Hu et al. 2021, arXiv 2106.09685; `keras.layers.Dense.enable_lora`.
    """
    if not hasattr(keras.layers.Dense, "enable_lora"):
        raise ValueError(f"enable_lora needs Keras 3. Found Keras {keras.__version__}.")
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"enable_lora takes a keras.Model. Received: {model!r}. A Dense layer has enable_lora."
        )
    rank = check_positive_integer(rank, "rank")
    alpha = optional(check_finite, alpha, "alpha")
    if not model.built:
        raise ValueError(
            f"enable_lora takes a built model, and {model.name!r} is not. Call it on inputs first."
        )
    parts = {part.path: part for part in _parts(model)}
    whole = _matching(parts, trainable, "trainable")
    whole |= {path for path in parts if any(path.startswith(f"{each}/") for each in whole)}
    adaptable = {path: part for path, part in parts.items() if part.is_adaptable}
    if not adaptable:
        raise ValueError(
            "enable_lora adapts layers inside other layers, such as those of an encoder block, and "
            f"{model.name!r} has none. Choose what to train by `layer.trainable`."
        )
    chosen = _matching(adaptable, layers, "layers") - whole
    again = [path for path in parts if path in chosen and parts[path].layer.lora_enabled]
    if again:
        raise ValueError(
            f"enable_lora can be called once for a layer. {again[0]!r} of {model.name!r} has LoRA "
            "already. Save the model, which adds the updates to the kernels, and load it."
        )
    rounded = [path for path in parts if path in chosen and is_quantized(parts[path].layer)]
    if rounded:
        raise ValueError(
            f"enable_lora adapts layers of floats. {rounded[0]!r} of {model.name!r} is quantised, "
            "and a file would hold rounded sums. Call enable_lora first, and quantize after "
            "training."
        )
    kept = {id(variable) for path in whole for variable in parts[path].layer.variables}
    for variable in model.trainable_variables:
        variable.trainable = id(variable) in kept
    for path, part in parts.items():
        if isinstance(part.layer, keras.layers.BatchNormalization) and path not in whole:
            part.layer.trainable = False  # else it would use, and move, the statistics
        if path in chosen:
            part.layer.enable_lora(rank, lora_alpha=alpha)
    return tuple(path for path in parts if path in chosen)


class _Part(NamedTuple):
    """A layer with weights, by the names of the layers that it is in and its own."""

    path: str
    layer: Any
    is_adaptable: bool


def _parts(model: keras.Model) -> Iterator[_Part]:
    seen: set[int] = set()

    def inside(owner: Any, prefix: str) -> Iterator[_Part]:
        # The configuration of these has that of the layer, with `lora_rank`: a loaded model would
        # have LoRA's variables again.
        in_configuration = isinstance(owner, (keras.Model, keras.layers.Wrapper))
        layers = owner.layers if isinstance(owner, keras.Model) else owner._layers
        for layer in layers:
            if layer.weights and id(layer) not in seen:
                seen.add(id(layer))
                path = f"{prefix}{layer.name}"
                yield _Part(path, layer, not in_configuration and hasattr(layer, "enable_lora"))
                yield from inside(layer, f"{path}/")

    return inside(model, "")


def _matching(parts: dict[str, _Part], patterns: Sequence[str], argument: str) -> set[str]:
    """Returns the paths that match one of the patterns, each of which must match something."""
    matching: set[str] = set()
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        paths = fnmatch.filter(parts, pattern)
        if not paths:
            forms = dict.fromkeys(f"*/{path.rpartition('/')[2]}" for path in parts)
            near = difflib.get_close_matches(pattern, (*parts, *forms), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            tops = ", ".join(dict.fromkeys(path.partition("/")[0] for path in parts))
            raise ValueError(
                f"`{argument}` must be patterns of layers in {tops}. {pattern!r} matches none that "
                f"can be {'trained' if argument == 'trainable' else 'adapted'}.{hint} Pass () for "
                "none."
            )
        matching.update(paths)
    return matching
