"""Copies weights between models of this package, also from images to videos."""

from typing import Any

import keras
import numpy as np

from tokenlearner_keras.graph import functional_graph
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.batch_normalization import BatchNormalization
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.patch_embedding import adapt_channels
from tokenlearner_keras.layers.patch_embedding import inflate_kernel
from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.weights.report import LoadReport
from tokenlearner_keras.weights.report import first_problems
from tokenlearner_keras.weights.resize import fit_table

_HEADS = ("pre_logits/", "head/")
_SHOWN_PROBLEMS = 5
Pairs = list[tuple[Any, Any]]
Variables = dict[str, keras.Variable]


def transfer_weights(model: keras.Model, source: keras.Model) -> LoadReport:
    """Gives a model the weights of another one, as far as both have them.

    Parameters go by name. The position table is interpolated to the model's grid; that of an image
    model is repeated for every frame of a video, and its patch kernel is inflated to tubelets as
    the model's `tubelet_inflation` says, else into the central frame. For other input channels the
    patch kernel is adapted as in `tk.load_npz`. What the source lacks, such as a TokenLearner, and
    a head for other classes stay as they are. Nothing is written unless everything fits.

    A video model with an image model's weights gives a still video the logits of its image: all
    frames have the same tokens, and attention over repeated tokens is that over one of each. A
    class token, which is not repeated, the classifier `"gsp"`, which sums over the frames, and of
    the models with tokens of the whole clip (`per_frame=False`) those that sum (v1.0) or merge are
    the exceptions.

    Args:
        model: The model that receives the weights.
        source: A model of the same width, depth, heads, patches and tokens, for images or videos of
            any size; of images if `model` is one of images. If both have a TokenLearner, it is of
            the same version and pooling and at the same block. For a convolutional video model
            another one.

    Returns:
        What became of each parameter, by the variables' paths.

    Raises:
        ValueError: If the two do not fit; `model` is unchanged then.

    Reference:
        Ryoo et al. 2021, arXiv 2106.11297, on video: transformer and TokenLearner of an image
        model; Arnab et al. 2021, arXiv 2103.15691, section 3.4.
    """
    target_graph = functional_graph(model, "transfer_weights")
    source_graph = functional_graph(source, "transfer_weights")
    _check_kinds(target_graph, source_graph)
    ours, theirs = _parameters(target_graph), _parameters(source_graph)
    common = ours.keys() & theirs.keys()
    if all(name.startswith(_HEADS) for name in common):
        raise ValueError(
            f"the source, {source.name!r}, is another kind of model: it and {model.name!r} have "
            "no layers in common. Choose a model of tk.build_model or tk.create_model."
        )
    pairs = _pairs(target_graph, source_graph)
    adapted = _adapted(pairs)
    shapes = {name: adapted.get(name, theirs[name]).shape for name in common}
    different = {name for name in common if tuple(shapes[name]) != tuple(ours[name].shape)}
    skipped = {name for name in different if name.startswith(_HEADS)}
    # The bias of a head goes with its kernel.
    skipped |= {name for name in common if _layer(name) in map(_layer, skipped)}
    different -= skipped
    problems = [*_depth_problems(target_graph, source_graph), *_layer_problems(pairs)]
    problems += _place_problems(target_graph, source_graph)
    problems += [_shape_problem(name, ours, theirs) for name in sorted(different)]
    if problems:
        raise ValueError(_describe(problems, pairs))
    for name in common - skipped:
        value = adapted[name] if name in adapted else theirs[name]
        ours[name].assign(keras.ops.convert_to_numpy(value))
    return LoadReport(
        loaded=tuple(sorted(common - skipped - adapted.keys())),
        resized=tuple(sorted(adapted)),
        skipped=tuple(sorted(skipped)),
        missing=tuple(sorted(ours.keys() - common)),
        left_over=tuple(sorted(theirs.keys() - common)),
    )


def _parameters(model: keras.Model) -> Variables:
    return {each.path: each for each in model.weights if each.name != "seed_generator_state"}


def _layer(name: str) -> str:
    return name.rpartition("/")[0]


def _pairs(model: keras.Model, source: keras.Model) -> Pairs:
    """Returns the layers that both have by name and that hold weights."""
    others = {layer.name: layer for layer in source.layers if layer.weights}
    return [(layer, others[layer.name]) for layer in model.layers if layer.name in others]


def _check_kinds(model: keras.Model, source: keras.Model) -> None:
    """Raises ValueError if the models are of different kinds, whatever their sizes."""
    if _is_convolutional(model) != _is_convolutional(source):
        raise ValueError(
            f"the source, {source.name!r}, is {_kind(source)}: expected {_kind(model)} like "
            f"{model.name!r}, as the two have no layers in common. Begin with fresh weights, as "
            "the paper does on Charades and AViD, or with a model of the same kind."
        )
    received, expected = tuple(source.inputs[0].shape), tuple(model.inputs[0].shape)
    if len(received) > len(expected):
        raise ValueError(
            f"the source, {source.name!r}, is a model of videos: expected one of images, as "
            f"{model.name!r} takes inputs of shape {expected}. Received one for {received}. "
            "Choose a model of images."
        )


def _is_convolutional(model: keras.Model) -> bool:
    # Of the models of this package, only the convolutional ones normalise over the batch.
    return any(isinstance(layer, BatchNormalization) for layer in model.layers)


def _kind(model: keras.Model) -> str:
    return "a convolutional X(2+1)D model" if _is_convolutional(model) else "a Vision Transformer"


def _adapted(pairs: Pairs) -> dict[str, np.ndarray]:
    """Returns what fits the model in another form only: positions and patch kernels."""
    adapted = {}
    for layer, other in pairs:
        if isinstance(layer, PositionEmbedding) and isinstance(other, PositionEmbedding):
            # A table of another width does not fit in any form.
            if not _same_grid(layer, other) and layer.table.shape[-1] == other.table.shape[-1]:
                adapted[layer.table.path] = _positions(layer, other)
        elif isinstance(layer, PatchEmbedding) and isinstance(other, PatchEmbedding):
            kernel = _patch_kernel(layer, other)
            if kernel is not None:
                adapted[layer.projection.kernel.path] = kernel
    return adapted


def _patch_kernel(layer: PatchEmbedding, other: PatchEmbedding) -> np.ndarray | None:
    """Returns another layer's kernel in the form of this one, None if it has that form."""
    ours, theirs = layer.projection.kernel.shape, other.projection.kernel.shape
    is_inflated = (len(ours), len(theirs)) == (5, 4)
    if not is_inflated and (len(ours) != len(theirs) or ours[-2] == theirs[-2]):
        return None
    kernel = keras.ops.convert_to_numpy(other.projection.kernel)
    if is_inflated:
        kernel = inflate_kernel(kernel, layer.tubelet_size, layer.inflation_of_images)
    return adapt_channels(kernel, ours[-2])


def _same_grid(layer: PositionEmbedding, other: PositionEmbedding) -> bool:
    """Whether the tables mean the same positions; a grid may also be that of one frame."""
    same_frame = layer.grid[-2:] == other.grid[-2:]
    return same_frame and tuple(layer.table.shape) == tuple(other.table.shape)


def _positions(layer: PositionEmbedding, other: PositionEmbedding) -> np.ndarray:
    """Returns another layer's table `(1, prefix + positions, channels)` for this one's grid."""
    rows = keras.ops.convert_to_numpy(other.table)[0, other.num_prefix_tokens :]
    rows = fit_table(rows, other.grid, layer.grid)
    if layer.num_prefix_tokens:
        front = other if other.num_prefix_tokens else layer
        table = keras.ops.convert_to_numpy(front.table)
        rows = np.concatenate([table[0, : front.num_prefix_tokens], rows])
    return rows[None]


def _shape_problem(name: str, ours: Variables, theirs: Variables) -> str:
    expected, received = tuple(ours[name].shape), tuple(theirs[name].shape)
    return f"{name}: expected shape {expected}, received {received}"


def _depth_problems(model: keras.Model, source: keras.Model) -> list[str]:
    expected, received = (
        sum(isinstance(layer, EncoderBlock) for layer in each.layers) for each in (model, source)
    )
    if expected == received:
        return []
    return [f"encoder blocks: expected {expected}, received {received}"]


def _place_problems(model: keras.Model, source: keras.Model) -> list[str]:
    """Lists the TokenLearners that stand before other blocks, where they see other features."""
    ours, theirs = _blocks_before_token_learners(model), _blocks_before_token_learners(source)
    return [
        f"{name}: expected before block {ours[name]}, received before block {theirs[name]}"
        for name in ours
        if theirs.get(name, ours[name]) != ours[name]
    ]


def _blocks_before_token_learners(model: keras.Model) -> dict[str, int]:
    """Returns, by name, how many encoder blocks stand before each TokenLearner."""
    places, count = {}, 0
    # In the order of the calls: the blocks are one chain.
    for layer in model.layers:
        if isinstance(layer, BaseTokenLearner):
            places[layer.name] = count
        count += isinstance(layer, EncoderBlock)
    return places


def _layer_problems(pairs: Pairs) -> list[str]:
    """Lists the differences between layers of the same name that shapes may not tell."""
    problems = []
    for layer, other in pairs:
        expected, received = type(layer).__name__, type(other).__name__
        if expected != received:
            problems.append(f"{layer.name}: expected a {expected}, received a {received}")
            continue
        heads = [getattr(each, "num_heads", None) for each in (layer, other)]
        if heads[0] != heads[1]:
            problems.append(f"{layer.name}: expected {heads[0]} heads, received {heads[1]}")
        if isinstance(layer, BaseTokenLearner):
            # Sums and means differ by the number of positions, which later weights rely on.
            poolings = [getattr(each, "pooling", None) for each in (layer, other)]
            if poolings[0] != poolings[1]:
                problems.append(
                    f"{layer.name}: expected pooling {poolings[0]!r}, received {poolings[1]!r}"
                )
        ours, theirs = _parameters(layer).keys(), _parameters(other).keys()
        if ours != theirs:
            names = _listed(ours - theirs), _listed(theirs - ours)
            problems.append(f"{layer.name}: expected {names[0]}, received {names[1]}")
    return problems


def _listed(names: Any) -> str:
    return ", ".join(name.partition("/")[2] for name in sorted(names)) or "nothing more"


def _describe(problems: list[str], pairs: Pairs) -> str:
    """Returns what does not fit and what to do, in one line."""
    hint = (
        "Choose a model of the same width, depth, heads, patches and tokens and with the same "
        "TokenLearner (version, block, pooling), or give the new model those of the source"
    )
    fusers = [each for pair in pairs for each in pair if isinstance(each, TokenFuser)]
    mixes_frames = any(fuser.mixing == "video" for fuser in fusers)
    if mixes_frames and any("/mixing/" in problem for problem in problems):
        hint = (
            "A fuser with mixing='video' has a matrix over the tokens of all frames. Take "
            "fuser_mixing='frame', or a source of as many frames or without a fuser"
        )
    listed = "; ".join(first_problems(problems, _SHOWN_PROBLEMS))
    return f"the source is another model: {listed}. {hint}."
