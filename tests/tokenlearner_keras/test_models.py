"""Models by configuration and by name."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.small_models import small_model
from tokenlearner_keras.models.names import model_config

# A name for every branch of the grammar, each at a small width.
NAMES = (
    "vit_ti8_d3",
    "vit_ti8_d3_tl4at1",
    "vit_ti8_d3_tl4at0_v10",
    "vit_ti8_d3_tl4at1_fuser",
    "vit_ti8_d3_tl4at1_v10_fuser_linear",
    "vit_ti8_d4_pool2at1_pool1at3",
    "vit_ti8_d4_tl2at2_pool2at1",
    "vit_ti8_d4_tl2at1_fuser_pool2at2",
    "vivit_ti8x2_d3_tl4at1",
    "vivit_ti8_d3_tl4at1_fuser",
    "vit_ti8_d3_tl4at1_mha",
    "vit_ti8_d3_tl4at1_pm_fuser",
    "vit_ti8_d4_tl4at1_merge",
    "vit_ti8_d4_tl2at1_merge_pool2at1",
    "vivit_ti8x2_d3_tl4at1_st_v10",
    "vivit_ti8_d3_tl4at1_st_mha_fuser",
    "vivit_ti8x2_d4_tl4at1_merge",
    "vivit_ti8x2_d5_tl4at1_st_merge",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if "pool" in name else ()) for name in NAMES],
)
@pytest.mark.parametrize(
    "classifier",
    ["gap", *(pytest.param(name, marks=pytest.mark.extra) for name in ("token", "map"))],
)
def test_every_name_builds_runs_and_is_saved(name: str, classifier: str, tmp_path: Path) -> None:
    model = small_model(name, classifier=classifier)
    x = random_inputs(model)
    logits = to_numpy(model(x))
    assert logits.shape == (2, 5) and np.all(np.isfinite(logits)) and np.ptp(logits) > 0
    assert tuple(model(x[:0]).shape) == (0, 5)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path, safe_mode=True)
    assert np.array_equal(to_numpy(loaded(x)), logits)
    copy = small_model(name, classifier=classifier)
    model.save_weights(tmp_path / "model.weights.h5")
    copy.load_weights(tmp_path / "model.weights.h5")
    assert np.array_equal(to_numpy(copy(x)), logits)
    assert tk.count_macs(model) > 0


@pytest.mark.parametrize("classifier", ["gap", "gmp", "gsp"])
def test_poolings_reduce_the_encoders_tokens(classifier: str) -> None:
    model = small_model("vit_ti8_d2_tl4at1", classifier=classifier)
    features = keras.Model(model.input, model.get_layer("encoder_norm").output)
    x = random_inputs(model)
    tokens = to_numpy(features(x))
    pooled = {"gap": tokens.mean(1), "gmp": tokens.max(1), "gsp": tokens.sum(1)}[classifier]
    head = model.get_layer("head")
    expected = pooled @ to_numpy(head.kernel)
    assert np.allclose(to_numpy(model(x)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("vit_ti8_d3", 24),
        ("vit_ti8_d3_tl4at1", 4),
        ("vit_ti8_d3_tl4at1_fuser", 24),
        ("vit_ti8_d4_pool2at1", 4),
        ("vivit_ti8x2_d3_tl4at1", 8),
        ("vivit_ti8x2_d3_tl4at1_st", 4),
        ("vivit_ti8x2_d3_tl4at1_st_fuser", 48),
        ("vit_ti8_d3_tl8at1_merge", 8),
        ("vivit_ti8x2_d3_tl8at1_merge", 16),
        ("vivit_ti8x2_d4_tl8at1_st_merge", 8),
    ],
)
def test_token_counts(name: str, tokens: int) -> None:
    assert small_model(name, classifier=None).output_shape == (None, tokens, 16)
    assert small_model(name).get_layer("encoder_norm").output.shape == (None, tokens, 16)


def test_a_class_token_bypasses_the_token_learner() -> None:
    model = small_model("vit_ti8_d2_tl4at1", classifier="token")
    assert model.get_layer("encoder_block_0").output.shape == (None, 25, 16)
    assert model.get_layer("token_learner_0").input.shape == (None, 4, 6, 16)
    assert model.get_layer("encoder_block_1").output.shape == (None, 5, 16)


def _token_counts(model: keras.Model) -> list[int]:
    """Returns how many tokens each encoder block has."""
    blocks = [layer for layer in model.layers if layer.name.startswith("encoder_block")]
    return [block.input.shape[1] for block in blocks]


def test_merging_goes_on_before_every_block() -> None:
    model = small_model("vit_ti8_d4_tl4at1_merge")
    assert _token_counts(model) == [24, 16, 8, 4]
    model = small_model("vit_ti8_d4_tl4at1_merge", classifier="token")
    assert _token_counts(model) == [25, 17, 9, 5]
    # Of each of two frames, or of all 48 positions.
    assert _token_counts(small_model("vivit_ti8x2_d4_tl4at1_merge")) == [48, 32, 16, 8]
    assert _token_counts(small_model("vivit_ti8x2_d5_tl4at1_st_merge")) == [48, 32, 16, 8, 4]
    assert _token_counts(small_model("vit_ti8_d4_tl2at1_merge_pool2at1")) == [24, 3, 2, 2]
    model = small_model("vit_ti8_d4_tl23at1_merge")  # two blocks have nothing to merge before them
    assert _token_counts(model) == [24, 23, 23, 23]
    assert sum(isinstance(layer, tk.TokenMerging) for layer in model.layers) == 1


def test_merging_counts_the_positions_in_a_token_and_keeps_the_class_token() -> None:
    model = small_model("vit_ti8_d3_tl8at1_merge", classifier="token")
    first, second = (model.get_layer(f"token_merging_{number}") for number in (0, 1))
    features = keras.Model(model.input, [first.output, second.output])
    x = random_inputs(model)
    (_, sizes), (_, last_sizes) = features(x)
    assert np.all(to_numpy(sizes).sum(-1) == 24) and np.all(to_numpy(last_sizes).sum(-1) == 24)
    blocks = [model.get_layer(f"encoder_block_{index}") for index in (0, 1)]
    before, after = keras.Model(model.input, [blocks[0].output, blocks[1].input])(x)
    assert np.array_equal(to_numpy(before)[:, 0], to_numpy(after)[:, 0])


@pytest.mark.parametrize("kind", ["", "_v10", "_mha", "_pm"])
def test_tokens_of_a_clip_are_those_of_its_layer(kind: str) -> None:
    model = small_model(f"vivit_ti8x2_d2_tl4at1_st{kind}", classifier="token")
    layer = model.get_layer("token_learner_0")
    assert not layer.per_frame and layer.input.shape == (None, 2, 4, 6, 16)
    assert layer.output.shape == (None, 4, 16)
    assert model.get_layer("encoder_block_1").input.shape == (None, 5, 16)
    twin = small_model(f"vivit_ti8x2_d2_tl4at1{kind}", classifier="token")
    shapes = [[weight.shape for weight in each.weights] for each in (model, twin)]
    assert shapes[0] == shapes[1]


def test_summary_shows_the_drop_of_tokens() -> None:
    lines: list[str] = []
    small_model("vit_ti8_d2_tl4at1").summary(print_fn=lines.append, line_length=120)
    text = "\n".join(lines)
    assert "(None, 24, 16)" in text and "(None, 4, 16)" in text


@pytest.mark.every_backend
def test_initial_values_are_the_references() -> None:
    model = tk.create_model("vit_s16_d2_tl8at1_v10", image_size=64, head_bias=-10.0)
    head = model.get_layer("head")
    assert np.all(to_numpy(head.kernel) == 0)
    assert np.all(to_numpy(head.bias) == -10)
    table = to_numpy(model.get_layer("position_embedding").table)
    assert abs(table.std() - 0.02) < 0.002
    learner = model.get_layer("token_learner_0")
    fan_in = 9 * 384
    kernel = to_numpy(learner.convolutions[0].kernel)
    assert abs(kernel.std() * fan_in**0.5 - 1) < 0.05
    query = model.get_layer("encoder_block_0").attention.query_layer.kernel
    assert abs(to_numpy(query).std() * 384**0.5 - 1) < 0.05
    assert model.get_layer("encoder_norm").epsilon == 1e-6


def test_stochastic_depth_grows_with_the_block() -> None:
    model = small_model("vit_ti8_d3", stochastic_depth=0.2)
    rates = [model.get_layer(f"encoder_block_{i}").stochastic_depth for i in range(3)]
    assert rates == [0.0, 0.1, 0.2]


@pytest.mark.every_backend
def test_mixed_precision_gives_float32_logits() -> None:
    name = "vit_ti8_d3_tl4at1_v10_fuser"
    full = small_model(name)
    keras.config.set_dtype_policy("mixed_bfloat16")
    low = small_model(name)
    low.set_weights(full.get_weights())
    x = random_inputs(full)
    logits = low(x)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert low.get_layer("encoder_block_0").compute_dtype == "bfloat16"
    expected = to_numpy(full(x))
    difference = np.abs(to_numpy(logits) - expected).max()
    assert difference < 0.1 * np.abs(expected).max()


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "name", ["vit_ti8_d2_tl4at1_v10", pytest.param("vit_ti8_d2_tl4at1", marks=pytest.mark.slow)]
)
def test_compile_and_fit_reach_every_parameter(name: str) -> None:
    model = small_model(name, dropout=0.1, attention_dropout=0.1, stochastic_depth=0.1)
    before = [to_numpy(v) for v in model.trainable_variables]
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(random_inputs(model, 8), np.arange(8) % 5, batch_size=4, epochs=2, verbose=0)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        # These two have a true gradient of zero: softmax does not see a constant.
        dead = variable.path.endswith(("key/bias", "token_masking/output/bias"))
        changed = not np.array_equal(old, to_numpy(variable))
        assert changed or dead, variable.path


@pytest.mark.every_backend
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="is about torch.compile")
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vit_ti8_d1_tl4at0_v10_fuser_pool2at0", {}),
        ("vivit_ti8x2_d1_tl4at0", {"num_frames": 4, "sample_frames": 2, "classifier": "map"}),
        ("vivit_ti8x2_d1_tl4at0_st_v10", {"num_frames": 4}),
        ("vit_ti8_d2_tl4at0_pm", {}),
        ("vivit_ti8x2_d2_tl8at0_merge", {"num_frames": 4, "classifier": "token"}),
    ],
)
def test_torch_compiles_a_model_as_one_graph(name: str, fields: dict[str, Any]) -> None:
    """A graph for each operation would be slower than none."""
    import torch

    model = tk.create_model(name, image_size=32, num_classes=3, **fields)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    x = torch.as_tensor(random_inputs(model))
    expected = to_numpy(model(x, training=True))
    assert np.allclose(to_numpy(compiled(x, training=True)), expected, atol=1e-5)


@pytest.mark.slow
def test_a_model_that_was_never_called_can_be_quantized() -> None:
    full, quantized = small_model("vit_ti8_d2_tl4at1"), small_model("vit_ti8_d2_tl4at1")
    quantized.set_weights(full.get_weights())
    quantized.quantize("int8")
    x = random_inputs(full)
    expected = to_numpy(full(x))
    difference = np.abs(to_numpy(quantized(x)) - expected).max()
    assert difference < 0.2 * np.abs(expected).max()


@pytest.mark.filterwarnings("ignore:image_size")
def test_all_listed_names_are_understood() -> None:
    names = tk.list_models()
    assert len(names) == len(set(names)) > 60 and names == sorted(names)
    assert {"vit_b16", "vit_b16_tl8at6", "vit_b16_d21_tl16at10"} <= set(names)
    for name in names:
        config = model_config(name)
        assert (config.num_frames is None) == name.startswith("vit_")
    assert {name.split("_")[0] for name in names} == {"vit", "vivit", "x2plus1d"}


def test_the_parts_of_a_name() -> None:
    kinds = {"": "v1.1", "_v10": "v1.0", "_mha": "mha", "_pm": "patch_merger", "_merge": "merging"}
    for part, kind in kinds.items():
        config = model_config(f"vit_b16_d14_tl8at6{part}")
        assert (config.token_learner, config.num_tokens, config.per_frame) == (kind, 8, True)
        clips = model_config(f"vivit_b16x2_tl64at6_st{part}")
        assert (clips.token_learner, clips.num_tokens, clips.per_frame) == (kind, 64, False)
    linear = model_config("vivit_b16x2_tl8at6_st_pm_fuser_linear")
    assert linear.token_fuser and linear.fuser_bottleneck_dim is None


def test_list_models_takes_a_pattern() -> None:
    assert tk.list_models("vit_h*") == ["vit_h14"]
    assert tk.list_models("nothing*") == []


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vit_b16_tl8", "vit_b16_tl8at"),
        ("vit_b_16", "vit_b16"),
        ("vitb16", "vit_b16"),
        ("vit_b16_fuser", "vit_b16_tl"),
        ("resnet50", "list_models"),
        ("vit_b16x2", "vi"),
        ("vit_b16_tl8at6_pm_mha", "vit_b16_tl8at6_pm"),
        ("vivit_b16x2_tl16at6_v10_st", "in this order .* with _st .*, one of _v10"),
        ("vit_b16_st", "vit_b16"),
    ],
)
def test_a_bad_name_gets_near_ones(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown model name '{name}'.*{near}"):
        tk.create_model(name)


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match="takes no num_frames"):
        tk.create_model("vit_ti8", num_frames=4)
    with pytest.raises(ValueError, match="Did you mean 'dropout'"):
        tk.create_model("vit_ti8", dropuot=0.1)
    with pytest.raises(ValueError, match="expects a tk.VisionTransformerConfig or"):
        tk.build_model({"width": 8})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"in \[0, 12\)"):
        tk.create_model("vit_b16_tl8at12")
    with pytest.raises(ValueError, match="_st learns .* Take 'vivit_b16_tl8at6_st_v10', or leave"):
        tk.create_model("vit_b16_tl8at6_st_v10")
    with pytest.raises(ValueError, match="merged tokens have none"):
        tk.create_model("vit_b16_tl8at6_merge_fuser")
    with pytest.raises(ValueError, match=r"`token_learner_at`=9 of depth=12 on: .* 25 to 196 of"):
        tk.create_model("vit_b16_tl8at9_merge")
