"""A TokenLearner put into a model that is there already."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import tokenlearner_keras as tk
from tokenlearner_keras.layers.position_embedding import PositionEmbedding
from tokenlearner_keras.layers.token_learner_mha import TokenLearnerMHA
from tokenlearner_keras.models.graph import graph_calls
from tokenlearner_keras.models.insert import insert_token_learner

SMALL: dict[str, Any] = {
    "image_size": (32, 48),
    "width": 16,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_classes": 5,
}


def _random(shape: tuple[Any, ...], batch: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, *shape[1:])).astype("float32")


def _numpy(x: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(x)


def _vit(name: str, **overrides: Any) -> keras.Model:
    model = tk.create_model(name, **{**SMALL, **overrides})
    for layer in model.layers:
        if layer.name == "head":  # It starts at zero: equal outputs shall mean something.
            layer.kernel.assign(_random((2, *layer.kernel.shape))[0])
    return model


def _input_of(model: keras.Model, name: str) -> Any:
    """Returns the tensor that feeds a layer in this model; `layer.input` is the first model's."""
    (node,) = [node for node in graph_calls(model) if node.operation.name == name]
    return node.input_tensors[0]


def _block(x: Any, number: int) -> Any:
    """A pre-norm encoder block of plain Keras layers."""
    y = layers.LayerNormalization(name=f"norm_{number}")(x)
    y = layers.MultiHeadAttention(2, 4, name=f"attention_{number}")(y, y)
    x = layers.Add(name=f"shortcut_{number}")([x, y])
    y = layers.Dense(8, "gelu", name=f"mlp_{number}")(x)
    return x + y


def _encoder(positions: int | None = 12, head: str = "pool") -> keras.Model:
    inputs = keras.Input((positions, 8), name="sequence")
    x = _block(_block(inputs, 0), 1)
    if head == "pool":
        x = layers.GlobalAveragePooling1D(name="pool")(x)
    elif head == "flatten":
        x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="encoder")


@pytest.mark.parametrize(
    ("plain", "named", "layer", "overrides"),
    [
        ("vit_ti8_d3", "vit_ti8_d3_tl4at1", tk.TokenLearnerV11, {}),
        ("vit_ti8_d3", "vit_ti8_d3_tl4at1_v10", tk.TokenLearner, {"classifier": "token"}),
        ("vit_ti8_d3", "vit_ti8_d3_tl4at0", tk.TokenLearnerV11, {"classifier": "map"}),
        ("vivit_ti8x2_d3", "vivit_ti8x2_d3_tl4at1", tk.TokenLearnerV11, {"num_frames": 4}),
        (
            *("vivit_ti8x2_d3", "vivit_ti8x2_d3_tl4at2_v10", tk.TokenLearner),
            {"num_frames": 4, "classifier": "token", "dropout": 0.1},
        ),
    ],
)
def test_it_is_the_model_of_that_name(
    plain: str, named: str, layer: type, overrides: dict[str, Any]
) -> None:
    model, expected = _vit(plain, **overrides), _vit(named, **overrides)
    x = _random(model.input_shape)
    before = _numpy(model(x))
    block = f"encoder_block_{named.split('at')[1][0]}"
    inserted = insert_token_learner(model, block, layer(4, name="token_learner_0"))
    expected.set_weights(inserted.get_weights())
    assert np.allclose(_numpy(inserted(x)), _numpy(expected(x)), atol=1e-6)
    assert type(inserted) is type(model) and inserted.name == model.name
    assert tk.count_macs(inserted) == tk.count_macs(expected)
    maps, expected_maps = tk.attention_maps(inserted, x), tk.attention_maps(expected, x)
    assert list(maps) == list(expected_maps) == ["token_learner_0"]
    assert np.allclose(maps["token_learner_0"], expected_maps["token_learner_0"], atol=1e-6)
    assert np.array_equal(_numpy(model(x)), before)


def test_a_shortcut_carries_the_tokens() -> None:
    model = _encoder()
    learner = tk.TokenLearnerV11(3, name="learner")
    inserted = insert_token_learner(model, before="norm_1", layer=learner)
    x = _random(model.input_shape)
    tokens = learner(keras.Model(model.input, model.get_layer("norm_1").input)(x))
    normed = model.get_layer("norm_1")(tokens)
    attended = tokens + model.get_layer("attention_1")(normed, normed)
    mixed = attended + model.get_layer("mlp_1")(attended)
    expected = model.get_layer("head")(keras.ops.mean(mixed, axis=1))
    assert np.allclose(_numpy(inserted(x)), _numpy(expected), atol=1e-5)


def test_both_models_train_the_same_weights_and_are_saved(tmp_path: Path) -> None:
    model = _encoder()
    x, y = _random(model.input_shape, 8), np.ones((8, 3), "float32")
    inserted = insert_token_learner(model, "norm_1")
    before, first = _numpy(model(x)), [_numpy(w) for w in inserted.trainable_variables]
    inserted.compile(keras.optimizers.SGD(0.5), "mse")
    inserted.fit(x, y, epochs=2, verbose=0)
    for old, variable in zip(first, inserted.trainable_variables, strict=True):
        dead = variable.path.endswith(("key/bias", "token_masking/output/bias"))
        assert dead or not np.array_equal(old, _numpy(variable)), variable.path
    assert not np.allclose(_numpy(model(x)), before)
    for each in (model, inserted):
        each.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert np.array_equal(_numpy(loaded(x)), _numpy(each(x)))
    # A loaded model holds names that a fresh process would choose again.
    again = insert_token_learner(loaded, "norm_0")
    assert list(tk.attention_maps(again, x)) == ["token_learner_1", "token_learner"]


def test_models_of_the_package_are_saved_and_resized(tmp_path: Path) -> None:
    model = _vit("vit_ti8_d2", classifier="token")
    inserted = insert_token_learner(model, "encoder_block_1", tk.TokenLearner(4))
    x = _random(model.input_shape)
    inserted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(_numpy(loaded(x)), _numpy(inserted(x)))
    resized = tk.resize_model(inserted, (48, 64))
    assert tk.attention_maps(resized, _random((2, 48, 64, 3))).popitem()[1].shape == (2, 4, 6, 8)


def test_several_inputs_outputs_shared_layers_operations_and_options() -> None:
    sequence, scale = keras.Input((12, 8), name="sequence"), keras.Input((8,), name="scale")
    shared = layers.Dense(8, name="shared")
    early = shared(sequence)
    x = layers.Dropout(0.5, name="drop")(early, training=False)
    x = layers.Activation("tanh", name="here")(x)
    x = shared(x) * keras.ops.expand_dims(scale, 1)
    first, pair = x[:, 0], keras.ops.split(x, 2, axis=-1)
    last = keras.ops.concatenate([first, pair[0][:, -1]], axis=-1)
    outputs = {"early": early, "late": {"last": layers.Dense(2, name="head")(last)}}
    model = keras.Model({"sequence": sequence, "scale": scale}, outputs)
    learner = tk.TokenLearnerV11(3)
    inserted = insert_token_learner(model, "here", learner)
    values = {"sequence": _random((2, 12, 8)), "scale": _random((2, 8))}
    result = inserted(values)
    expected = np.tanh(_numpy(learner(shared(values["sequence"]))))
    expected = _numpy(shared(expected)) * values["scale"][:, None]
    expected = np.concatenate([expected[:, 0], expected[:, -1, :4]], axis=-1)
    head = _numpy(model.get_layer("head")(expected))
    assert np.allclose(_numpy(result["late"]["last"]), head, atol=1e-5)
    assert np.array_equal(_numpy(result["early"]), _numpy(model(values)["early"]))
    copy = keras.Model.from_config(inserted.get_config())
    copy.set_weights(inserted.get_weights())
    assert np.allclose(_numpy(copy(values)["late"]["last"]), head, atol=1e-5)


def test_an_output_that_feeds_the_layer_stays() -> None:
    inputs = keras.Input((12, 8))
    features = layers.Dense(8, name="features")(inputs)
    pooled = layers.GlobalAveragePooling1D(name="pool")(features)
    inserted = insert_token_learner(keras.Model(inputs, [features, pooled]), "pool")
    assert inserted.output[0].shape == (None, 12, 8) and inserted.output[1].shape == (None, 8)


def test_masks_reach_the_tokens_and_end_there() -> None:
    inputs = keras.Input((6, 8))
    x = layers.Masking(name="masking")(inputs)
    model = keras.Model(inputs, layers.LSTM(4, name="lstm")(x))
    plain = insert_token_learner(model, "lstm", tk.TokenLearnerV11(2, name="learner"))
    front = insert_token_learner(model, "lstm", num_prefix_tokens=1)
    x = _random((2, 6, 8))
    x[:, 4:] = 0
    maps = [*tk.attention_maps(plain, x).values(), *tk.attention_maps(front, x).values()]
    assert maps[0].shape == (2, 2, 6) and np.all(maps[0][..., 4:] == 0)
    assert maps[1].shape == (2, 8, 5) and np.all(maps[1][..., 3:] == 0)
    learner = plain.get_layer("learner")
    tokens = learner(x, mask=np.abs(x).sum(-1) > 0)
    assert np.allclose(_numpy(plain(x)), _numpy(model.get_layer("lstm")(tokens)), atol=1e-5)
    assert np.all(np.isfinite(_numpy(front(x))))


@pytest.mark.parametrize("rank", [4, 5])
def test_grids_and_videos_become_sequences(rank: int) -> None:
    inputs = keras.Input((6, 4, 8) if rank == 4 else (2, 6, 4, 8))
    x = layers.Activation("relu", name="here")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    inserted = insert_token_learner(model, "here", tk.TokenLearner(5))
    assert inserted.output_shape == ((None, 5, 3) if rank == 4 else (None, 2, 5, 3))
    (maps,) = tk.attention_maps(inserted, _random(model.input_shape)).values()
    assert maps.shape == ((2, 5, 6, 4) if rank == 4 else (2, 2, 5, 6, 4))
    with pytest.raises(ValueError, match="`grid` and `num_prefix_tokens` are for sequences"):
        insert_token_learner(model, "here", grid=(6, 4))


def test_the_multi_head_token_learner_goes_in_as_well() -> None:
    model = _encoder()
    inserted = insert_token_learner(model, "norm_1", TokenLearnerMHA(5, num_heads=2), grid=(3, 4))
    (maps,) = tk.attention_maps(inserted, _random(model.input_shape)).values()
    assert maps.shape == (2, 5, 3, 4) and np.allclose(maps.sum((-1, -2)), 1, atol=1e-5)


def test_a_sequential_model_becomes_a_functional_one() -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="stem"),
            layers.Activation("relu", name="here"),
            layers.Flatten(name="flatten"),
        ],
        name="small",
    )
    inserted = insert_token_learner(model, "here", tk.TokenLearner(2))
    assert inserted.name == "small" and inserted.output_shape == (None, 8)
    assert inserted.get_layer("stem") is model.get_layer("stem")
    for wrong in (keras.Sequential([layers.Dense(2)]), "model"):
        with pytest.raises(ValueError, match="graph of a functional or Sequential model"):
            insert_token_learner(wrong, "here")  # type: ignore[arg-type]


def test_layers_of_models_that_are_layers() -> None:
    inner = _encoder(head="none")
    inputs = keras.Input((12, 8))
    x = layers.Dense(8, name="stem")(inputs)
    x = layers.GlobalAveragePooling1D(name="pool")(inner(x, training=False))
    model = keras.Model(inputs, x, name="outer")
    learner = tk.TokenLearnerV11(2, name="learner")
    inserted = insert_token_learner(model, "norm_1", learner)
    x = _random(model.input_shape)
    assert {k: v.shape for k, v in tk.attention_maps(inserted, x).items()} == {
        "encoder/learner": (2, 2, 12)
    }
    within = insert_token_learner(inner, "norm_1", tk.TokenLearnerV11(2))
    within.set_weights(inserted.get_layer("encoder").get_weights())
    expected = _numpy(within(model.get_layer("stem")(x))).mean(axis=1)
    assert np.allclose(_numpy(inserted(x)), expected, atol=1e-5)
    assert inner.output_shape == (None, 12, 3) and inner is model.get_layer("encoder")
    assert insert_token_learner(model, "encoder/norm_0").output_shape == (None, 3)


def test_names_that_are_not_of_one_call() -> None:
    inner, inputs = _encoder(head="none"), keras.Input((12, 8))
    other = keras.models.clone_model(inner)
    other.name = "other"
    double = keras.Model(inputs, [inner(inputs), other(inputs)])
    with pytest.raises(ValueError, match="'encoder/norm_0', 'other/norm_0'"):
        insert_token_learner(double, "norm_0")
    assert insert_token_learner(double, "other/norm_0").output_shape[1] == (None, 8, 3)
    dense = layers.Dense(8, name="dense")
    twice = keras.Model(inputs, dense(dense(inputs)))
    with pytest.raises(ValueError, match="'dense' is called 2 times"):
        insert_token_learner(twice, "dense")
    with pytest.raises(ValueError, match="an input of the model"):
        insert_token_learner(inner, "sequence")
    with pytest.raises(ValueError, match="on one tensor. 'shortcut_0' is called on 2"):
        insert_token_learner(inner, "shortcut_0")
    with pytest.raises(ValueError, match="Received: 'norm2'. Near: norm_1"):
        insert_token_learner(inner, "norm2")


def _flattened(x: Any) -> Any:
    return layers.Dense(3, name="misfit")(layers.Flatten()(x))


def _reshaped(x: Any) -> Any:
    # Twelve tokens are one row of the batch; one or four would silently become a part of one.
    x = keras.ops.reshape(x, (-1, 2, 6, 8))
    x._keras_history.operation.name = "misfit"
    return x


def _table(x: Any) -> Any:
    return PositionEmbedding((3, 4), name="misfit")(x)


def _masked(x: Any) -> Any:
    mask = np.ones((1, 12, 12), "bool")
    return layers.MultiHeadAttention(2, 4, name="misfit")(x, x, attention_mask=mask)


class _Silent(layers.Layer):
    """Says that it returns its input's shape, whatever it does."""

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(name="table", shape=(1, *input_shape[1:]))

    def call(self, x: Any) -> Any:
        return x + self.table

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@pytest.mark.parametrize("num_tokens", [1, 4])
@pytest.mark.parametrize(
    "follow",
    [
        _flattened,
        _table,
        _reshaped,
        layers.Reshape((3, 4, 8), name="misfit"),
        _Silent(name="misfit"),
        _masked,
    ],
    ids=["dense", "table", "reshape_operation", "reshape", "silent", "mask"],
)
def test_a_layer_that_cannot_take_the_tokens_is_named(follow: Any, num_tokens: int) -> None:
    inputs = keras.Input((12, 8))
    x = layers.Dense(8, name="stem")(inputs)
    model = keras.Model(inputs, follow(layers.Activation("relu", name="here")(x)))
    learner = tk.TokenLearnerV11(num_tokens)
    x = _random(model.input_shape)
    before = _numpy(model(x)), [len(layer._inbound_nodes) for layer in model.operations]
    with pytest.raises(ValueError, match="'misfit' of type .* cannot take .* pool over them"):
        insert_token_learner(model, "here", learner)
    assert [len(layer._inbound_nodes) for layer in model.operations] == before[1]
    assert np.array_equal(_numpy(model(x)), before[0])
    # The layer that was not inserted is still free.
    assert insert_token_learner(_encoder(), "norm_1", learner).output_shape == (None, 3)


def test_layers_that_take_any_shape_pass() -> None:
    inputs = keras.Input((12, 8))
    x = layers.Activation("relu", name="here")(inputs)
    # Frames folded into the batch and back, a layer that cannot be traced, one that misstates.
    folded = keras.ops.reshape(keras.ops.reshape(x, (-1, 2, 8)), (-1, 16))
    model = keras.Model(inputs, [folded, _Untraceable()(x), _Misstated()(x)])
    inserted = insert_token_learner(model, "here", tk.TokenLearnerV11(4))
    assert [tuple(x.shape) for x in inserted.output] == [(None, 16), (None, 4, 8), (None, 4, 9)]
    # Failed traces leave nothing in the names of what is built next.
    later = layers.Dense(2, name="later")
    later.build((None, 8))
    assert [variable.path for variable in later.weights] == ["later/kernel", "later/bias"]


class _Untraceable(layers.Layer):
    """Works on arrays that are there, not on shapes alone."""

    def call(self, x: Any) -> Any:
        raise RuntimeError("no tracing")

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class _Misstated(layers.Layer):
    """Says one channel too many, before and after."""

    def call(self, x: Any) -> Any:
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], input_shape[-1] + 1)


def test_a_shortcut_around_the_layer_is_explained() -> None:
    with pytest.raises(ValueError, match="'shortcut_1' of type Add cannot take .* shortcut"):
        insert_token_learner(_encoder(), "attention_1")


def test_pooling_of_grids_is_explained() -> None:
    inputs = keras.Input((6, 4, 8))
    x = layers.Conv2D(8, 3, name="conv")(layers.Activation("relu", name="here")(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x))
    with pytest.raises(ValueError, match="'conv' of type Conv2D .*GlobalAveragePooling1D"):
        insert_token_learner(model, "here")
    with pytest.raises(ValueError, match="'pool' of type GlobalAveragePooling2D"):
        insert_token_learner(model, "pool")


def test_grids_and_tokens_in_front_by_hand() -> None:
    model = _encoder(positions=13)
    insert = insert_token_learner
    x = _random(model.input_shape)
    inserted = insert(model, "norm_0", tk.TokenLearner(2), grid=(2, 6), num_prefix_tokens=1)
    assert tk.attention_maps(inserted, x).popitem()[1].shape == (2, 2, 2, 6)
    joined = keras.Model(inserted.input, _input_of(inserted, "norm_0"))
    assert joined.output_shape == (None, 3, 8)
    assert np.array_equal(_numpy(joined(x))[:, 0], x[:, 0])
    video = insert(model, "norm_0", tk.TokenLearner(2), grid=(3, 2, 2), num_prefix_tokens=1)
    assert tk.attention_maps(video, x).popitem()[1].shape == (2, 3, 2, 2, 2)
    assert _input_of(video, "norm_0").shape == (None, 1 + 3 * 2, 8)
    with pytest.raises(ValueError, match=r"13 tokens, which does not fit 0 .*grid \(2, 6\)"):
        insert(model, "norm_0", grid=(2, 6))
    with pytest.raises(ValueError, match="13 tokens, which does not fit 13 tokens in front"):
        insert(model, "norm_0", num_prefix_tokens=13)
    with pytest.raises(ValueError, match=r"no known square number.*grid=\(height, width\)"):
        insert(model, "norm_0", tk.TokenLearner(2))
    for wrong in ({"grid": 4}, {"grid": (2, 0)}, {"num_prefix_tokens": -1}):
        with pytest.raises(ValueError, match="must be"):
            insert(model, "norm_0", **wrong)  # type: ignore[arg-type]
    unknown = insert(_encoder(positions=None), "norm_0", num_prefix_tokens=1)
    assert tk.attention_maps(unknown, x).popitem()[1].shape == (2, 8, 12)


def test_after_another_token_learner_the_class_token_still_stays_in_front() -> None:
    model = _vit("vit_ti8_d3_tl4at1", classifier="token")
    with pytest.warns(UserWarning, match="The first 1 stay in front; pass num_prefix_tokens=0"):
        kept = insert_token_learner(model, "encoder_block_2", tk.TokenLearnerV11(2, name="second"))
    assert _input_of(kept, "encoder_norm").shape == (None, 3, 16)
    all_tokens = insert_token_learner(
        model, "encoder_block_2", tk.TokenLearnerV11(2, name="all"), num_prefix_tokens=0
    )
    assert _input_of(all_tokens, "encoder_norm").shape == (None, 2, 16)
    x = _random(model.input_shape)
    assert tk.attention_maps(all_tokens, x)["all"].shape == (2, 2, 5)
    assert tk.attention_maps(kept, x)["second"].shape == (2, 2, 4)


def test_a_class_token_that_was_cut_off_is_not_looked_for() -> None:
    model = _vit("vit_ti8_d2", classifier="token")
    positions = model.get_layer("encoder_block_0").output[:, 1:]
    model = keras.Model(model.input, layers.Dense(3, name="head")(positions))
    inserted = insert_token_learner(model, "head", tk.TokenLearner(2, name="learner"))
    maps = tk.attention_maps(inserted, _random(model.input_shape))["learner"]
    assert maps.shape[:2] == (2, 2) and maps.ndim == 4


def test_every_tensor_keeps_its_dtype_whatever_policy_is_in_force() -> None:
    model = _encoder(positions=13)
    keras.config.set_dtype_policy("mixed_bfloat16")
    learner = tk.TokenLearnerV11(2, dtype="float32")
    inserted = insert_token_learner(model, "norm_1", learner, num_prefix_tokens=1)
    made = [layer for layer in inserted.layers if layer not in model.layers]
    assert {keras.backend.standardize_dtype(each.output.dtype) for each in made} == {"float32"}
    low = insert_token_learner(model, "norm_1", tk.TokenLearnerV11(2, name="low"))
    assert low.get_layer("low").compute_dtype == "bfloat16"
    assert np.all(np.isfinite(_numpy(low(_random(model.input_shape)))))


def test_layers_that_are_not_new_or_no_token_learners() -> None:
    model, learner = _encoder(), tk.TokenLearnerV11(2, name="learner")
    inserted = insert_token_learner(model, "norm_1", learner)
    with pytest.raises(ValueError, match="`layer` must be new. 'learner'"):
        insert_token_learner(model, "norm_0", learner)
    with pytest.raises(ValueError, match="already. Give the TokenLearner another name"):
        insert_token_learner(inserted, "norm_0", tk.TokenLearnerV11(2, name="learner"))
    with pytest.raises(ValueError, match="must be a TokenLearner layer"):
        insert_token_learner(model, "norm_0", layers.Dense(2))  # type: ignore[arg-type]
    first, second = (insert_token_learner(model, name) for name in ("norm_0", "norm_1"))
    assert first.get_layer("token_learner") is not second.get_layer("token_learner")


def test_a_mask_is_folded_with_its_sequence() -> None:
    inputs = keras.Input((6, 5))
    x = layers.Masking(name="masking")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    learner = tk.TokenLearnerV11(3, name="learner")
    inserted = tk.insert_token_learner(model, "head", learner, grid=(2, 3))
    values = np.random.default_rng(0).normal(size=(2, 6, 5)).astype("float32")
    values[:, 4:] = 0  # what Masking takes for padding
    maps = tk.attention_maps(inserted, values)["learner"]
    assert maps.shape == (2, 3, 2, 3)
    assert np.all(maps.reshape(2, 3, 6)[..., 4:] == 0) and np.allclose(maps.sum((-2, -1)), 1)
