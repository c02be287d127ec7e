"""Public ViT checkpoints (.npz) in image and video models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tokenlearner_keras.weights.augreg import load_npz
from tokenlearner_keras.weights.reference import reference_parameters
from tokenlearner_keras.weights.resize import resize_positions

GOLDENS = Path(__file__).parents[1] / "goldens"
CHECKPOINT = GOLDENS / "augreg_checkpoint.npz"
POSITIONS = "Transformer/posembed_input/pos_embedding"
KERNEL = "embedding/kernel"
BLOCK = "Transformer/encoderblock_"
Arrays = dict[str, np.ndarray]


def _model(**fields: Any) -> keras.Model:
    base = {
        "image_size": (32, 32),
        "patch_size": (8, 8),
        "width": 24,
        "depth": 3,
        "num_heads": 3,
        "mlp_dim": 48,
        "num_classes": 7,
    }
    return tk.build_model(tk.VisionTransformerConfig(**{**base, **fields}))


def _arrays(path: Path = CHECKPOINT) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _save(path: Path, arrays: Arrays) -> Path:
    np.savez(path / "checkpoint.npz", **arrays)
    return path / "checkpoint.npz"


def _value(model: keras.Model, name: str) -> np.ndarray:
    parameter = reference_parameters(model)[name]
    return keras.ops.convert_to_numpy(parameter.variable).reshape(parameter.shape)


def _assert_logits(model: keras.Model) -> None:
    expected = _arrays(GOLDENS / "augreg_expected.npz")
    logits = keras.ops.convert_to_numpy(model(expected["images"]))
    difference = np.abs(logits - expected["logits"]).max()
    assert difference < 1e-5 * np.abs(expected["logits"]).max()


def test_the_golden_checkpoint_gives_the_references_logits() -> None:
    model = _model(classifier="token")
    report = load_npz(model, CHECKPOINT, strict=True)
    _assert_logits(model)
    assert report.is_exact
    assert set(report.loaded) >= {"cls", "head/kernel", KERNEL, POSITIONS}
    assert len(report.loaded) == len(model.trainable_variables)
    assert str(report) == f"{len(report.loaded)} parameters loaded as they are"


def _renumbered(arrays: Arrays) -> Arrays:
    numbers = {
        "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
        "LayerNorm_2": "LayerNorm_1",
        "MlpBlock_3": "MlpBlock_0",
    }
    for old, new in numbers.items():
        arrays = {key.replace(f"/{old}/", f"/{new}/"): value for key, value in arrays.items()}
    return arrays


def _prefixed(prefix: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {f"{prefix}{key}": value for key, value in arrays.items()}


def _stacked(arrays: Arrays) -> Arrays:
    """The blocks in one array each, as big_vision's scan leaves them."""
    arrays = _renumbered(arrays)
    stacked = {key: value for key, value in arrays.items() if BLOCK not in key}
    for key in arrays:
        if f"{BLOCK}0/" in key:
            parts = [arrays[key.replace("_0/", f"_{index}/", 1)] for index in range(3)]
            stacked[key.replace("encoderblock_0", "encoderblock")] = np.stack(parts)
    return stacked


def _positions_on_top(arrays: Arrays) -> Arrays:
    """big_vision's place, and its order: positions first, then a class token without one."""
    table = arrays.pop(POSITIONS)
    arrays["cls"] = arrays["cls"] + table[:, :1]
    return {**arrays, "pos_embedding": table[:, 1:]}


def _in_the_encoder(arrays: Arrays) -> Arrays:
    table = arrays.pop(POSITIONS)
    return {**arrays, "Transformer/pos_embedding": table}


def _reference_head(arrays: Arrays) -> Arrays:
    return {key.replace("head/", "output_projection/"): value for key, value in arrays.items()}


@pytest.mark.parametrize(
    "change",
    [
        _renumbered,
        _prefixed("params/"),
        _prefixed("opt/target/"),
        _prefixed("params/img/"),
        _stacked,
        _positions_on_top,
        _in_the_encoder,
        _reference_head,
    ],
)
def test_other_names_give_the_same_logits(
    change: Callable[[Arrays], Arrays], tmp_path: Path
) -> None:
    model = _model(classifier="token")
    load_npz(model, _save(tmp_path, change(_arrays())), strict=True)
    _assert_logits(model)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_float_types(dtype: str, tmp_path: Path) -> None:
    arrays = _arrays()
    if dtype == "bfloat16":
        # What numpy.savez makes of ml_dtypes' type: two bytes without one.
        singles = {key: value.astype("float32") for key, value in arrays.items()}
        halves = {key: value.view("uint32") >> 16 for key, value in singles.items()}
        stored = {key: value.astype("uint16").view("V2") for key, value in halves.items()}
        expected = {key: (value << 16).view("float32") for key, value in halves.items()}
    else:
        stored = {key: value.astype(dtype) for key, value in arrays.items()}
        expected = {key: value.astype("float32") for key, value in stored.items()}
    model = _model(classifier="token")
    load_npz(model, _save(tmp_path, stored), strict=True)
    for key in (KERNEL, POSITIONS, "cls"):
        np.testing.assert_array_equal(_value(model, key), expected[key])


def test_arrays_that_are_no_floats(tmp_path: Path) -> None:
    arrays = _arrays()
    arrays["embedding/bias"] = arrays["embedding/bias"].astype("int32")
    with pytest.raises(ValueError, match="'embedding/bias' as int32"):
        load_npz(_model(), _save(tmp_path, arrays))


def test_without_a_class_token_its_row_is_dropped() -> None:
    model = _model()
    report = load_npz(model, CHECKPOINT)
    assert report.left_over == ("cls",)
    assert not (report.missing or report.skipped or report.resized)
    np.testing.assert_array_equal(_value(model, POSITIONS), _arrays()[POSITIONS][:, 1:])


@pytest.mark.parametrize("with_row", [False, True])
def test_a_file_without_a_class_token(with_row: bool, tmp_path: Path) -> None:
    arrays = _arrays()
    del arrays["cls"]
    if not with_row:
        arrays[POSITIONS] = arrays[POSITIONS][:, 1:]
    path = _save(tmp_path, arrays)
    model = _model(classifier="token")
    before = _value(model, POSITIONS)
    assert load_npz(model, path).missing == ("cls",)
    first = arrays[POSITIONS][:, :1] if with_row else before[:, :1]
    expected = np.concatenate([first, _arrays()[POSITIONS][:, 1:]], axis=1)
    np.testing.assert_array_equal(_value(model, POSITIONS), expected)
    load_npz(_model(), path, strict=True)


@pytest.mark.parametrize("classifier", ["gap", "token"])
@pytest.mark.parametrize("image_size", [(48, 48), (16, 24), (24, 40), (16, 64)])
def test_positions_are_resized(image_size: tuple[int, int], classifier: str) -> None:
    """Also to a grid of another shape with the same number of positions, 2 x 8."""
    model = _model(image_size=image_size, classifier=classifier)
    report = load_npz(model, CHECKPOINT)
    assert report.resized == (POSITIONS,)
    assert POSITIONS not in report.loaded
    table = _arrays()[POSITIONS][0]
    grid = (image_size[0] // 8, image_size[1] // 8)
    expected = resize_positions(table[1:], (4, 4), grid)
    loaded = _value(model, POSITIONS)[0]
    if classifier == "token":
        np.testing.assert_array_equal(loaded[0], table[0])
        loaded = loaded[1:]
    np.testing.assert_array_equal(loaded, expected)


@pytest.mark.parametrize("classifier", ["gap", "token"])
def test_a_table_of_the_same_grid_that_is_no_square(classifier: str, tmp_path: Path) -> None:
    arrays = _arrays()
    length = 6 if classifier == "gap" else 7
    arrays[POSITIONS] = np.random.default_rng(0).normal(size=(1, length, 24)).astype("float32")
    if classifier == "gap":
        del arrays["cls"]
    model = _model(image_size=(16, 24), classifier=classifier)
    load_npz(model, _save(tmp_path, arrays), strict=True)
    np.testing.assert_array_equal(_value(model, POSITIONS), arrays[POSITIONS])
    other = _model(image_size=(24, 24), classifier=classifier)
    with pytest.raises(ValueError, match=r"grid \(3, 3\) or a square number"):
        load_npz(other, tmp_path / "checkpoint.npz")


def test_a_head_for_other_classes_is_skipped() -> None:
    model = _model(classifier="token", num_classes=5, head_bias=-3.0)
    report = load_npz(model, CHECKPOINT)
    assert report.skipped == ("head/bias", "head/kernel")
    assert not np.any(_value(model, "output_projection/kernel"))
    np.testing.assert_array_equal(_value(model, "output_projection/bias"), np.full(5, -3.0))


def test_pre_logits_are_optional(tmp_path: Path) -> None:
    report = load_npz(_model(representation_size=24), CHECKPOINT)
    assert report.missing == ("pre_logits/bias", "pre_logits/kernel")
    kernel = np.random.default_rng(0).normal(size=(24, 24)).astype("float32")
    extra = {"pre_logits/kernel": kernel, "pre_logits/bias": kernel[0]}
    path = _save(tmp_path, {**_arrays(), **extra})
    assert load_npz(_model(), path).left_over == ("cls", *sorted(extra))
    model = _model(representation_size=24, classifier="token")
    load_npz(model, path, strict=True)
    np.testing.assert_array_equal(_value(model, "pre_logits/kernel"), kernel)
    skipped = load_npz(_model(representation_size=16), path).skipped
    assert skipped == ("head/bias", "head/kernel", *sorted(extra))


def test_without_a_head() -> None:
    report = load_npz(_model(classifier=None), CHECKPOINT)
    assert report.left_over == ("cls", "head/bias", "head/kernel")


VIDEO = {"num_frames": 6, "classifier": "gap"}


@pytest.mark.parametrize("inflation", ["central_frame", "average"])
def test_a_still_video_is_embedded_as_its_image(inflation: str) -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)).astype("float32")
    model = _model()
    load_npz(model, CHECKPOINT)
    expected = keras.ops.convert_to_numpy(model.get_layer("embedding")(image))
    video_model = _model(**VIDEO, tubelet_size=3)
    report = load_npz(video_model, CHECKPOINT, inflation=inflation)
    assert report.resized == (POSITIONS, KERNEL)
    video = np.repeat(image[:, None], 6, axis=1)
    embedded = keras.ops.convert_to_numpy(video_model.get_layer("embedding")(video))
    for frame in embedded[0]:
        np.testing.assert_allclose(frame, expected[0], atol=1e-5 * np.abs(expected).max())
    shares = np.abs(_value(video_model, KERNEL)).sum((1, 2, 3, 4))
    share = [0, 1, 0] if inflation == "central_frame" else [1 / 3] * 3
    np.testing.assert_allclose(shares / shares.sum(), share, atol=1e-5)


@pytest.mark.parametrize("tubelet_size", [1, 2])
@pytest.mark.parametrize("image_size", [(32, 32), (24, 40)])
def test_positions_are_repeated_for_every_frame(
    tubelet_size: int, image_size: tuple[int, int]
) -> None:
    model = _model(**VIDEO, tubelet_size=tubelet_size, image_size=image_size)
    report = load_npz(model, CHECKPOINT)
    assert POSITIONS in report.resized
    assert (KERNEL in report.resized) == (tubelet_size > 1)
    grid = (image_size[0] // 8, image_size[1] // 8)
    frame = resize_positions(_arrays()[POSITIONS][0, 1:], (4, 4), grid)
    table = _value(model, POSITIONS).reshape(6 // tubelet_size, *frame.shape)
    for each in table:
        np.testing.assert_array_equal(each, frame)


def test_the_kernel_tells_a_frames_table_from_a_videos(tmp_path: Path) -> None:
    """4 x 4 positions of an image are not the 4 x 2 x 2 of a video."""
    model = _model(num_frames=8, tubelet_size=2, image_size=(16, 16))
    load_npz(model, CHECKPOINT)
    frame = resize_positions(_arrays()[POSITIONS][0, 1:], (4, 4), (2, 2))
    np.testing.assert_array_equal(_value(model, POSITIONS)[0], np.tile(frame, (4, 1)))
    video = {name: _value(model, name) for name in reference_parameters(model)}
    shorter = _model(num_frames=4, tubelet_size=2, image_size=(16, 16))
    with pytest.raises(ValueError, match=r"the 8 positions of the grid \(2, 2, 2\).*received 16"):
        load_npz(shorter, _save(tmp_path, video))


@pytest.mark.parametrize(
    "fields",
    [
        {"token_learner": "v1.1", "classifier": "gap"},
        {"token_learner": "v1.0", "token_fuser": True, "classifier": "map"},
        {**VIDEO, "tubelet_size": 2, "token_learner": "v1.1", "token_fuser": True},
        {**VIDEO, "num_frames": 4, "tubelet_size": 1, "image_size": (16, 16)},
    ],
)
def test_parameters_under_the_references_names_come_back_exactly(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    """TokenLearner, fuser, map head and video tables, as the reference would write them."""
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.normal(size=parameter.shape).astype("float32")
        for name, parameter in reference_parameters(_model(**fields)).items()
    }
    model = _model(**fields)
    load_npz(model, _save(tmp_path, arrays), strict=True)
    for name, array in arrays.items():
        np.testing.assert_array_equal(_value(model, name), array)


@pytest.mark.parametrize("token_learner", ["v1.0", "v1.1"])
@pytest.mark.parametrize("token_fuser", [False, True])
def test_token_learner_and_fuser_keep_their_weights(token_learner: str, token_fuser: bool) -> None:
    model = _model(token_learner=token_learner, token_fuser=token_fuser, classifier="token")
    before = {name: _value(model, name) for name in reference_parameters(model)}
    report = load_npz(model, CHECKPOINT)
    own = {name for name in before if "TokenLearner" in name or "TokenFuser" in name}
    assert set(report.missing) == own
    assert not (report.left_over or report.skipped or report.resized)
    for name in own:
        np.testing.assert_array_equal(_value(model, name), before[name])
    assert f"{len(own)} missing: " in str(report)
    with pytest.raises(ValueError, match="strict=True"):
        load_npz(model, CHECKPOINT, strict=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_size": (4, 4)}, r"embedding/kernel: expected shape \(4, 4, 3, 24\), received"),
        ({"width": 48}, r"expected shape \(1, positions, 48\), received \(1, 17, 24\)"),
        ({"depth": 4}, "encoder blocks: expected 4, received 3"),
        ({"depth": 2}, "encoder blocks: expected 2, received 3"),
        ({"num_heads": 4}, r"query/kernel: expected shape \(24, 4, 6\), received \(24, 3, 8\)"),
        ({"mlp_dim": 96}, "Dense_0/kernel: expected shape"),
    ],
)
def test_the_checkpoint_of_another_model_changes_nothing(
    fields: dict[str, Any], message: str
) -> None:
    model = _model(**fields)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as caught:
        load_npz(model, CHECKPOINT)
    assert "width 24, 3 blocks, patches (8, 8), 3 heads, MLP width 48" in str(caught.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "fields", [{}, {"num_classes": 5, "classifier": "token"}, {"image_size": (48, 48)}]
)
def test_strict_refuses_any_difference_and_changes_nothing(fields: dict[str, Any]) -> None:
    model = _model(**fields)
    before = model.get_weights()
    with pytest.raises(ValueError, match="does not match .* exactly"):
        load_npz(model, CHECKPOINT, strict=True)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_the_file_lacks_or_has_besides_is_named(tmp_path: Path) -> None:
    arrays = _prefixed("params/")(_arrays())
    del arrays["params/Transformer/encoder_norm/bias"]
    arrays = {**arrays, "opt/count": np.zeros(1), "params/Transformer/other/scale": np.zeros(1)}
    model = _model(classifier="token")
    report = load_npz(model, _save(tmp_path, arrays))
    assert report.missing == ("Transformer/encoder_norm/bias",)
    assert report.left_over == ("opt/count", "params/Transformer/other/scale")
    named = {*report.loaded, *report.resized, *report.skipped, *report.missing}
    assert len(named) == len(model.trainable_variables)


def test_files_that_are_no_vit_checkpoint(tmp_path: Path) -> None:
    model = _model()
    with pytest.raises(ValueError, match="no public ViT checkpoint"):
        load_npz(model, GOLDENS / "augreg_expected.npz")
    with pytest.raises(ValueError, match="no encoder block"):
        load_npz(model, _save(tmp_path, {KERNEL: _arrays()[KERNEL]}))
    twice = {**_arrays(), "pos_embedding": _arrays()[POSITIONS]}
    with pytest.raises(ValueError, match="twice"):
        load_npz(model, _save(tmp_path, twice))
    page = tmp_path / "page.npz"
    page.write_text("<!doctype html><title>Sign in</title>")
    with pytest.raises(ValueError, match="web page"):
        load_npz(model, page)
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        load_npz(model, tmp_path / "absent.npz")


def test_targets_and_arguments_that_are_refused() -> None:
    with pytest.raises(ValueError, match="model of tk.build_model"):
        load_npz(tk.TokenLearner(4), CHECKPOINT)
    with pytest.raises(ValueError, match="no name for"):
        load_npz(keras.Sequential([keras.Input((4,)), keras.layers.PReLU()]), CHECKPOINT)
    with pytest.raises(ValueError, match="inflation"):
        load_npz(_model(), CHECKPOINT, inflation="middle")


def test_weights_stay_in_the_models_own_type() -> None:
    keras.config.set_dtype_policy("bfloat16")
    model = _model(classifier="token")
    load_npz(model, CHECKPOINT, strict=True)
    kernel = reference_parameters(model)[KERNEL].variable
    assert kernel.dtype == "bfloat16"
    loaded = keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32"))
    np.testing.assert_allclose(loaded, _arrays()[KERNEL], rtol=2**-8)
