"""The modules of the convolutional video models: what a block does between its projections."""

from typing import Any

import keras

from tokenlearner_keras.layers.batch_normalization import BatchNormalization
from tokenlearner_keras.layers.grid_attention import GridAttention
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.layers.token_learner import TokenLearner
from tokenlearner_keras.layers.vector_transformer import VectorTransformer
from tokenlearner_keras.models.x2plus1d_config import MODULES
from tokenlearner_keras.models.x2plus1d_config import X2Plus1DConfig

POINT, SPACE, TIME = (1, 1, 1), (1, 3, 3), (3, 1, 1)


def build_module(config: X2Plus1DConfig) -> keras.Model:
    """Returns the module of a configuration by itself, as the paper's ablation counts it.

    Its input and output are the positions of the last stage, `(batch, time, height, width,
    channels)` with the last of `config.inner_widths`.
    """
    shape = (config.num_frames, *config.grid_size, config.inner_widths[-1])
    inputs = keras.Input(shape, name="positions")
    outputs = apply_module(inputs, config.module, config, prefix="module_")
    return keras.Model(inputs, outputs, name=config.module)


def apply_module(
    x: Any,
    module: str,
    config: X2Plus1DConfig,
    prefix: str,
    number: int = 0,
    strides: int = 1,
) -> Any:
    """Applies a module; every operation but TokenLearner ends in a batch norm and a ReLU.

    Args:
        x: `(batch, time, height, width, channels)`.
        module: A key of `MODULES`.
        config: The configuration.
        prefix: Begins the names of all layers but those around the learned tokens.
        number: Which of the model's modules this is, in the names of those.
        strides: Of the 2-D convolution, along height and width.
    """
    for operation in MODULES[module]:
        if operation == "token_learner":
            x = _learn_and_fuse(x, config, number)
            continue
        name = f"{prefix}{operation}"
        if operation == "conv2d":
            x = convolution(x, x.shape[-1], SPACE, name, strides)
        elif operation == "conv1d":
            x = convolution(x, x.shape[-1], TIME, name)
        else:
            attention = GridAttention(operation, config.num_heads, config.key_width, name=name)
            x = attention(x)
        x = normalization(x, name, config)
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
    return x


def convolution(
    x: Any, filters: int, kernel_size: tuple[int, int, int], name: str, strides: int = 1
) -> Any:
    """Applies a convolution without bias that keeps the size but for its spatial strides."""
    return keras.layers.Conv3D(
        filters,
        kernel_size,
        strides=(1, strides, strides),
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        data_format="channels_last",
        name=name,
    )(x)


def normalization(x: Any, name: str, config: X2Plus1DConfig, gamma: str = "ones") -> Any:
    """Applies the batch norm that belongs to the layer of that name."""
    return BatchNormalization(
        config.batch_norm_momentum, config.batch_norm_epsilon, gamma, name=f"{name}_norm"
    )(x)


def _learn_and_fuse(x: Any, config: X2Plus1DConfig, number: int) -> Any:
    """TokenLearner, the transformer over the tokens of all frames, TokenFuser and residual."""

    def named(name: str) -> str:
        return f"{name}_{number}"

    tokens = TokenLearner(
        config.num_tokens,
        config.token_learner_pooling,
        num_convolutions=1,
        name=named("token_learner"),
    )(x)  # (B, T, S, C)
    channels = tokens.shape[-1]
    sequence = keras.layers.Reshape((-1, channels), name=named("token_sequence"))(tokens)
    heads = None if config.vector_attention else config.num_heads
    sequence = VectorTransformer(heads, name=named("vector_transformer"))(sequence)
    shape = (-1, config.num_tokens, channels)
    tokens = keras.layers.Reshape(shape, name=named("frame_tokens"))(sequence)
    fuser = TokenFuser(
        config.fuser_bottleneck_dim, mixing=config.fuser_mixing, name=named("token_fuser")
    )
    return keras.layers.Add(name=named("fused"))([fuser(tokens, x), x])
