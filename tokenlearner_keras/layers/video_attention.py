"""Self-attention between the positions of a video: all of them, of a frame, or in time."""

from typing import Any

import keras
from keras import ops

from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import ConfiguredLayer
from tokenlearner_keras.layers.common import check_choice
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import layer_norm
from tokenlearner_keras.layers.common import optional
from tokenlearner_keras.layers.dot_product_attention import attention_weights
from tokenlearner_keras.layers.dot_product_attention import dot_product_attention

#: Which positions attend to each other.
ATTENTION_AXES = ("space_time", "space", "time")


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class GridAttention(ConfiguredLayer):
    """Multi-head attention on positions `(batch, time, height, width, channels)`, channels known.

    Queries and keys have `key_width` channels in all heads together, values as many as the input;
    there are no biases and no output projection. This form has the parameters and the cost of the
    paper's ablation of video modules. The softmax is float32 under mixed precision.

    Args:
        axes: `"space_time"` lets all positions attend to each other, `"space"` those of a frame,
            `"time"` those at one place in all frames.
        num_heads: Number of heads; must divide `key_width` and the channels.
        key_width: Channels of the queries and of the keys.

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, tables 11 and 12.
    """

    _saved_arguments = ("axes", "num_heads", "key_width")

    def __init__(
        self,
        axes: str = "space_time",
        num_heads: int = 8,
        key_width: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axes = check_choice(axes, ATTENTION_AXES, "axes")
        self.num_heads = check_positive_integer(num_heads, "num_heads")
        self.key_width = check_positive_integer(key_width, "key_width")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self._check_shape(input_shape)
        channels = input_shape[-1]
        widths = {"query": self.key_width, "key": self.key_width, "value": channels}
        for name, width in widths.items():
            layer = keras.layers.Dense(
                width,
                use_bias=False,
                kernel_initializer="glorot_uniform",
                **self._part(name),
            )
            layer.build((None, None, channels))
            setattr(self, f"{name}_layer", layer)

    def call(self, x: Any) -> Any:
        dimensions = ops.shape(x)
        layers = (self.query_layer, self.key_layer, self.value_layer)
        queries, keys, values = self._project(x, layers)
        attended = dot_product_attention(queries, keys, values)
        return self._unfold(ops.transpose(attended, (0, 2, 1, 3)), dimensions)

    def attention_weights(self, x: Any) -> Any:
        """Returns the weights between N positions, `(batch, ..., num_heads, N, N)`.

        Where only some positions attend to each other, `...` is the axes that tell them apart:
        `time` in space, `height, width` in time.
        """
        x = ops.cast(x, self.compute_dtype)
        weights = attention_weights(*self._project(x, (self.query_layer, self.key_layer)))
        batch, frames, height, width, _ = ops.shape(x)
        apart = {"space_time": (), "space": (frames,), "time": (height, width)}[self.axes]
        return ops.reshape(weights, (batch, *apart, *ops.shape(weights)[1:]))

    def _project(self, x: Any, layers: tuple[Any, ...]) -> list[Any]:
        """Returns (B', heads, N, dim) of each layer; the first one's, the queries, are scaled."""
        queries, *others = (self._split_heads(self._fold(layer(x))) for layer in layers)
        return [queries * (self.key_width // self.num_heads) ** -0.5, *others]

    def _fold(self, x: Any) -> Any:
        """Returns (B', N, C): positions that attend to each other in one sequence."""
        _, frames, height, width, channels = ops.shape(x)
        if self.axes == "space_time":
            return ops.reshape(x, (-1, frames * height * width, channels))
        if self.axes == "space":
            return ops.reshape(x, (-1, height * width, channels))
        x = ops.transpose(x, (0, 2, 3, 1, 4))  # (B, H, W, T, C)
        return ops.reshape(x, (-1, frames, channels))

    def _unfold(self, x: Any, dimensions: tuple[Any, ...]) -> Any:
        """Undoes `_fold`, and joins the heads."""
        if self.axes != "time":
            return ops.reshape(x, dimensions)
        batch, frames, height, width, channels = dimensions
        x = ops.reshape(x, (batch, height, width, frames, channels))
        return ops.transpose(x, (0, 3, 1, 2, 4))  # (B, T, H, W, C)

    def _split_heads(self, x: Any) -> Any:
        dimensions = ops.shape(x)
        dim = dimensions[-1] // self.num_heads
        x = ops.reshape(x, (*dimensions[:-1], self.num_heads, dim))
        return ops.transpose(x, (0, 2, 1, 3))

    def _check_shape(self, shape: Any) -> None:
        shape = tuple(shape)
        if len(shape) != 5 or shape[-1] is None:
            raise ValueError(
                f"GridAttention '{self.name}' expects (batch, time, height, width, channels), "
                f"the channels known. Received shape {shape}."
            )
        if shape[-1] % self.num_heads or self.key_width % self.num_heads:
            raise ValueError(
                "`num_heads` must divide `key_width` and the channels. Received num_heads="
                f"{self.num_heads}, key_width={self.key_width} and {shape[-1]} channels."
            )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        self._check_shape(input_shape)
        return tuple(input_shape)


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class VectorTransformer(ConfiguredLayer):
    """`x + attention(norm(x))` of `(batch, tokens, channels)`, with no MLP.

    By default (`num_heads` None) there are as many heads as channels. With heads of one channel the
    weight between two tokens is a vector, one number per channel instead of one number per head: a
    tensor of tokens x tokens x channels, which is what the paper says of its vector attention. That
    tensor is held in float32, so the memory of training grows with the square of the tokens times
    the channels.

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, on video; the normalisation in front, the projection of
        the output and the biases are choices of this package.
    """

    _saved_arguments = ("num_heads",)

    def __init__(self, num_heads: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = optional(check_positive_integer, num_heads, "num_heads")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                f"VectorTransformer '{self.name}' needs to know the number of channels. "
                f"Received shape {tuple(input_shape)}."
            )
        self.norm = layer_norm(self, "norm", channels)
        self.attention = MultiHeadAttention(self.num_heads or channels, **self._part("attention"))
        self.attention.build(input_shape)

    def call(self, x: Any) -> Any:
        return x + self.attention(self.norm(x))

    def attention_weights(self, x: Any) -> Any:
        """Returns the weights between the tokens, `(batch, num_heads, tokens, tokens)`."""
        x = ops.cast(x, self.compute_dtype)
        return self.attention.attention_weights(self.norm(x))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape
