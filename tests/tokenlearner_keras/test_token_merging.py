"""TokenMerging against the steps of the paper written as loops in NumPy, float64."""

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tests.helpers.round_trips import needs_xla
from tokenlearner_keras.layers.token_merging import merged_lengths

pytestmark = pytest.mark.every_backend


def _pairs(tokens: np.ndarray, number: int, protected: int) -> list[tuple[int, int]]:
    """Returns the places of the tokens that are merged and of those that take them."""
    unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    even = range(protected, len(tokens), 2)
    odd = range(protected + 1, len(tokens), 2)
    found = []
    for i in even:
        similarity, j = max((float(unit[i] @ unit[j]), -j) for j in odd)
        found.append((-similarity, i, -j))
    return [(i, j) for _, i, j in sorted(found)[:number]]


def _expected(
    x: np.ndarray, number: int, protected: int = 0, sizes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (B, N - number, C) and sizes of x (B, N, C)."""
    x = x.astype("float64")
    sizes = np.ones(x.shape[:2]) if sizes is None else sizes
    rows, row_sizes = [], []
    for tokens, weights in zip(x, sizes, strict=True):
        pairs = _pairs(tokens, number, protected)
        gone = {i for i, _ in pairs}
        groups = {n: [n] for n in range(len(tokens)) if n not in gone}
        for i, j in pairs:
            groups[j].append(i)
        row_sizes.append([weights[group].sum() for group in groups.values()])
        rows.append([np.average(tokens[g], axis=0, weights=weights[g]) for g in groups.values()])
    return np.array(rows), np.array(row_sizes)


def _both(layer: Any, *args: Any, **kwargs: Any) -> list[np.ndarray]:
    return [to_numpy(each) for each in layer(*args, **kwargs, return_sizes=True)]


@pytest.mark.parametrize("protected", [0, 1, 2])
@pytest.mark.parametrize(("count", "number"), [(10, 3), (11, 5), (10, 4), (7, 1), (4, 1)])
def test_tokens_and_sizes_are_those_of_the_loops(count: int, number: int, protected: int) -> None:
    x = random(3, count + protected, 6)
    sizes = np.random.default_rng(1).integers(1, 9, x.shape[:2]).astype("float32")
    layer = tk.TokenMerging(number, protected)
    for given in (None, sizes):
        tokens, found = _both(layer, x, sizes=given)
        expected, expected_sizes = _expected(x, number, protected, given)
        assert tokens.shape == (3, count + protected - number, 6) and found.dtype == "float32"
        assert np.array_equal(found, expected_sizes)
        assert np.abs(tokens - expected).max() < 1e-5
        assert np.array_equal(to_numpy(layer(x, sizes=given)), tokens)
    # What takes no part stays what it was, at its place.
    assert np.array_equal(_both(layer, x)[0][:, :protected], x[:, :protected])


def test_the_most_similar_pair_becomes_its_mean_and_the_order_stays() -> None:
    x = np.eye(6, 8, dtype="float32")[None] + 0.01 * random(1, 6, 8)
    x[0, 4] = 3 * x[0, 1] + 0.001 * random(8)
    tokens, sizes = _both(tk.TokenMerging(1), x)
    mean = (x[0, 1] + x[0, 4]) / 2
    assert np.allclose(tokens[0], [x[0, 0], mean, x[0, 2], x[0, 3], x[0, 5]], atol=1e-6)
    assert sizes.tolist() == [[1, 2, 1, 1, 1]]
    for place in (0, 2, 3, 4):
        assert np.array_equal(tokens[0, place], x[0, place + (place == 4)])


def test_several_tokens_may_join_one() -> None:
    x = random(1, 8, 6)
    x[:, [0, 2, 6]] = x[:, [3]] + 0.001 * random(1, 3, 6)
    tokens, sizes = _both(tk.TokenMerging(3), x)
    assert sizes.tolist() == [[1, 4, 1, 1, 1]]
    assert np.allclose(tokens[0, 1], x[0, [0, 2, 3, 6]].mean(0), atol=1e-6)


def test_means_over_several_mergings_are_means_of_the_first_tokens() -> None:
    x = random(2, 12, 6)
    inputs = keras.Input((12, 6))
    tokens, sizes = tk.TokenMerging(5)(inputs, return_sizes=True)
    tokens, sizes = tk.TokenMerging(3)(tokens, sizes=sizes, return_sizes=True)
    assert tokens.shape == (None, 4, 6) and sizes.shape == (None, 4)
    model = keras.Model(inputs, [tokens, sizes])
    found, found_sizes = (to_numpy(each) for each in model(x))
    assert np.allclose(found_sizes.sum(-1), 12) and found_sizes.max() > 2
    total = (found * found_sizes[..., None]).sum(1)
    assert np.allclose(total, x.sum(1), atol=1e-5)
    # Without the sizes a token of many is worth one.
    unweighted = to_numpy(tk.TokenMerging(3)(tk.TokenMerging(5)(x)))
    assert not np.allclose(unweighted, found, atol=1e-3)


def test_equal_tokens_are_merged_in_their_order() -> None:
    """As on an empty canvas: exactly so many, whatever the ties."""
    x = np.ones((2, 9, 4), "float32")
    x[1] = 0
    tokens, sizes = _both(tk.TokenMerging(4), x)
    assert np.array_equal(tokens, x[:, :5])
    assert np.all(np.isfinite(tokens)) and np.all(sizes.sum(-1) == 9) and sizes.max() == 5


def test_frames_are_merged_one_by_one() -> None:
    x = random(2, 3, 10, 6)
    sizes = np.random.default_rng(1).integers(1, 9, (2, 3, 10)).astype("float32")
    layer = tk.TokenMerging(4, 1)
    tokens, found = _both(layer, x, sizes=sizes)
    assert tokens.shape == (2, 3, 6, 6) == layer.compute_output_shape(x.shape)
    for time in range(3):
        alone = _both(layer, x[:, time], sizes=sizes[:, time])
        assert np.allclose(tokens[:, time], alone[0], atol=1e-6)
        assert np.array_equal(found[:, time], alone[1])


@pytest.mark.parametrize("protected", [0, 1])
def test_gradients_flow_through_the_means(protected: int, gradients: Any) -> None:
    x, cotangent = random(2, 9, 6), random(2, 6, 6, seed=1)
    layer = tk.TokenMerging(3, protected)
    layer(x)
    (found,), _ = gradients(layer, [x], cotangent, [])
    expected = np.zeros_like(x)
    for row, tokens in enumerate(x.astype("float64")):
        pairs = _pairs(tokens, 3, protected)
        gone = {i for i, _ in pairs}
        kept = [n for n in range(9) if n not in gone]
        for place, n in enumerate(kept):
            group = [n, *(i for i, j in pairs if j == n)]
            expected[row, group] = cotangent[row, place] / len(group)
    assert np.abs(found - expected).max() < 1e-6


def test_nothing_to_merge() -> None:
    x = random(2, 1, 6)
    tokens, sizes = _both(tk.TokenMerging(0), x)
    assert np.array_equal(tokens, x) and np.all(sizes == 1)


def test_an_empty_batch() -> None:
    for shape in ((0, 8, 6), (0, 2, 8, 6)):
        tokens, sizes = _both(tk.TokenMerging(3), np.zeros(shape, "float32"))
        assert tokens.shape == (*shape[:-2], 5, 6) and sizes.shape == (*shape[:-2], 5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(policy: str) -> None:
    # Their squares are beyond float16.
    x = keras.ops.cast(300 * random(2, 12, 6), policy.removeprefix("mixed_"))
    sizes = np.full((2, 12), 2049, "float32")  # which half precision rounds
    layer = tk.TokenMerging(4, dtype=policy)
    tokens = layer(x, sizes=sizes, return_sizes=True)
    assert [keras.backend.standardize_dtype(each.dtype) for each in tokens] == [
        layer.compute_dtype,
        "float32",
    ]
    expected, expected_sizes = _expected(to_numpy(x), 4, sizes=sizes)
    assert np.array_equal(to_numpy(tokens[1]), expected_sizes)
    assert np.abs(to_numpy(tokens[0]) - expected).max() < 0.005 * np.abs(expected).max()


@needs_xla
def test_compiled_by_xla() -> None:
    x, layer = random(2, 12, 6), tk.TokenMerging(4, 1)
    if keras.backend.backend() == "jax":
        import jax

        found = jax.jit(layer)(x)
    else:
        import tensorflow as tf

        found = tf.function(layer, jit_compile=True)(tf.constant(x))
    assert np.abs(to_numpy(found) - _expected(x, 4, 1)[0]).max() < 1e-5


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="is about torch.compile")
def test_torch_compiles_it_as_one_graph() -> None:
    import torch

    x, layer = random(2, 12, 6), tk.TokenMerging(4, 1)
    layer(x)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert np.array_equal(to_numpy(compiled(torch.as_tensor(x))), to_numpy(layer(x)))


def test_an_unknown_number_of_tokens() -> None:
    inputs = keras.Input((None, 6))
    tokens, sizes = tk.TokenMerging(2)(inputs, return_sizes=True)
    assert tokens.shape == (None, None, 6) and sizes.shape == (None, None)
    model = keras.Model(inputs, [tokens, sizes])
    for count in (5, 8):
        x = random(2, count, 6)
        # `predict` compiles, with a length that is unknown inside.
        for found, expected in zip(model.predict(x, verbose=0), _expected(x, 2), strict=True):
            assert np.allclose(found, expected, atol=1e-5)


def test_files(tmp_path: Path) -> None:
    inputs = keras.Input((12, 6))
    x, sizes = tk.TokenMerging(4, 1, name="first")(inputs, return_sizes=True)
    model = keras.Model(inputs, tk.TokenMerging(2, 1, name="second")(x, sizes=sizes))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = random(2, 12, 6)
    assert np.array_equal(to_numpy(loaded(x)), to_numpy(model(x)))
    assert loaded.get_layer("first").get_config() == model.get_layer("first").get_config()


@pytest.mark.parametrize(("shape", "protected"), [((196, 32), 0), ((197, 32), 1), ((3, 49, 32), 0)])
def test_cost(shape: tuple[int, ...], protected: int) -> None:
    inputs = keras.Input(shape)
    model = keras.Model(inputs, tk.TokenMerging(13, protected)(inputs))
    if len(shape) == 2:
        # 98 x 98 similarities; then 183 means of 196 tokens and of their sizes.
        assert tk.count_macs(model) == 98 * 98 * 32 + 183 * 196 * (32 + 1)
    else:
        assert tk.count_macs(model) == 3 * (25 * 24 * 32 + 36 * 49 * (32 + 1))


def test_what_is_refused() -> None:
    for arguments in ((-1,), (2.5,), (None,), (3, -1), (3, True)):
        with pytest.raises(ValueError, match="must be an integer of at least 0"):
            tk.TokenMerging(*arguments)
    layer = tk.TokenMerging(5, 1)
    message = r"num_merged=5 tokens .* here 4. .*\(2, 10, 6\), num_protected=1. Take a smaller"
    for x in (random(2, 10, 6), keras.Input((10, 6), batch_size=2)):
        with pytest.raises(ValueError, match=message):
            layer(x)
    for shape in ((2, 6), (1, 2, 2, 12, 6)):
        with pytest.raises(ValueError, match=r"expects tokens \(batch, tokens, channels\) or"):
            layer(np.ones(shape, "float32"))
    with pytest.raises(ValueError, match=r"a size for each token, \(2, 12\). Received .*\(2, 11\)"):
        layer(random(2, 12, 6), sizes=np.ones((2, 11), "float32"))
    with pytest.raises(ValueError, match="expects floating-point inputs. Received int32"):
        layer(np.ones((2, 12, 6), "int32"))


@pytest.mark.parametrize(
    ("length", "target", "lengths"),
    [
        (196, 8, (152, 108, 64, 32, 16, 8)),
        (196, 184, (194, 192, 190, 188, 186, 184)),
        (64, 8, (32, 16, 8)),
        (10, 5, (8, 6, 5)),
        (7, 7, (7, 7)),
        (9, 1, (6, 4, 2, 1)),
    ],
)
def test_schedules(length: int, target: int, lengths: tuple[int, ...]) -> None:
    assert merged_lengths(length, target, len(lengths)) == lengths


def test_schedules_are_as_even_as_half_allows() -> None:
    for length, mergings in itertools.product(range(1, 40), range(1, 6)):
        least = -(-length // 2**mergings)
        for target in range(least, length + 1):
            lengths = (length, *merged_lengths(length, target, mergings))
            merged = [before - after for before, after in itertools.pairwise(lengths)]
            assert len(merged) == mergings and lengths[-1] == target
            assert all(2 * gone <= n for gone, n in zip(merged, lengths, strict=False))
            # Where a merging takes less than one before it, by more than rounding, it takes half.
            for gone, after in zip(merged, lengths[1:], strict=True):
                assert max(merged) - gone <= 1 or gone == after
        if least > 1:
            with pytest.raises(ValueError, match=f"leave {least} to {length} of them.*Received"):
                merged_lengths(length, least - 1, mergings)
    with pytest.raises(ValueError, match="Received: 9"):
        merged_lengths(8, 9, 2)
