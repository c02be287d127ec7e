"""Builds the functional Keras model of a configuration, for images and video."""

from typing import Any

import keras

from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.common import LAYER_NORM_EPSILON
from tokenlearner_keras.layers.common import check_channels_last
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.patch_merger import PatchMerger
from tokenlearner_keras.layers.pooling import AttentionPooling
from tokenlearner_keras.layers.pooling import GridPooling
from tokenlearner_keras.layers.pooling import TokenPooling
from tokenlearner_keras.layers.position_embedding import ClassToken
from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.layers.reshaping import FoldGrid
from tokenlearner_keras.layers.reshaping import FrameSampling
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.layers.token_learner import TokenLearner
from tokenlearner_keras.layers.token_learner_mha import TokenLearnerMHA
from tokenlearner_keras.layers.token_learner_v11 import TokenLearnerV11
from tokenlearner_keras.layers.token_merging import TokenMerging
from tokenlearner_keras.models.config import VisionTransformerConfig
from tokenlearner_keras.models.model import VisionTransformer
from tokenlearner_keras.models.model import apply_head
from tokenlearner_keras.models.model import full_precision
from tokenlearner_keras.models.x2plus1d import build_x2plus1d
from tokenlearner_keras.models.x2plus1d_config import X2Plus1DConfig


def build_model(
    config: VisionTransformerConfig | X2Plus1DConfig, name: str = "vision_transformer"
) -> VisionTransformer:
    """Builds the model that a configuration describes, with fresh weights.

    Args:
        config: The configuration, of a Vision Transformer or of a convolutional video model.
        name: Name of the Keras model.

    Returns:
        A functional model from float images `(batch, height, width, channels)` or videos
        `(batch, time, height, width, channels)` to logits `(batch, num_classes)` in float32. If
        `config.classifier` is None, to the tokens `(batch, tokens, width)` or, of a convolutional
        model, to the positions `(batch, time, height / 32, width / 32, channels)`. The dtype policy
        in force applies.

    Reference:
        scenic `projects/token_learner/model.py`, `TokenLearnerViT`; for convolutional models Ryoo
        et al. 2021, arXiv 2106.11297, on Charades and AViD, and Feichtenhofer 2020, arXiv
        2004.04730.
    """
    check_channels_last(len(getattr(config, "input_shape", ())) + 1, "build_model")
    if isinstance(config, X2Plus1DConfig):
        return build_x2plus1d(config, name)
    if not isinstance(config, VisionTransformerConfig):
        raise ValueError(
            "build_model expects a tk.VisionTransformerConfig or a tk.X2Plus1DConfig. Received: "
            f"{config!r}. A dictionary becomes one by VisionTransformerConfig.from_dict."
        )
    inputs = keras.Input(config.input_shape, name="images")
    x, grid = _embed(inputs, config)
    x = _encode(x, grid, config)
    return VisionTransformer(inputs, _classify(x, config), name=name)


def _embed(inputs: Any, config: VisionTransformerConfig) -> tuple[Any, "_Grid"]:
    """Returns tokens (B, [1 +] positions, D) with positions added, and their grid."""
    x = inputs
    if config.sample_frames is not None:
        x = FrameSampling(config.sample_frames, name="frame_sampling")(x)
    x = PatchEmbedding(
        config.width,
        config.patch_size,
        config.tubelet_size,
        config.tubelet_inflation,
        name="embedding",
    )(x)
    sizes = tuple(x.shape[1:-1])
    grid = _Grid(sizes, prefix=1 if config.classifier == "token" else 0)
    x = keras.layers.Reshape((-1, config.width), name="to_sequence")(x)
    if grid.prefix:
        x = ClassToken(name="class_token")(x)
    x = PositionEmbedding(sizes, grid.prefix, name="position_embedding")(x)
    if config.dropout:
        x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    return x, grid


def _encode(x: Any, grid: "_Grid", config: VisionTransformerConfig) -> Any:
    """Runs the encoder blocks, with TokenLearner where the configuration says."""
    pooling = dict(config.pooling)
    first = config.token_learner_block
    sizes = None
    for index in range(config.depth):
        if index in pooling:
            x, grid = _pool(x, grid, pooling[index], index)
        block = _encoder_block(index, config)
        if first is None or index < first:
            x = block(x)
        elif config.token_fuser:
            x = _learn_and_fuse(x, grid, block, index - first, config)
        elif config.token_learner == "merging":
            x, sizes = _merge(x, sizes, grid, index - first, config)
            x = block(x)
        elif index == first:
            x = block(_learn(x, grid, config))
        else:
            x = block(x)
    return keras.layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, name="encoder_norm")(x)


class _Grid:
    """How a sequence of tokens folds into a grid, with tokens in front apart."""

    def __init__(self, sizes: tuple[int, ...], prefix: int) -> None:
        self.sizes = sizes
        self.prefix = prefix

    def split(self, x: Any) -> tuple[Any, Any]:
        """Returns the tokens in front (None if there are none) and the grid."""
        front, rest = self.cut(x)
        return front, FoldGrid(self.sizes)(rest)

    def cut(self, x: Any) -> tuple[Any, Any]:
        """Returns the tokens in front (None if there are none) and the others."""
        if not self.prefix:
            return None, x
        return x[:, : self.prefix], x[:, self.prefix :]

    @staticmethod
    def join(front: Any, x: Any) -> Any:
        """Flattens all axes between batch and channels and puts the front back."""
        if len(x.shape) > 3:
            x = keras.layers.Reshape((-1, x.shape[-1]))(x)
        if front is None:
            return x
        return keras.layers.Concatenate(axis=1)([front, x])


def _pool(x: Any, grid: _Grid, target: tuple[int, int], index: int) -> tuple[Any, _Grid]:
    front, positions = grid.split(x)
    pooled = GridPooling(target, name=f"grid_pooling_{index}")(positions)
    return grid.join(front, pooled), _Grid((*grid.sizes[:-2], *target), grid.prefix)


def _learn(x: Any, grid: _Grid, config: VisionTransformerConfig) -> Any:
    front, positions = grid.split(x)
    return grid.join(front, _token_learner(0, config)(positions))


def _learn_and_fuse(
    x: Any,
    grid: _Grid,
    block: EncoderBlock,
    number: int,
    config: VisionTransformerConfig,
) -> Any:
    """TokenLearner, block, TokenFuser and the residual around all three."""
    front, positions = grid.split(x)
    tokens = _token_learner(number, config)(positions)  # (B, [T,] S, D)
    encoded = block(grid.join(front, tokens))
    front, mixed = grid.cut(encoded)
    if len(tokens.shape) == 4:
        mixed = keras.layers.Reshape((-1, *tokens.shape[-2:]))(mixed)  # (B, T, S, D)
    fused = TokenFuser(
        config.fuser_bottleneck_dim,
        dropout=config.dropout,
        mixing=config.fuser_mixing,
        name=f"token_fuser_{number}",
    )(mixed, positions)
    return grid.join(front, keras.layers.Add()([fused, positions]))


def _merge(
    x: Any, sizes: Any, grid: _Grid, number: int, config: VisionTransformerConfig
) -> tuple[Any, Any]:
    """Returns fewer tokens and how many positions are in each; takes those of the merging before.

    Tokens of different frames are merged only without `per_frame`.
    """
    num_merged = config.num_merged[number]
    if not num_merged:
        return x, sizes
    front, tokens = grid.cut(x)
    if config.per_frame and len(grid.sizes) == 3:
        frames = grid.sizes[0]
        tokens = FoldGrid((frames, tokens.shape[1] // frames))(tokens)  # (B, T, N, D)
    merging = TokenMerging(num_merged, name=f"token_merging_{number}")
    tokens, sizes = merging(tokens, sizes=sizes, return_sizes=True)
    return grid.join(front, tokens), sizes


def _encoder_block(index: int, config: VisionTransformerConfig) -> EncoderBlock:
    return EncoderBlock(
        config.num_heads,
        config.mlp_dim,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        stochastic_depth=config.stochastic_depth * index / max(config.depth - 1, 1),
        remat=config.remat,
        attention=config.attention,
        name=f"encoder_block_{index}",
    )


def _token_learner(number: int, config: VisionTransformerConfig) -> BaseTokenLearner:
    common: dict[str, Any] = {"per_frame": config.per_frame, "name": f"token_learner_{number}"}
    if config.token_learner == "v1.0":
        return TokenLearner(config.num_tokens, config.token_learner_pooling, **common)
    if config.token_learner == "mha":
        heads, dropout = config.num_heads, config.attention_dropout
        return TokenLearnerMHA(config.num_tokens, heads, dropout, **common)
    if config.token_learner == "patch_merger":
        return PatchMerger(config.num_tokens, **common)
    return TokenLearnerV11(config.num_tokens, config.bottleneck_dim, config.dropout, **common)


def _classify(x: Any, config: VisionTransformerConfig) -> Any:
    """Returns float32 logits, or the tokens if there is no classifier."""
    if config.classifier is None:
        return x
    if config.classifier == "map":
        x = AttentionPooling(config.num_heads, config.mlp_dim, config.attention, name="map_head")(x)
    else:
        x = TokenPooling(config.classifier, dtype=full_precision(), name="pooling")(x)
    return apply_head(x, config, "tanh", "lecun_normal")
