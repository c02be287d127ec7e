"""Argument checks, dtypes and building blocks that the layers share."""

import difflib
import math
import numbers
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Self

import keras
from keras import ops

#: Package name written into saved models (``package>ClassName``). It must never
#: change: files saved by older releases refer to it.
SERIALIZATION_PACKAGE = "tokenlearner_keras"

#: LayerNorm epsilon of the reference (Flax's default). Keras' default is 1e-3.
LAYER_NORM_EPSILON = 1e-6

#: Logit of a masked position: its exponential is 0 in float32 and it is finite, so
#: that a row without any real position gives no NaN (nor does its gradient).
MASKED_LOGIT = -1e30

#: Arguments that say how a layer is quantised: one of Keras by the first two, ours by its parts.
_QUANTIZATION = ("dtype", "quantization_config", "quantized_parts")


def accumulation_dtype(compute_dtype: str) -> str:
    """Returns the dtype for softmax, sums over positions and logits: at least float32.

    Under a mixed policy a sum over hundreds of positions loses bits in bfloat16 and overflows in
    float16.
    """
    # Not `keras.backend.result_type`: outside TensorFlow that never answers float64.
    return "float64" if compute_dtype == "float64" else "float32"


def widened(x: Any, compute_dtype: str) -> Any:
    """Returns an input in the layer's dtype; that of a half-precision layer is unchanged.

    A LayerNormalization takes numbers beyond the range of float16: a layer that begins with
    one lets it cast its input (`autocast = False`) and calls this instead.
    """
    return x if is_half_precision(compute_dtype) else ops.cast(x, compute_dtype)


def is_half_precision(compute_dtype: str) -> bool:
    """Says whether a layer computes in 16 bits, as under a mixed policy."""
    return compute_dtype in ("bfloat16", "float16")


def is_quantized(layer: keras.layers.Layer) -> bool:
    """Says whether only the layer itself knows what to do with its weights."""
    return getattr(layer, "quantization_mode", None) is not None


class ConfiguredLayer(keras.layers.Layer):
    """A layer that saves constructor arguments, which are attributes of the same names.

    `quantize` of a model changes the layers inside this one, its parts. The config keeps how, else
    a loaded layer would build them in floats, and their weights in the file would not fit.

    Args:
        quantized_parts: Name of a part -> the arguments with which it is built quantised. Written
            by `get_config`, only after `quantize`.
    """

    _saved_arguments: tuple[str, ...] = ()
    #: Attributes that `build` sets, as far as it does.
    _built_attributes: tuple[str, ...] = ()

    def __init__(self, *, quantized_parts: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._quantized_parts = dict(quantized_parts or {})

    def get_config(self) -> dict[str, Any]:
        arguments = {name: getattr(self, name) for name in self._saved_arguments}
        config = {**super().get_config(), **arguments}
        parts = self._quantized_now() if self.built else dict(self._quantized_parts)
        return {**config, "quantized_parts": parts} if parts else config

    def _part(self, name: str) -> dict[str, Any]:
        """Returns the arguments that every part with a Dense kernel needs, quantised or not."""
        saved = self._quantized_parts.get(name, {})
        arguments = {"name": name, "dtype": self.dtype_policy}
        arguments |= {key: saved[key] for key in _QUANTIZATION if key in saved}
        if "quantization_config" in arguments:
            config = keras.saving.deserialize_keras_object(arguments["quantization_config"])
            arguments["quantization_config"] = config
        return arguments

    def _quantized_now(self) -> dict[str, Any]:
        """Returns `quantized_parts` of the parts as they are."""
        parts = self._flatten_layers(recursive=False, include_self=False)
        arguments = {part.name: _quantization(part) for part in parts}
        return {name: each for name, each in arguments.items() if each}

    def sharing_weights(self, **changes: Any) -> Self:
        """Returns a layer with this built one's variables, not copies, and other arguments."""
        layer = type(self).from_config({**self.get_config(), **changes})
        for name in self._built_attributes:
            if hasattr(self, name):
                setattr(layer, name, getattr(self, name))
        layer.built = True
        return layer


def _quantization(part: keras.layers.Layer) -> dict[str, Any]:
    """Returns what a part must be given to be built as it is now quantised; {} if it is not."""
    # A policy of Keras 2 has no such attribute.
    if getattr(part.dtype_policy, "quantization_mode", None) is not None:
        names: tuple[str, ...] = _QUANTIZATION
    elif isinstance(part, ConfiguredLayer):
        names = ("quantized_parts",)
    else:
        return {}
    config = part.get_config()
    return {name: config[name] for name in names if name in config}


def layer_norm(owner: keras.layers.Layer, name: str, channels: int | None) -> Any:
    """Returns a built LayerNormalization over the channels, with its owner's dtype policy."""
    norm = keras.layers.LayerNormalization(
        epsilon=LAYER_NORM_EPSILON, dtype=owner.dtype_policy, name=name
    )
    norm.build((None, None, channels))
    return norm


def check_positive_integer(value: Any, name: str) -> int:
    """Returns `value` as an int; raises ValueError unless it is an integer >= 1."""
    return check_integer(value, name, minimum=1)


def check_integer(value: Any, name: str, minimum: int) -> int:
    """Returns `value` as an int; raises ValueError unless it is an integer >= `minimum`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < minimum:
        raise ValueError(f"`{name}` must be an integer of at least {minimum}. Received: {value!r}.")
    return int(value)


def optional(check: Callable[[Any, str], Any], value: Any, name: str) -> Any:
    """Returns `check(value, name)`, and None for None."""
    return None if value is None else check(value, name)


def check_rate(value: Any, name: str) -> float:
    """Returns `value` as a float; raises ValueError unless it is in [0, 1)."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0.0 <= value < 1.0:
        raise ValueError(f"`{name}` must be a rate: at least 0 and below 1. Received: {value!r}.")
    return float(value)


def check_finite(value: Any, name: str) -> float:
    """Returns `value` as a float; raises ValueError unless it is a finite number."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number. Received: {value!r}.")
    return float(value)


def check_flag(value: Any, name: str) -> bool:
    """Returns `value`; raises ValueError unless it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False. Received: {value!r}.")
    return value


def check_choice(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    """Returns `value`; raises ValueError unless it is one of `choices`."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`{name}` must be one of {listed}. Received: {value!r}.{hint}")
    return value


def check_grid(value: Any, name: str) -> tuple[int, int]:
    """Returns `value` as (height, width); raises ValueError unless it is such a pair."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"`{name}` must be two integers (height, width). Received: {value!r}.")
    return check_sizes(value, name)


def check_sizes(values: Any, name: str) -> tuple[Any, ...]:
    """Returns a sequence of positive integers as a tuple."""
    return tuple(
        check_positive_integer(value, f"{name}[{index}]") for index, value in enumerate(values)
    )


def check_size(value: Any, name: str) -> tuple[int, int]:
    """Returns an int as a square, and a pair of integers as (height, width)."""
    if isinstance(value, (list, tuple)):
        return check_grid(value, name)
    side = check_positive_integer(value, name)
    return (side, side)


def shapes_fit(received: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Says whether two shapes are the same as far as both are known."""
    return len(received) == len(expected) and all(
        not isinstance(a, int) or not isinstance(b, int) or a == b
        for a, b in zip(received, expected, strict=True)
    )


def dtype_name(x: Any) -> str:
    """Returns the name of a tensor's dtype, such as "float32", on every backend."""
    return str(getattr(x.dtype, "name", x.dtype)).removeprefix("torch.")


def check_floats(x: Any, owner: str) -> None:
    """Raises ValueError unless a tensor holds floating-point numbers."""
    dtype = dtype_name(x)
    if not dtype.startswith(("float", "bfloat")):
        raise ValueError(
            f"{owner} expects floating-point inputs. Received {dtype}. Cast them first, pixels "
            "also to the range of the model, such as keras.ops.cast(x, 'float32') / 255."
        )


def check_channels_last(rank: int, owner: str) -> None:
    """Raises ValueError if Keras is set to channels first and the rank is that of images."""
    if rank > 3 and keras.backend.image_data_format() == "channels_first":
        raise ValueError(
            f"{owner} takes images and videos channels last, but Keras is set to channels "
            "first. Call keras.backend.set_image_data_format('channels_last'). A layer also "
            "takes a sequence (batch, positions, channels) as it is."
        )


def rematerialize(
    layers: Sequence[keras.layers.Layer],
    function: Callable[[Any], Any],
    x: Any,
    keep_attention: bool = False,
) -> Any:
    """Returns `function(x)` and keeps only `x` and the weights for the backward pass.

    `keras.remat` alone is not enough: its second pass would draw other dropout masks and
    update the statistics of batch norms again, and under JAX the first pass would leak traced
    states. So a `keras.StatelessScope` makes the function a pure one of its input, weights,
    statistics and seeds. The statistics that it moves are kept once, and the generators
    advance outside the scope, by the one draw each that a call makes. Outputs, gradients,
    statistics and random numbers are then those of a plain `function(x)`.

    Args:
        layers: Built layers that own all weights and seed generators that the function uses.
            Call this without autocast in force, so that each weight has its own dtype here.
        function: One pass of the layers, which draws once from each generator.
        x: The function's input.
        keep_attention: Whether the results of a TPU's attention kernel are kept, too, on JAX.
    """
    trained = [variable for layer in layers for variable in layer.trainable_variables]
    fixed = [variable for layer in layers for variable in layer.non_trainable_variables]
    seeds = [(each, _taken(each)) for each in fixed if _is_seed(each)]
    # Frozen weights are not among them: replicas of TensorFlow refuse to assign these.
    statistics = [each for each in fixed if each.name in _STATISTICS]
    frozen = [each for each in fixed if not _is_seed(each) and each.name not in _STATISTICS]
    variables = [*trained, *frozen, *statistics]

    def pure(x: Any, *values: Any) -> tuple[Any, ...]:
        with keras.StatelessScope([*zip(variables, values, strict=True), *seeds]) as scope:
            return function(x), *(scope.get_current_value(each) for each in statistics)

    values = [ops.convert_to_tensor(variable) for variable in (*trained, *frozen)]
    # Copies: torch changes a variable in place, and the second pass needs what it was.
    values += [variable.value * 1 for variable in statistics]
    remat = keras.remat
    if keep_attention and keras.backend.backend() == "jax":
        from tokenlearner_keras.layers.jax_attention import rematerialize_all_but_attention as remat
    outputs, *moved = remat(pure)(x, *values)
    for variable, value in zip(statistics, moved, strict=True):
        variable.assign(value)
    return outputs


#: The variables of batch norms that a forward pass changes.
_STATISTICS = ("moving_mean", "moving_variance")


def _is_seed(variable: keras.Variable) -> bool:
    return bool(variable.name == "seed_generator_state")


def _taken(variable: keras.Variable) -> Any:
    """Returns the state of a generator, and advances it by one draw."""
    state = variable.value * 1  # a copy, as in keras.random.SeedGenerator
    variable.assign(state + ops.convert_to_tensor([0, 1], dtype=variable.dtype))
    return state


def plain_unless_differentiated(
    plain: Callable[..., Any], faster: Callable[..., Any], *arguments: Any
) -> Any:
    """Returns `faster(*arguments)`, whose gradients are cheap, and `plain` where JAX takes none.

    XLA for CPUs fuses a normalisation with the product that follows, so that on JAX a forward pass
    alone is best written plainly. Only JAX tells the two uses apart: `training` does not, since
    saliency maps are gradients of a model at rest.

    Args:
        plain: A function of arrays alone, no tensor in its closure.
        faster: The same function in another form.
        *arguments: Tensors, variables and None.
    """
    if keras.backend.backend() != "jax":
        return faster(*arguments)
    import jax

    function = jax.custom_jvp(plain)
    function.defjvp(lambda primals, tangents: jax.jvp(faster, primals, tangents))
    return function(*(None if each is None else ops.convert_to_tensor(each) for each in arguments))


def convolve(convolution: Any, x: Any) -> Any:
    """Returns `convolution(x)` of a layer or model, also for a batch of 0 examples.

    TensorFlow's kernels for CPUs (oneDNN) give an empty batch the shape of their input.
    """
    if x.shape[0] != 0:
        return convolution(x)
    return convolution(ops.pad(x, ((0, 1), *[(0, 0)] * (len(x.shape) - 1))))[:0]
