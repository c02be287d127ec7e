"""Lets the library run on Keras 2.15, which tensorflow-addons needs; see docs/tensorflow_addons.md.

Where `import keras` finds Keras 2, the package imports this file first. It adds to the module
`keras` the names of Keras 3 that the library uses and Keras 2 lacks, replaces none, and gives the
layers of this package, and no others, the rules by which Keras 3 builds layers.
"""

import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

if not keras.__version__.startswith("2.15."):
    raise ImportError(
        "tokenlearner_keras needs Keras 3 (pip install 'keras>=3.12'), or Keras 2.15 beside "
        f"tensorflow-addons (requirements/addons.txt). Found Keras {keras.__version__}."
    )


def _convert_to_tensor(x: Any, dtype: str | None = None) -> tf.Tensor:
    return tf.convert_to_tensor(x) if dtype is None else tf.cast(x, dtype)


def _expand_dims(x: tf.Tensor, axis: int | tuple[int, ...]) -> tf.Tensor:
    for each in axis if isinstance(axis, tuple) else (axis,):
        x = tf.expand_dims(x, each)
    return x


def _shape(x: Any) -> tuple[Any, ...]:
    """Returns a shape of integers, and of scalar tensors where a size is not known yet."""
    sizes = tf.shape(x)
    return tuple(sizes[i] if size is None else size for i, size in enumerate(x.shape))


def _conv(
    x: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
) -> tf.Tensor:
    assert data_format == "channels_last"
    return tf.nn.convolution(x, kernel, strides, padding.upper())


def _resize(images: Any, size: tuple[int, int], data_format: str) -> tf.Tensor:
    assert data_format == "channels_last"
    return tf.image.resize(images, size)


def _refused(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"keras.{name}, and so what calls it here, needs Keras 3.")

    return refuse


def _built_once(build: Callable[..., None]) -> Callable[..., None]:
    """As in Keras 3: shapes are tuples, no layer is built twice, norms take any rank."""

    @functools.wraps(build)
    def wrapped(self: Any, *shapes: Any, **named_shapes: Any) -> None:
        build(self, *map(tuple, shapes), **{k: tuple(v) for k, v in named_shapes.items()})
        self.built = True
        for part in self.submodules:
            if isinstance(part, keras.layers.LayerNormalization):
                part.axis = [-1]  # Keras 2 counts it from the front, at the rank of `build`

    return wrapped


def _built_from_all_shapes(self: Any, *args: Any, **kwargs: Any) -> Any:
    """As in Keras 3: `build(a_shape, b_shape)` gets the shapes of the call's `a` and `b`."""
    if not self.built:
        arguments = inspect.signature(self.call).bind(*args, **kwargs).arguments
        shapes = {f"{k}_shape": getattr(v, "shape", None) for k, v in arguments.items()}
        wanted = inspect.signature(self.build).parameters
        with tf.init_scope():
            self.build(**{k: v for k, v in shapes.items() if k in wanted and v is not None})
    return keras.layers.Layer.__call__(self, *args, **kwargs)


def _init_subclass(cls: Any, /, **kwargs: Any) -> None:
    """Applies the rules above to each layer class of this package when the class is created."""
    super(keras.layers.Layer, cls).__init_subclass__(**kwargs)
    if cls.__module__.startswith(f"{__package__}.") and "build" in vars(cls):
        cls.build = _built_once(cls.build)
        if len(inspect.signature(cls.build).parameters) > 2:
            cls.__call__ = _built_from_all_shapes


keras.layers.Layer.__init_subclass__ = classmethod(_init_subclass)

keras.ops = SimpleNamespace(
    amax=tf.reduce_max,
    amin=tf.reduce_min,
    any=tf.reduce_any,
    arange=tf.range,
    broadcast_to=tf.broadcast_to,
    cast=tf.cast,
    concatenate=tf.concat,
    conv=_conv,
    convert_to_numpy=np.asarray,
    convert_to_tensor=_convert_to_tensor,
    cumsum=tf.cumsum,
    custom_gradient=tf.custom_gradient,
    einsum=tf.einsum,
    equal=tf.equal,
    expand_dims=_expand_dims,
    eye=tf.eye,
    gelu=tf.nn.gelu,
    image=SimpleNamespace(resize=_resize),
    matmul=tf.matmul,
    max=tf.reduce_max,
    maximum=tf.maximum,
    mean=tf.reduce_mean,
    multiply=tf.multiply,
    ones_like=tf.ones_like,
    pad=tf.pad,
    relu=tf.nn.relu,
    reshape=tf.reshape,
    rsqrt=tf.math.rsqrt,
    shape=_shape,
    sigmoid=tf.sigmoid,
    sign=tf.sign,
    softmax=tf.nn.softmax,
    split=tf.split,
    square=tf.square,
    stop_gradient=tf.stop_gradient,
    sum=tf.reduce_sum,
    take=tf.gather,
    transpose=tf.transpose,
    where=tf.where,
    zeros=tf.zeros,
    zeros_like=tf.zeros_like,
)
# The state of generators is TensorFlow's own in Keras 2: its dropout takes the seed itself.
keras.random = SimpleNamespace(SeedGenerator=lambda seed: seed, dropout=tf.nn.dropout)
keras.config = SimpleNamespace(
    dtype_policy=keras.mixed_precision.global_policy,
    set_dtype_policy=keras.mixed_precision.set_global_policy,
)
keras.tree = tf.nest
keras.KerasTensor = keras.__internal__.KerasTensor
keras.Layer = keras.Operation = keras.layers.Layer
keras.Variable = tf.Variable
keras.StatelessScope = _refused("StatelessScope")
# What it serves alone, attention in chunks, is also right without it; the scope refuses the rest.
keras.remat = lambda function: function
