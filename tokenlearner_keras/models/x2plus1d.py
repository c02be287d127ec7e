"""Builds the convolutional video models: X(2+1)D-M, with or without TokenLearner."""

import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tokenlearner_keras.graph import Node
from tokenlearner_keras.graph import call_arguments
from tokenlearner_keras.graph import filled
from tokenlearner_keras.graph import graph_calls
from tokenlearner_keras.layers.batch_normalization import BatchNormalization
from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import convolve
from tokenlearner_keras.layers.common import rematerialize
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.layers.token_learner import TokenLearner
from tokenlearner_keras.layers.video_attention import GridAttention
from tokenlearner_keras.layers.video_attention import VectorTransformer
from tokenlearner_keras.models.model import VisionTransformer
from tokenlearner_keras.models.model import apply_head
from tokenlearner_keras.models.model import full_precision
from tokenlearner_keras.models.x2plus1d_config import MODULES
from tokenlearner_keras.models.x2plus1d_config import X2Plus1DConfig

#: The layers that the stem and the blocks end with: all that follows goes through them.
_END_OF_PART = re.compile(r"stem_relu|stage_\d+_block_\d+_relu")


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class X2Plus1D(VisionTransformer):
    """A functional model of convolutions; `tk.build_model` and `tk.create_model` return one."""

    @property
    def remat(self) -> bool:
        """Whether training computes the activations inside a block a second time.

        Stem and blocks are then computed again in the backward pass, one at a time, and only
        what is between them is kept. Outputs, gradients and statistics are unchanged.
        """
        return bool(getattr(self, "_remat", False))

    @remat.setter
    def remat(self, value: bool) -> None:
        self._remat = value
        self.autocast = not value  # the layers inside cast the weights, each its own way

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        x = keras.tree.flatten(inputs)[0]
        if x.shape[0] == 0:
            # Not in training: batch norms would learn the mean of nothing.
            return convolve(functools.partial(super().call, training=False), x)
        if not (self.remat and training):
            return super().call(inputs, training=training, mask=mask)
        entry, part = self.inputs[0], []
        for node in graph_calls(self):
            part.append(node)
            if _END_OF_PART.fullmatch(node.operation.name):
                layers = [each.operation for each in part]
                x = rematerialize(layers, _function(part, entry), x)
                entry, part = node.outputs[0], []
        return _function(part, entry)(x)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "remat": True} if self.remat else config

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> "X2Plus1D":
        remat = config.get("remat", False)
        config = {name: value for name, value in config.items() if name != "remat"}
        model = super().from_config(config, custom_objects)
        model.remat = remat
        return model


def _function(nodes: list[Node], entry: keras.KerasTensor) -> Any:
    """Returns a function that runs calls of a graph in training, on the value of `entry`."""
    nodes = list(nodes)

    def run(x: Any) -> Any:
        values = {id(entry): x}
        outputs = x
        for node in nodes:
            args, kwargs = (filled(part, values) for part in call_arguments(node))
            if "training" in inspect.signature(node.operation.call).parameters:
                # The second pass runs outside the model's call, which would have set this.
                kwargs["training"] = True
            is_relu = isinstance(node.operation, keras.layers.ReLU)
            outputs = _relu(*args) if is_relu else node.operation(*args, **kwargs)
            values[id(node.outputs[0])] = outputs
        return outputs

    return run


def _relu(x: Any) -> Any:
    """Returns `max(x, 0)`; the gradient, 0 at 0, is a product with the sign of the output.

    A plain gradient selects by a boolean mask. libtpu refuses a block of several clips for the copy
    of that mask, which takes more of the chip's vmem than a program may use.
    """

    @ops.custom_gradient
    def relu(x: Any) -> Any:
        outputs = ops.relu(x)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            (upstream,) = args if upstream is None else (upstream,)  # by name on PyTorch
            return upstream * ops.sign(outputs)

        return outputs, gradient

    return relu(x)


POINT, SPACE, TIME = (1, 1, 1), (1, 3, 3), (3, 1, 1)


def build_module(config: X2Plus1DConfig) -> keras.Model:
    """Returns the module of a configuration alone, as the paper's ablation counts it.

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

    The names of all layers begin with `prefix`, but those around the learned tokens end with
    `number`, which of the model's modules this is. `strides` are those of the 2-D convolution.
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


#: The stem's temporal convolution sees five frames, as X3D's does.
STEM_TIME = (5, 1, 1)


def build_x2plus1d(config: X2Plus1DConfig, name: str = "x2plus1d") -> X2Plus1D:
    """Builds a convolutional video model with fresh weights, see `build_model`."""
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
    x = keras.layers.GlobalAveragePooling3D(
        data_format="channels_last", dtype=full_precision(), name="pooling"
    )(x)
    return apply_head(x, config, "relu", "he_normal", config.dropout)
