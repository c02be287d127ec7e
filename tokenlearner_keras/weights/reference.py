"""Loads parameter trees of the reference implementation (Flax names)."""

import difflib
from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.mlp import MlpBlock
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.patch_merger import PatchMerger
from tokenlearner_keras.layers.pooling import AttentionPooling
from tokenlearner_keras.layers.position_embedding import ClassToken
from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.layers.token_learner import TokenLearner
from tokenlearner_keras.layers.token_learner_mha import TokenLearnerMHA
from tokenlearner_keras.layers.token_learner_v11 import TokenLearnerV11


class Parameter(NamedTuple):
    """A variable and the shape that the reference gives it.

    They differ for attention only: the reference keeps the heads apart, `(D, heads,
    dim)` or `(heads, dim, D)`, where we have `(D, D)`; the entries are in the same order.
    """

    variable: keras.Variable
    shape: tuple[int, ...]


Parameters = Iterator[tuple[str, Parameter]]


def load_reference_params(
    target: keras.layers.Layer, params: Mapping[str, Any], strict: bool = True
) -> None:
    """Copies parameters of the reference implementation into a layer or model.

    Nothing is written unless everything fits.

    Args:
        target: A built TokenLearner, TokenLearnerV11, TokenLearnerMHA, TokenFuser or encoder layer,
            or a model from `tk.build_model`. A PatchMerger, which the reference lacks, has names
            like its layers'; a TokenMerging has no parameters.
        params: Arrays by the reference's names, flat (`{"a/b/kernel": array}`) or nested
            (`{"a": {"b": {"kernel": array}}}`).
        strict: If False, parameters that one side lacks are skipped; shapes must still fit.

    Raises:
        ValueError: If the target is not built or not of this package, a shape differs, or (strict)
            a parameter is missing or left over; all are listed.

    Reference:
        scenic `projects/token_learner/model.py`; no kernel is transposed.
    """
    if not isinstance(params, Mapping):
        raise ValueError(
            "`params` must be a mapping from names to arrays or to further mappings. Received: "
            f"{type(params).__name__}."
        )
    if set(params) == {"params"} and isinstance(params["params"], Mapping):
        params = params["params"]  # as Flax wraps them
    arrays = dict(_flatten(params))
    parameters = reference_parameters(target)
    problems = _shape_problems(arrays, parameters)
    if strict:
        problems += _name_problems(set(arrays), set(parameters))
    if problems:
        raise ValueError(f"The parameters do not fit {target.name!r}:\n  " + "\n  ".join(problems))
    for name in parameters.keys() & arrays.keys():
        variable = parameters[name].variable
        variable.assign(np.reshape(arrays[name], variable.shape))


def reference_parameters(target: keras.layers.Layer) -> dict[str, Parameter]:
    """Returns the variables of a layer or model by the reference's names, with its shapes."""
    if not isinstance(target, keras.layers.Layer):
        raise ValueError(
            f"Expected a layer or model as the target. Received: {type(target).__name__}."
        )
    if not target.built:
        raise ValueError(
            f"{target.name!r} is not built, so it has no weights yet. Call it once on an"
            " input, or call its build method with the input's shape."
        )
    named = dict(_model(target) if isinstance(target, keras.Model) else _layer(target))
    known = {id(parameter.variable) for parameter in named.values()}
    unnamed = [v for v in target.trainable_variables if id(v) not in known]
    if unnamed or not named:
        raise ValueError(
            f"{target.name!r} of type {type(target).__name__} holds weights that the reference "
            f"has no name for, such as {[v.path for v in unnamed[:2]]}. Reference parameters "
            "load into this package's layers and the models of tk.build_model and "
            "tk.create_model; of a model that holds one of these, pass the inner model."
        )
    return named


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", np.asarray(value)


def _shape_problems(arrays: dict[str, np.ndarray], parameters: dict[str, Parameter]) -> list[str]:
    return [
        f"{name}: expected shape {parameters[name].shape}, received {arrays[name].shape}"
        for name in sorted(parameters.keys() & arrays.keys())
        if arrays[name].shape != parameters[name].shape
    ]


def _name_problems(received: set[str], expected: set[str]) -> list[str]:
    missing, left_over = sorted(expected - received), sorted(received - expected)
    problems = [f"{name}: missing" for name in missing]
    for name in left_over:
        near = difflib.get_close_matches(name, missing, n=1)
        hint = f" (is it {near[0]}?)" if near else ""
        problems.append(f"{name}: left over, the model has no such parameter{hint}")
    return problems


def _prefixed(prefix: str, parameters: Parameters) -> Parameters:
    for name, parameter in parameters:
        yield f"{prefix}/{name}", parameter


def _plain(variable: keras.Variable) -> Parameter:
    return Parameter(variable, tuple(variable.shape))


def _layer(layer: keras.layers.Layer) -> Parameters:
    if isinstance(layer, MultiHeadAttention):
        yield from _attention(layer)
    for kind, parts in _PARTS.items():
        if isinstance(layer, kind):
            for name, attribute in parts.items():
                # A bias or a norm that the layer goes without is None or not there.
                yield from _part(name, getattr(layer, attribute, None))


def _part(name: str, part: Any) -> Parameters:
    if isinstance(part, keras.layers.Layer):
        yield from _prefixed(name, _layer(part)) if name else _layer(part)
    elif isinstance(part, list):
        for index, each in enumerate(part):
            yield from _part(name.format(index), each)
    elif part is not None:
        yield name, _plain(part)


def _attention(layer: MultiHeadAttention) -> Parameters:
    heads = (layer.num_heads, layer.head_dim)
    width = layer.num_heads * layer.head_dim
    for name in ("query", "key", "value"):
        projection = getattr(layer, f"{name}_layer")
        yield f"{name}/kernel", Parameter(projection.kernel, (width, *heads))
        yield f"{name}/bias", Parameter(projection.bias, heads)
    yield "out/kernel", Parameter(layer.output_layer.kernel, (*heads, width))
    yield "out/bias", _plain(layer.output_layer.bias)


def _model(model: keras.Model) -> Parameters:
    """Names by type and order; Dense layers (`head`, `pre_logits`) by their own name."""
    counts: Counter[str] = Counter()
    for layer in model.layers:
        module = _MODULES.get(type(layer))
        if module is not None:
            yield from _prefixed(module.format(counts[module]), _layer(layer))
            counts[module] += 1
        elif isinstance(layer, keras.layers.Dense):
            name = "output_projection" if layer.name == "head" else layer.name
            yield from _prefixed(name, _layer(layer))
        elif isinstance(layer, ClassToken):
            yield from _layer(layer)


_MODULES = {
    PatchEmbedding: "embedding",
    PositionEmbedding: "Transformer/posembed_input",
    EncoderBlock: "Transformer/encoderblock_{}",
    TokenLearner: "Transformer/TokenLearnerModule_{}",
    TokenLearnerV11: "Transformer/TokenLearnerModuleV11_{}",
    TokenLearnerMHA: "Transformer/TokenLearnerMHA_{}",
    PatchMerger: "Transformer/PatchMerger_{}",
    TokenFuser: "Transformer/TokenFuser_{}",
    keras.layers.LayerNormalization: "Transformer/encoder_norm",
    AttentionPooling: "MAPHead_0",
}
#: The reference's name of each part of a layer, and the part's attribute in the layer.
_PARTS: dict[Any, dict[str, str]] = {
    keras.layers.LayerNormalization: {"scale": "gamma", "bias": "beta"},
    (keras.layers.Dense, keras.layers.Conv2D, keras.layers.Conv3D): {
        "kernel": "kernel",
        "bias": "bias",
    },
    PatchEmbedding: {"": "projection"},
    PositionEmbedding: {"pos_embedding": "table"},
    ClassToken: {"cls": "token"},
    MlpBlock: {"Dense_0": "hidden_layer", "Dense_1": "output_layer"},
    EncoderBlock: {
        "LayerNorm_0": "attention_norm",
        "MultiHeadDotProductAttention_0": "attention",
        "LayerNorm_1": "mlp_norm",
        "MlpBlock_0": "mlp",
    },
    TokenLearner: {"LayerNorm_0": "norm", "Conv_{}": "convolutions"},
    TokenLearnerV11: {"LayerNorm_0": "norm", "token_masking": "token_masking"},
    TokenLearnerMHA: {"tokens": "tokens", "attn": "attention"},
    PatchMerger: {"LayerNorm_0": "norm", "queries": "queries"},
    TokenFuser: {
        "fuser_mix_norm1": "mix_norm1",
        "fuser_mix_norm2": "mix_norm2",
        "Dense_0": "mixing_layer",
        "LayerNorm_0": "original_norm",
        "token_masking": "token_masking",
    },
    AttentionPooling: {
        "probe": "probe",
        "MultiHeadDotProductAttention_0": "attention",
        "LayerNorm_0": "norm",
        "MlpBlock_0": "mlp",
    },
}
