"""Costs equal the closed forms and the paper's figures."""

import math
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tokenlearner_keras.graph import without_weights


def _module_macs(layer: keras.layers.Layer, side: int, width: int) -> int:
    inputs = keras.Input((side, side, width))
    return tk.count_macs(keras.Model(inputs, layer(inputs)))


def _fuser_macs(fuser: tk.TokenFuser, tokens: int, side: int, width: int) -> int:
    inputs = [keras.Input((tokens, width)), keras.Input((side, side, width))]
    return tk.count_macs(keras.Model(inputs, fuser(*inputs)))


@pytest.mark.parametrize(
    ("tokens", "v10", "v11", "linear", "mlp"),
    [
        (8, 12_380_928, 10_938_368, 2_457_600, 10_987_520),
        (16, 25_439_232, 12_242_944, 5_013_504, 12_439_552),
    ],
)
def test_macs_of_the_modules(tokens: int, v10: int, v11: int, linear: int, mlp: int) -> None:
    assert _module_macs(tk.TokenLearner(tokens), 14, 768) == v10
    assert _module_macs(tk.TokenLearnerV11(tokens), 14, 768) == v11
    assert _fuser_macs(tk.TokenFuser(bottleneck_dim=None), tokens, 14, 768) == linear
    assert _fuser_macs(tk.TokenFuser(), tokens, 14, 768) == mlp


@pytest.mark.parametrize(
    ("layer", "width", "count"),
    [
        (tk.TokenLearner(8), 768, 58_560),
        (tk.TokenLearner(16), 768, 119_040),
        (tk.TokenLearner(8), 192, 15_936),
        (tk.TokenLearner(8), 384, 30_144),
        (tk.TokenLearnerV11(8), 768, 51_272),
        (tk.TokenLearnerV11(16), 768, 51_792),
        (tk.TokenLearnerV11(8), 192, 13_256),
        (tk.TokenLearnerV11(8), 384, 25_928),
    ],
)
def test_parameters_of_the_tokenizers(layer: keras.layers.Layer, width: int, count: int) -> None:
    layer.build((None, 14, 14, width))
    assert layer.count_params() == count


@pytest.mark.parametrize(
    ("fuser", "tokens", "count"),
    [
        (tk.TokenFuser(), 8, 54_416),
        (tk.TokenFuser(), 16, 55_136),
        (tk.TokenFuser(bottleneck_dim=None), 8, 10_824),
        (tk.TokenFuser(bottleneck_dim=None), 16, 17_168),
    ],
)
def test_parameters_of_the_fuser(fuser: tk.TokenFuser, tokens: int, count: int) -> None:
    fuser.build((None, tokens, 768), (None, 196, 768))
    assert fuser.count_params() == count


def test_layers_of_keras_and_nested_models_are_counted() -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(x)
    inner = keras.Model(inputs, keras.layers.Dense(5)(x))
    assert tk.count_macs(inner) == 64 * 9 * 3 * 4 + 256 * 5
    assert tk.count_macs(keras.Model(inputs, inner(inputs))) == tk.count_macs(inner)


def test_keras_attention_and_sequential_models_are_counted() -> None:
    x = keras.Input((5, 6))
    y = keras.layers.MultiHeadAttention(2, 4)(x, x)
    # Query, key and value 6 -> 8, output 8 -> 6, and two products over 5 x 5 positions.
    assert tk.count_macs(keras.Model(x, y)) == 4 * 5 * 6 * 8 + 2 * 5 * 5 * 8
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)])
    assert tk.count_macs(model) == 21


def test_products_without_weights_are_not_counted_as_nothing() -> None:
    x = keras.Input((5, 6))
    for y in (
        keras.layers.Attention()([x, x]),
        keras.ops.tensordot(x, np.ones((6, 3), "float32"), 1),
        keras.ops.einsum("...c,cd->...d", x, np.ones((6, 3), "float32")),
    ):
        with pytest.raises(ValueError, match="is not known"):
            tk.count_macs(keras.Model(x, y))


def test_products_of_operations_are_counted() -> None:
    x, heads = keras.Input((5, 6)), keras.Input((5, 2, 4))
    kernel = np.ones((6, 3), "float32")
    cases = [
        (x, keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1))), 5 * 5 * 6),
        (x, x @ kernel, 5 * 6 * 3),
        (x, keras.ops.einsum("bnc,cd->bnd", x, kernel), 5 * 6 * 3),
        (x, keras.ops.einsum("bnc,bmc->bnm", x, x), 5 * 5 * 6),
        (heads, keras.ops.dot_product_attention(heads, heads, heads), 2 * 2 * 5 * 5 * 4),
    ]
    for inputs, outputs, macs in cases:
        assert tk.count_macs(keras.Model(inputs, outputs)) == macs


class Windows(keras.layers.Layer):
    """Folds windows of three positions into the batch, and does there what it is given."""

    def __init__(self, work: Any) -> None:
        super().__init__()
        self.norm = keras.layers.LayerNormalization()
        self.work = work

    def call(self, x: Any) -> Any:
        folded = keras.ops.reshape(self.norm(x), (-1, 3, x.shape[-1]))
        return keras.ops.reshape(self.work(folded), keras.ops.shape(x))


@pytest.mark.parametrize("batch_size", [None, 2])
def test_layers_of_others_are_counted_by_what_they_call(batch_size: int | None) -> None:
    x = keras.Input((12, 8), batch_size)
    attention = keras.layers.MultiHeadAttention(2, 4)
    inner = Windows(keras.layers.Dense(8))
    for layer, macs in (
        (Windows(keras.layers.Dense(8)), 12 * 8 * 8),
        (Windows(lambda y: attention(y, y)), 4 * 12 * 8 * 8 + 2 * 4 * 3 * 3 * 8),
        (Windows(lambda y: y @ keras.ops.ones((8, 8))), 12 * 8 * 8),
        (Windows(lambda y: inner(y)), 12 * 8 * 8),
    ):
        model = keras.Model(x, layer(x))
        calls = [len(each._inbound_nodes) for each in layer._flatten_layers()]
        assert tk.count_macs(model) == macs
        assert [len(each._inbound_nodes) for each in layer._flatten_layers()] == calls
    sequence = keras.Input((6, 8))
    hidden = Windows(keras.layers.LSTM(8, return_sequences=True))
    with pytest.raises(ValueError, match="'lstm.* of type LSTM is not known"):
        tk.count_macs(keras.Model(sequence, hidden(sequence)))


def test_a_layer_may_count_its_own() -> None:
    class Scale(keras.layers.Layer):
        def build(self, input_shape: tuple[int | None, ...]) -> None:
            self.scale = self.add_weight(shape=(input_shape[-1],), name="scale")

        def call(self, x: Any) -> Any:
            return x * self.scale

        def count_macs(self, input_shape: tuple[int, ...]) -> int:
            return math.prod(input_shape)

    class TwoUses(keras.layers.Dense):
        def count_macs(self, input_shape: tuple[int, ...]) -> int:
            return 2 * math.prod(input_shape) * self.units

    x = keras.Input((5, 6))
    assert tk.count_macs(keras.Model(x, Scale()(x))) == 30
    assert tk.count_macs(keras.Model(x, TwoUses(3)(x))) == 180


def test_unknown_sizes_and_layers_are_refused() -> None:
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, padding="same")(inputs))
    with pytest.raises(ValueError, match="unknown size.*input_shape"):
        tk.count_macs(model)
    assert tk.count_macs(model, (8, 8, 3)) == 64 * 9 * 3 * 4
    sequence = keras.Input((4, 3))
    with pytest.raises(ValueError, match="'lstm.*not known|LSTM is not known"):
        tk.count_macs(keras.Model(sequence, keras.layers.LSTM(2)(sequence)))


def test_keras_attention_with_masks_keys_and_axes() -> None:
    layer, heads, key_dim, width = keras.layers.MultiHeadAttention(2, 4), 2, 4, 8
    query, value = keras.Input((10, width)), keras.Input((6, width))
    mask = keras.Input((10, 6), dtype="bool")
    model = keras.Model([query, value, mask], layer(query, value, attention_mask=mask))
    projections = 2 * (10 + 6) * width * heads * key_dim
    assert tk.count_macs(model) == projections + 2 * 10 * 6 * heads * key_dim
    grid = keras.Input((4, 5, width))
    for axes, pairs in ((None, 20 * 20), ((1, 2), 20 * 20), ((2,), 20 * 5)):
        attention = keras.layers.MultiHeadAttention(2, 4, attention_axes=axes)
        macs = 4 * 20 * width * heads * key_dim + 2 * pairs * heads * key_dim
        assert tk.count_macs(keras.Model(grid, attention(grid, grid))) == macs


def test_depthwise_and_separable_convolutions_are_counted() -> None:
    layers, image, row = keras.layers, keras.Input((8, 6, 4)), keras.Input((8, 4))
    cases = [
        (image, layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), 8 * 6 * 8 * 9),
        (image, layers.DepthwiseConv2D(3, strides=2), 3 * 2 * 4 * 9),
        (image, layers.SeparableConv2D(5, 3, depth_multiplier=2), 6 * 4 * (9 * 8 + 8 * 5)),
        (row, layers.DepthwiseConv1D(3), 6 * 4 * 3),
        (row, layers.SeparableConv1D(5, 3), 6 * (3 * 4 + 4 * 5)),
    ]
    for inputs, layer, macs in cases:
        assert tk.count_macs(keras.Model(inputs, layer(inputs))) == macs


# Billions, to the last digit published: `_ops` in the weights' metadata of torchvision 0.20
# (torchvision/models), which counts multiply-adds; MobileNet by Howard et al. 2017,
# arXiv 1704.04861, table 4. (The ResNets of torchvision and of Keras differ in their strides.)
PUBLISHED = {
    "ConvNeXtTiny": "4.456",  # convnext.py, ConvNeXt_Tiny_Weights
    "DenseNet121": "2.834",  # densenet.py, DenseNet121_Weights
    "EfficientNetB0": "0.386",  # efficientnet.py, EfficientNet_B0_Weights
    "InceptionV3": "5.713",  # inception.py, Inception_V3_Weights
    "MobileNet": "0.569",  # "1.0 MobileNet-224"
    "MobileNetV2": "0.301",  # mobilenetv2.py, MobileNet_V2_Weights
    "VGG16": "15.47",  # vgg.py, VGG16_Weights
    "VGG19": "19.632",  # vgg.py, VGG19_Weights
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_of_keras_applications(name: str) -> None:
    digits = len(PUBLISHED[name].partition(".")[2])
    with without_weights():
        model = getattr(keras.applications, name)(weights=None)
        assert f"{tk.count_macs(model) / 1e9:.{digits}f}" == PUBLISHED[name]


@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, value in vars(keras.applications).items()
        if callable(value) and name not in PUBLISHED
    ],
)
def test_every_classifier_of_keras_applications_is_counted(name: str) -> None:
    with without_weights():
        model = getattr(keras.applications, name)(weights=None)
        known = None not in model.input_shape[1:]
        # Its products are at least one a weight of a kernel.
        macs = tk.count_macs(model, None if known else (224, 224, 3))
        assert macs > 0.9 * model.count_params()


def test_a_nested_model_of_several_inputs_is_counted() -> None:
    inputs = [keras.Input((3,)), keras.Input((5,))]
    x = keras.layers.Concatenate()([keras.layers.Dense(4)(each) for each in inputs])
    inner = keras.Model(inputs, keras.layers.Dense(2)(x))
    again = [keras.Input((3,)), keras.Input((5,))]
    assert tk.count_macs(keras.Model(again, inner(again))) == tk.count_macs(inner) == 48


@pytest.mark.parametrize(
    ("make", "macs", "parameters"),
    [
        # For each of 3 x 20 positions four convolutions, of 6 and three times 4 channels, and sums.
        (tk.TokenLearner, 60 * (9 * 4 * (6 + 3 * 4) + 4 * 6), 9 * 4 * (6 + 3 * 4) + 2 * 6),
        (tk.TokenLearnerV11, 60 * (64 * (6 + 4) + 4 * 6), 64 * 6 + 64 + 4 * 64 + 4 + 2 * 6),
        # Four projections of tokens or positions, and two products between them.
        (tk.TokenLearnerMHA, 2 * (4 + 60) * 36 + 2 * 4 * 60 * 6, 4 * 42 + 4 * 6),
        (tk.PatchMerger, 60 * 2 * 4 * 6, 4 * 6 + 2 * 6),
    ],
)
def test_tokens_of_a_clip_by_hand(make: Any, macs: int, parameters: int) -> None:
    inputs, heads = keras.Input((3, 4, 5, 6)), {}
    if make is tk.TokenLearnerMHA:
        heads = {"num_heads": 2}
    model = keras.Model(inputs, make(4, per_frame=False, **heads)(inputs))
    assert tk.count_macs(model) == macs
    assert model.count_params() == parameters


def test_models_of_clips_and_of_merging_by_hand() -> None:
    sizes = {"width": 8, "num_heads": 2, "mlp_dim": 12, "num_classes": 3, "image_size": 32}

    def block(tokens: int) -> int:
        return 4 * tokens * 64 + 2 * tokens**2 * 8 + 2 * tokens * 8 * 12

    def merging(tokens: int, left: int) -> int:
        return (tokens // 2) * (tokens - tokens // 2) * 8 + left * tokens * (8 + 1)

    clips = tk.create_model("vivit_ti8x2_d3_tl5at1_st_pm", num_frames=4, **sizes)
    embedding = 2 * 16 * (2 * 8 * 8 * 3) * 8
    learned = 32 * 2 * 5 * 8
    assert tk.count_macs(clips) == embedding + block(32) + learned + 2 * block(5) + 3 * 8
    merged = tk.create_model("vit_ti8_d3_tl5at1_merge", **sizes)
    expected = 16 * (8 * 8 * 3) * 8 + block(16) + merging(16, 10) + block(10)
    assert tk.count_macs(merged) == expected + merging(10, 5) + block(5) + 3 * 8
    # The positions of each of two frames, and one class token.
    frames = tk.create_model(
        "vivit_ti8x2_d3_tl5at1_merge", num_frames=4, classifier="token", **sizes
    )
    expected = embedding + block(33) + 2 * merging(16, 10) + block(21) + 2 * merging(10, 5)
    assert tk.count_macs(frames) == expected + block(11) + 3 * 8


def test_a_fuser_of_clips_by_hand() -> None:
    tokens, original = keras.Input((5, 8)), keras.Input((3, 2, 4, 8))
    fused = tk.TokenFuser(bottleneck_dim=None)(tokens, original)
    # Mixing, the linear mask of each position, and what the position gets of each token.
    assert tk.count_macs(keras.Model([tokens, original], fused)) == 25 * 8 + 2 * 24 * 5 * 8
