"""Loads public Vision Transformers (.npz) into the models of this package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from tokenlearner_keras.layers.common import check_choice
from tokenlearner_keras.layers.common import check_grid
from tokenlearner_keras.layers.common import optional
from tokenlearner_keras.layers.patch_embedding import METHODS
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.patch_embedding import adapt_channels
from tokenlearner_keras.layers.patch_embedding import inflate_kernel
from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.weights.npz_file import read_npz
from tokenlearner_keras.weights.reference import Parameter
from tokenlearner_keras.weights.reference import load_reference_params
from tokenlearner_keras.weights.reference import reference_parameters
from tokenlearner_keras.weights.report import LoadReport
from tokenlearner_keras.weights.report import first_problems
from tokenlearner_keras.weights.vit_checkpoint import CLASS_TOKEN
from tokenlearner_keras.weights.vit_checkpoint import EMBEDDING
from tokenlearner_keras.weights.vit_checkpoint import POSITIONS
from tokenlearner_keras.weights.vit_checkpoint import FittedPositions
from tokenlearner_keras.weights.vit_checkpoint import Source
from tokenlearner_keras.weights.vit_checkpoint import count_blocks
from tokenlearner_keras.weights.vit_checkpoint import fit_positions
from tokenlearner_keras.weights.vit_checkpoint import name_arrays

_HEADS = ("pre_logits", "head")
_SHOWN_PROBLEMS = 8


def load_npz(
    model: keras.Model,
    path: str | Path,
    strict: bool = False,
    inflation: str | None = None,
    grid_size: tuple[int, int] | None = None,
) -> LoadReport:
    """Loads a public ViT checkpoint (AugReg, big_vision) into a model.

    A 2-D patch kernel is inflated to tubelets and adapted to the model's input channels: summed for
    one channel, repeated and scaled for more than three. A head for another number of classes is
    skipped.
    TokenLearner and TokenFuser keep their weights unless the file holds some under the reference's
    names. Nothing is written unless everything fits.

    A position table of the model's shape is copied. Any other is assumed to have a square grid, as
    in all public files, unless `grid_size` gives it; it is resized to the model's grid and repeated
    for every frame of a video. Whether a class token's row is among the positions follows from the
    names in the file.

    The public checkpoints take inputs in [-1, 1]. Expect a start for the blocks, not accuracy: the
    authors of TokenLearner found that pre-trained layers around a new TokenLearner do not help.

    Args:
        model: An image or video model of `tk.build_model` or `tk.create_model`, of the checkpoint's
            width, depth, heads and patch size.
        path: The `.npz` file, such as `tk.download_weights` returns.
        strict: If True, anything missing, skipped, resized or left over is an error.
        inflation: How a 2-D kernel fills a tubelet, `"central_frame"` or `"average"`. None: as the
            model's `tubelet_inflation` says, else into the central frame.
        grid_size: Grid `(height, width)` of the positions in the file, in patches. None: the
            model's own if the table has its shape, else a square.

    Returns:
        A report with the names that were loaded, resized, skipped, missing and left over.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a ViT checkpoint or is damaged, the model is not of this
            package, a shape differs, or (strict) the two do not match exactly.

    Example:
        >>> model = tk.create_model("vit_b16_tl8at6", num_classes=10)
        >>> print(tk.load_npz(model, tk.download_weights("vit_b16_augreg_in21k")))

    Reference:
        vision_transformer `vit_jax/checkpoint.py`; Arnab et al. 2021, arXiv 2103.15691, section
        3.4, for video.
    """
    check_choice(inflation, (None, *METHODS), "inflation")
    grid_size = optional(check_grid, grid_size, "grid_size")
    parameters = _parameters(model)
    arrays = read_npz(path)
    try:
        sources, left_over = name_arrays(arrays)
        plan = _plan(sources, parameters, model, inflation, grid_size)
    except ValueError as error:
        raise ValueError(f"{path} {error}. {model.name!r} is unchanged.") from error
    left_over |= {sources[name].key for name in sources.keys() - parameters.keys()}
    report = LoadReport(
        loaded=tuple(sorted(plan.values.keys() - plan.resized)),
        resized=tuple(sorted(plan.resized)),
        skipped=tuple(sorted(plan.skipped)),
        missing=tuple(sorted(parameters.keys() - sources.keys())),
        left_over=tuple(sorted(left_over)),
    )
    if strict and not report.is_exact:
        raise ValueError(
            f"{path} does not match {model.name!r} exactly, as strict=True asks, so the model "
            f"is unchanged:\n{report}"
        )
    values = {_library_name(name): value for name, value in plan.values.items()}
    load_reference_params(model, values, strict=False)
    return report


class _Plan(NamedTuple):
    """What is written: values in the model's shapes, and which names are special."""

    values: dict[str, np.ndarray]
    resized: set[str]
    skipped: set[str]


def _parameters(model: keras.Model) -> dict[str, Parameter]:
    """Returns the model's parameters; the logits' layer has the checkpoints' name for it."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            "load_npz loads into a model of tk.build_model or tk.create_model. Received: "
            f"{model!r}. tk.load_reference_params takes single layers."
        )
    return {
        name.replace("output_projection/", "head/"): parameter
        for name, parameter in reference_parameters(model).items()
    }


def _library_name(name: str) -> str:
    return name.replace("head/", "output_projection/") if name.startswith("head/") else name


def _plan(
    sources: Mapping[str, Source],
    parameters: Mapping[str, Parameter],
    model: keras.Model,
    inflation: str | None,
    grid_size: tuple[int, int] | None,
) -> _Plan:
    """Decides on every parameter that both sides have; ValueError lists all that do not fit."""
    values = {name: _floats(sources[name]) for name in sources if name in parameters}
    resized, problems = set(), []
    frames = _tubelet_frames(sources, parameters)
    if frames is not None:
        method = inflation or _only(model, PatchEmbedding).inflation_of_images
        values[EMBEDDING] = inflate_kernel(values[EMBEDDING], frames, method)
        resized.add(EMBEDDING)
    channels = _input_channels(values, parameters)
    if channels is not None:
        values[EMBEDDING] = adapt_channels(values[EMBEDDING], channels)
        resized.add(EMBEDDING)
    if POSITIONS in values:
        try:
            table = values.pop(POSITIONS)
            fitted = _fit_table(table, sources, model, bool(frames), grid_size)
        except ValueError as error:
            problems.append(f"{POSITIONS}: {error}")
        else:
            values[POSITIONS] = fitted.table
            resized |= {POSITIONS} if fitted.is_resized else set()
    skipped = _heads_of_other_classes(values, parameters)
    values = {name: value for name, value in values.items() if name not in skipped}
    problems += _size_problems(values, sources, parameters)
    if problems:
        listed = "\n  ".join(first_problems(problems, _SHOWN_PROBLEMS))
        raise ValueError(
            f"is the checkpoint of another model:\n  {listed}\n"
            f"{_describe(sources)} Build a model of that size, such as vit_b16 for width 768, "
            "12 blocks and patches of 16, or take another checkpoint"
        )
    return _Plan(values, resized, skipped)


def _tubelet_frames(
    sources: Mapping[str, Source], parameters: Mapping[str, Parameter]
) -> int | None:
    """Returns the frames to inflate the file's 2-D kernel to, None if it stays as it is."""
    expected = parameters[EMBEDDING].shape if EMBEDDING in parameters else ()
    if len(expected) == 5 and sources[EMBEDDING].array.ndim == 4:
        return expected[0]
    return None


def _input_channels(
    values: Mapping[str, np.ndarray], parameters: Mapping[str, Parameter]
) -> int | None:
    """Returns the input channels to adapt the file's kernel to, None if it stays as it is."""
    if EMBEDDING not in values:
        return None
    expected, received = parameters[EMBEDDING].shape, values[EMBEDDING].shape
    if len(expected) != len(received) or expected[-2] == received[-2]:
        return None
    return expected[-2]


def _fit_table(
    table: np.ndarray,
    sources: Mapping[str, Source],
    model: keras.Model,
    is_inflated: bool,
    grid_size: tuple[int, int] | None,
) -> FittedPositions:
    """Fits the position table; the kernels tell whether it is that of a video."""
    covers_time = None
    if is_inflated:
        covers_time = False
    elif sources[EMBEDDING].array.ndim == 5:
        covers_time = True
    layer = _only(model, PositionEmbedding)
    has_class_token = CLASS_TOKEN in sources
    # Files that add positions before the class token have them outside of the Transformer.
    has_class_row = has_class_token and "Transformer/" in sources[POSITIONS].key
    return fit_positions(table, layer, has_class_row, has_class_token, covers_time, grid_size)


def _only(model: keras.Model, kind: type) -> Any:
    """Returns the first layer of a type, of which the models have one."""
    return next(layer for layer in model.layers if isinstance(layer, kind))


def _size_problems(
    values: Mapping[str, np.ndarray],
    sources: Mapping[str, Source],
    parameters: Mapping[str, Parameter],
) -> list[str]:
    problems = []
    expected, received = count_blocks(parameters), count_blocks(sources)
    if expected != received:
        problems.append(f"encoder blocks: expected {expected}, received {received}")
    for name, value in sorted(values.items()):
        shape = parameters[name].shape
        if value.shape != shape:
            problems.append(f"{name}: expected shape {shape}, received {sources[name].array.shape}")
    return problems


def _floats(source: Source) -> np.ndarray:
    """Returns an array as float32. NumPy writes bfloat16 as two bytes without a type."""
    array = source.array
    if array.dtype.kind == "f":
        return array.astype("float32", copy=False)
    if array.dtype == np.dtype("V2"):
        upper_halves = np.ascontiguousarray(array).view("<u2").astype("uint32")
        return (upper_halves << 16).view("float32").reshape(array.shape)
    raise ValueError(
        f"holds {source.key!r} as {array.dtype}, but weights are floats (float16, bfloat16, "
        "float32 or float64)"
    )


def _heads_of_other_classes(
    values: Mapping[str, np.ndarray], parameters: Mapping[str, Parameter]
) -> set[str]:
    """Returns all names of each head that has a layer of another shape."""
    skipped: set[str] = set()
    for head in _HEADS:
        names = {name for name in values if name.startswith(f"{head}/")}
        if any(values[name].shape != parameters[name].shape for name in names):
            skipped |= names
    return skipped


def _describe(sources: Mapping[str, Source]) -> str:
    """Returns the size of the checkpoint's model in a sentence."""
    kernel = sources[EMBEDDING].array.shape
    parts = [f"{count_blocks(sources)} blocks"]
    if len(kernel) >= 4:
        parts = [f"width {kernel[-1]}", *parts, f"patches {kernel[:-2]}"]
    block = "Transformer/encoderblock_0"
    query = sources.get(f"{block}/MultiHeadDotProductAttention_0/query/kernel")
    hidden = sources.get(f"{block}/MlpBlock_0/Dense_0/bias")
    if query is not None and query.array.ndim == 3:
        parts.append(f"{query.array.shape[1]} heads")
    if hidden is not None:
        parts.append(f"MLP width {hidden.array.size}")
    return f"The file holds a ViT of {', '.join(parts)}."
