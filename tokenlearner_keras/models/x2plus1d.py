"""Builds the convolutional video models: X(2+1)D-M, with or without TokenLearner."""

from typing import Any

import keras

from tokenlearner_keras.layers.precision import accumulation_dtype
from tokenlearner_keras.models.x2plus1d_config import X2Plus1DConfig
from tokenlearner_keras.models.x2plus1d_model import X2Plus1D
from tokenlearner_keras.models.x2plus1d_modules import POINT
from tokenlearner_keras.models.x2plus1d_modules import SPACE
from tokenlearner_keras.models.x2plus1d_modules import apply_module
from tokenlearner_keras.models.x2plus1d_modules import convolution
from tokenlearner_keras.models.x2plus1d_modules import normalization

#: The stem's temporal convolution sees five frames, as X3D's does.
STEM_TIME = (5, 1, 1)


def build_x2plus1d(config: X2Plus1DConfig, name: str = "x2plus1d") -> X2Plus1D:
    """Builds the model that a configuration describes, with fresh weights.

    Args:
        config: The configuration.
        name: Name of the Keras model.

    Returns:
        A functional model from float videos `(batch, time, height, width, 3)` to logits
        `(batch, num_classes)` in float32, or to the positions `(batch, time, height / 32,
        width / 32, channels)` if `config.classifier` is None. The dtype policy in force
        applies.

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, on Charades and AViD; Feichtenhofer 2020,
        arXiv 2004.04730.
    """
    inputs = keras.Input(config.input_shape, name="images")
    x = convolution(inputs, config.stem_width, SPACE, "stem_conv2d", strides=2)
    x = convolution(x, config.stem_width, STEM_TIME, "stem_conv1d")
    x = keras.layers.ReLU(name="stem_relu")(normalization(x, "stem", config))
    last = len(config.depths) - 1
    for stage, depth in enumerate(config.depths):
        for index in range(depth):
            number = index - (depth - config.module_blocks)
            special = stage == last and number >= 0
            module = config.module if special else "conv2d_conv1d"
            x = _block(x, config, stage, index, module, max(number, 0))
    x = convolution(x, config.inner_widths[-1], POINT, "final_conv")
    x = keras.layers.ReLU(name="final_relu")(normalization(x, "final_conv", config))
    model = X2Plus1D(inputs, _classify(x, config), name=name)
    model.remat = config.remat
    return model


def _block(x: Any, config: X2Plus1DConfig, stage: int, index: int, module: str, number: int) -> Any:
    """An inverted bottleneck: wider inside than between the blocks, with a shortcut."""
    prefix = f"stage_{stage}_block_{index}_"
    strides = 2 if index == 0 else 1
    width = config.widths[stage]
    shortcut = x
    if strides > 1 or x.shape[-1] != width:
        shortcut = convolution(x, width, POINT, f"{prefix}shortcut", strides)
        shortcut = normalization(shortcut, f"{prefix}shortcut", config)
    x = convolution(x, config.inner_widths[stage], POINT, f"{prefix}expand")
    x = normalization(x, f"{prefix}expand", config)
    x = keras.layers.ReLU(name=f"{prefix}expand_relu")(x)
    x = apply_module(x, module, config, prefix, number, strides)
    x = convolution(x, width, POINT, f"{prefix}project")
    # The block starts as the identity, as in X3D.
    x = normalization(x, f"{prefix}project", config, gamma="zeros")
    x = keras.layers.Add(name=f"{prefix}add")([shortcut, x])
    return keras.layers.ReLU(name=f"{prefix}relu")(x)


def _classify(x: Any, config: X2Plus1DConfig) -> Any:
    """Returns float32 logits, or the positions if there is no classifier."""
    if config.classifier is None:
        return x
    full_precision = accumulation_dtype(keras.config.dtype_policy().compute_dtype)
    x = keras.layers.GlobalAveragePooling3D(
        data_format="channels_last", dtype=full_precision, name="pooling"
    )(x)
    if config.representation_size is not None:
        x = keras.layers.Dense(
            config.representation_size,
            activation="relu",
            kernel_initializer="he_normal",
            dtype=full_precision,
            name="pre_logits",
        )(x)
    if config.dropout:
        x = keras.layers.Dropout(config.dropout, dtype=full_precision, name="dropout")(x)
    return keras.layers.Dense(
        config.num_classes,
        kernel_initializer="zeros",
        bias_initializer=keras.initializers.Constant(config.head_bias),
        dtype=full_precision,
        name="head",
    )(x)
