"""What a fine-tuning changes about the layers of a model: which are frozen, and their rates."""

import fnmatch
import re

import keras

from tokenlearner_keras import X2Plus1DConfig
from tokenlearner_keras.models.names import ModelConfig
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean

# Layers of a ViT that belong to a block, by the number in their names; those around learned tokens
# are counted from the first block that works on tokens.
_VIT_BLOCK = re.compile(r"encoder_block_(\d+)")
_CONVOLUTIONAL_BLOCK = re.compile(r"stage_(\d+)_block_(\d+)_")
_AROUND_TOKENS = re.compile(r"(?:token_learner|vector_transformer|token_fuser)_(\d+)")
_EMBEDDING = re.compile(r"embedding|class_token|position_embedding|stem_")


def freeze_layers(model: keras.Model, patterns: tuple[str, ...]) -> None:
    """Makes the layers whose names match a pattern (as in a shell) not trainable.

    Batch norms among them use their moving statistics, and leave them as they are.

    Raises:
        ConfigurationError: If a pattern matches no layer with weights, or nothing would be left
            to train.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    for pattern in patterns:
        found = fnmatch.filter(layers, pattern)
        if not found:
            kinds = dict.fromkeys(re.sub(r"\d+", "*", name) for name in layers)
            near = did_you_mean(pattern, dict.fromkeys((*layers, *kinds)))
            raise ConfigurationError(
                f"optimizer.freeze: {pattern!r} matches no layer of {model.name} that has weights."
                f"{near} Its layers are {', '.join(kinds)}."
            )
        for name in found:
            layers[name].trainable = False
    if patterns and not model.trainable_variables:
        raise ConfigurationError(
            f"optimizer.freeze must leave a layer to train, such as the head. Received: "
            f"{patterns!r}, which match all layers of {model.name}."
        )


def rate_scales(
    config: ModelConfig, variables: list[keras.Variable], layer_decay: float | None
) -> tuple[float, ...] | None:
    """Returns what multiplies the learning rate of each variable; None: nothing does.

    The head, and what else follows the last block, has the whole rate, the last block `layer_decay`
    of it, the block before that `layer_decay` of that, and so on down to the embedding, which with
    class token and positions is one level below the first block. A TokenLearner has the rate of the
    block that it feeds, a TokenFuser that of the block whose tokens it takes.

    Reference:
        Bao et al. 2021, arXiv 2106.08254 (BEiT); He et al. 2021, arXiv 2111.06377 (MAE).
    """
    if layer_decay is None or layer_decay == 1:
        return None
    head = _num_blocks(config) + 1
    levels = (_level(variable.path.partition("/")[0], config, head) for variable in variables)
    return tuple(layer_decay ** (head - level) for level in levels)


def _num_blocks(config: ModelConfig) -> int:
    return sum(config.depths) if isinstance(config, X2Plus1DConfig) else config.depth


def _level(name: str, config: ModelConfig, head: int) -> int:
    """Returns the level of a layer: 0 the embedding, 1 the first block, `head` the head."""
    if _EMBEDDING.match(name):
        return 0
    if isinstance(config, X2Plus1DConfig):
        first_with_tokens = sum(config.depths) - config.module_blocks
        if match := _CONVOLUTIONAL_BLOCK.match(name):
            return 1 + sum(config.depths[: int(match[1])]) + int(match[2])
    else:
        first_with_tokens = config.token_learner_block or 0
        if match := _VIT_BLOCK.fullmatch(name):
            return 1 + int(match[1])
    if match := _AROUND_TOKENS.fullmatch(name):
        return 1 + first_with_tokens + int(match[1])
    return head
