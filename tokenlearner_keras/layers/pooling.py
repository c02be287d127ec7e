"""Reduces all tokens to one vector for the classifier."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import ConfiguredLayer
from tokenlearner_keras.layers.common import accumulation_dtype
from tokenlearner_keras.layers.common import check_choice
from tokenlearner_keras.layers.common import check_grid
from tokenlearner_keras.layers.common import check_positive_integer
from tokenlearner_keras.layers.common import layer_norm
from tokenlearner_keras.layers.dot_product_attention import ATTENTION_FORMS
from tokenlearner_keras.layers.mlp import MlpBlock


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class TokenPooling(ConfiguredLayer):
    """Mean, maximum or sum over the tokens, in float32 under mixed precision.

    `(batch, tokens, channels)` becomes `(batch, channels)`: by the mode `"gap"` the mean, `"gmp"`
    the maximum, `"gsp"` the sum, `"token"` the first token.

    Reference:
        scenic `projects/token_learner/model.py`, `TokenLearnerViT`, `classifier`.
    """

    _saved_arguments = ("mode",)

    def __init__(self, mode: str = "gap", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mode = check_choice(mode, ("gap", "gmp", "gsp", "token"), "mode")

    def call(self, x: Any) -> Any:
        if self.mode == "token":
            return x[:, 0]
        reduce = {"gap": ops.mean, "gmp": ops.max, "gsp": ops.sum}[self.mode]
        wide = ops.cast(x, accumulation_dtype(self.compute_dtype))
        return ops.cast(reduce(wide, axis=1), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[-1])


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class AttentionPooling(ConfiguredLayer):
    """A learned probe attends to all tokens; a residual MLP block follows.

    `(batch, tokens, channels)` becomes `(batch, channels)`; `num_heads` must divide the channels.

    Reference:
        big_vision `models/vit.py`, `MAPHead`; Lee et al. 2019, arXiv 1810.00825.
    """

    _saved_arguments = ("num_heads", "mlp_dim")  # and attention, the name of a layer inside

    def __init__(
        self, num_heads: int, mlp_dim: int, attention: str = "auto", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = check_positive_integer(num_heads, "num_heads")
        self.mlp_dim = check_positive_integer(mlp_dim, "mlp_dim")
        self.attention_form = check_choice(attention, ATTENTION_FORMS, "attention")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        self.probe = self.add_weight(
            name="probe", shape=(1, 1, channels), initializer="glorot_uniform"
        )
        self.attention = MultiHeadAttention(
            self.num_heads, attention=self.attention_form, **self._part("attention")
        )
        self.norm = layer_norm(self, "norm", channels)
        self.mlp = MlpBlock(self.mlp_dim, **self._part("mlp"))
        for layer in (self.attention, self.mlp):
            layer.build((None, 1, channels))

    def call(self, x: Any) -> Any:
        pooled = self.attention(self._probe_for(x), x)  # (B, 1, C)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]

    def attention_weights(self, x: Any) -> Any:
        """Returns the weights of the probe's attention, `(batch, num_heads, 1, tokens)`."""
        x = ops.cast(x, self.compute_dtype)
        return self.attention.attention_weights(self._probe_for(x), x)

    def _probe_for(self, x: Any) -> Any:
        """Returns the probe for each example, (B, 1, C)."""
        dimensions = ops.shape(x)
        probe = ops.cast(self.probe, x.dtype)
        return ops.broadcast_to(probe, (dimensions[0], 1, dimensions[-1]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "attention": self.attention_form}

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[-1])


def averaging_matrix(size: int, target: int) -> np.ndarray:
    """Returns (target, size) float32: row i averages the i-th of `target` windows.

    Windows run from floor(i * size / target) to ceil((i + 1) * size / target); they
    tile the input if `target` divides `size` and overlap by one otherwise.
    """
    matrix = np.zeros((target, size), "float32")
    for row in range(target):
        start, stop = row * size // target, -(-(row + 1) * size // target)
        matrix[row, start:stop] = 1.0 / (stop - start)
    return matrix


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class GridPooling(ConfiguredLayer):
    """Averages a grid of positions to an output grid, frame by frame.

    Args:
        grid: `(height, width)` of the output, not larger than the input's grid. The paper's "2x2
            pool" means an output of 2x2, not a window of 2x2 (only that reproduces its GFLOPS).

    Input shape: `(batch, [time,] height, width, channels)`, sizes known. Output shape: `(batch,
    [time,] *grid, channels)`.

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, table 5.
    """

    _saved_arguments = ("grid",)

    def __init__(self, grid: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid = check_grid(grid, "grid")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        height, width = input_shape[-3:-1]
        if height is None or width is None or height < self.grid[0] or width < self.grid[1]:
            raise ValueError(
                f"GridPooling '{self.name}' averages to a grid of {self.grid}, which "
                "must not be larger than the input's grid, and that must be known. "
                f"Received shape {tuple(input_shape)}."
            )
        # Not arrays, which torch.compile does not trace.
        self._rows = tuple(map(tuple, averaging_matrix(height, self.grid[0]).tolist()))
        self._columns = tuple(map(tuple, averaging_matrix(width, self.grid[1]).tolist()))

    def call(self, x: Any) -> Any:
        dtype = accumulation_dtype(self.compute_dtype)
        wide = ops.cast(x, dtype)
        rows = ops.convert_to_tensor(self._rows, dtype)
        columns = ops.convert_to_tensor(self._columns, dtype)
        # The tensor with the batch comes first: LiteRT's converter gets the other order wrong.
        pooled = ops.einsum("...hwc,ih->...iwc", wide, rows)
        pooled = ops.einsum("...iwc,jw->...ijc", pooled, columns)
        return ops.cast(pooled, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-3], *self.grid, input_shape[-1])
