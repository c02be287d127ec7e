"""Each form of attention against the matrix of all weights, forward and with all gradients."""

import functools
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tests.helpers.backends import ON_JAX
from tests.helpers.round_trips import without_and_with_jit
from tokenlearner_keras.layers import dot_product_attention as forms
from tokenlearner_keras.layers.attention import MultiHeadAttention
from tokenlearner_keras.layers.encoder_block import EncoderBlock
from tokenlearner_keras.layers.pooling import AttentionPooling
from tokenlearner_keras.layers.video_attention import GridAttention

if ON_JAX:
    import jax

    from tokenlearner_keras.layers import jax_attention

on_jax = pytest.mark.skipif(not ON_JAX, reason="JAX alone has the kernel")
SIZES = (1, 2, 16, 127, 128, 129, 197, 257, 384, 577, 677, 700)
#: Of an array's largest value.
TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}


class Attention(keras.layers.Layer):
    """A form of attention as a layer, for the fixture `gradients`."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.form = form
        self.built = True

    def call(self, queries: Any, keys: Any, values: Any) -> Any:
        return self.form(queries, keys, values)


def _plain(*inputs: Any) -> Any:
    return forms.plain_attention(*inputs)[0]


def _inputs(queries: int, keys: int, dim: int = 8, value_dim: int = 8) -> list[np.ndarray]:
    """Returns queries, keys and values of 2 examples and 2 heads."""
    shapes = ((queries, dim), (keys, dim), (keys, value_dim))
    scales = (dim**-0.5, 1.0, 1.0)
    pairs = enumerate(zip(shapes, scales, strict=True))
    return [random(2, 2, *shape, seed=i) * np.float32(scale) for i, (shape, scale) in pairs]


def _assert_close(received: Any, expected: Any, tolerance: float) -> None:
    scale = np.abs(expected).max() or 1.0
    np.testing.assert_allclose(to_numpy(received), expected, rtol=0, atol=tolerance * scale)


def _check(form: Any, inputs: list[np.ndarray], gradients: Any) -> None:
    cotangent = random(*inputs[0].shape[:3], inputs[2].shape[3], seed=9)
    expected, _ = gradients(Attention(_plain), inputs, cotangent, [])
    received, _ = gradients(Attention(form), inputs, cotangent, [])
    output = to_numpy(_plain(*map(ops.convert_to_tensor, inputs)))
    _assert_close(form(*map(ops.convert_to_tensor, inputs)), output, 1e-5)
    for one, other in zip(received, expected, strict=True):
        _assert_close(one, other, 1e-5)


@pytest.mark.every_backend
@pytest.mark.parametrize("sizes", [(1, 1), (1, 40), (8, 197), (300, 300), (270, 260)])
def test_the_best_form_is_the_plain_one(sizes: tuple[int, int], gradients: Any) -> None:
    _check(forms.dot_product_attention, _inputs(*sizes), gradients)


@pytest.mark.every_backend
@pytest.mark.parametrize("count", [5, 8, 9, 30])
def test_queries_in_chunks(count: int, gradients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(queries: Any, keys: Any, values: Any) -> tuple[Any, Any]:
        sizes.append(queries.shape[2])
        return whole(queries, keys, values)

    whole = forms.plain_attention
    monkeypatch.setattr(forms, "_MOST_LOGITS", 1)
    monkeypatch.setattr(forms, "_LEAST_QUERIES", 8)
    _check(forms._portable, _inputs(count, 7, value_dim=3), gradients)
    monkeypatch.setattr(forms, "plain_attention", counted)
    forms._portable(*map(ops.convert_to_tensor, _inputs(count, 7)))
    assert max(sizes) <= 8


@pytest.mark.every_backend
def test_large_logits_are_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def noted(queries: Any, keys: Any, values: Any) -> tuple[Any, Any]:
        shapes.append((queries.shape[1], queries.shape[2], keys.shape[2]))
        return whole(queries, keys, values)

    whole = forms.plain_attention
    monkeypatch.setattr(forms, "plain_attention", noted)
    for heads, tokens in ((16, 1024), (16, 3136), (432, 512)):
        Attention(forms._portable)(*[keras.Input((heads, tokens, 4), batch_size=1)] * 3)
    assert (16, 1024, 1024) in shapes
    assert all(heads * queries * keys <= forms._MOST_LOGITS for heads, queries, keys in shapes)


@on_jax
@pytest.mark.every_backend
def test_chunks_do_not_hold_the_matrix_for_the_backward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forms, "_MOST_LOGITS", 2**20)

    def total(*inputs: Any) -> Any:
        return ops.sum(forms._portable(*inputs))

    inputs = [jax.ShapeDtypeStruct((1, 4, 2048, 8), "float32")] * 3
    program = jax.jit(jax.grad(total, (0, 1, 2))).lower(*inputs).compile()
    assert program.memory_analysis().temp_size_in_bytes < 4 * 4 * 2048**2


@pytest.mark.every_backend
def test_a_layer_of_any_form_is_the_same() -> None:
    x = random(2, 300, 16)
    results = {}
    for form in forms.ATTENTION_FORMS:
        layer = MultiHeadAttention(2, attention=form)
        layer.build(x.shape)
        for index, weight in enumerate(layer.weights):
            weight.assign(random(*weight.shape, seed=index) * np.float32(0.2))
        results[form] = to_numpy(layer(x))
        assert layer.get_config()["attention"] == form
        np.testing.assert_allclose(to_numpy(layer.attend(x)[0]), results[form], atol=2e-5)
    np.testing.assert_allclose(results["auto"], results["plain"], atol=2e-5)
    np.testing.assert_allclose(results["fused"], results["plain"], atol=2e-5)


@pytest.mark.every_backend
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(("tokens", "heads"), [(1, 2), (260, 8)])
def test_fused_takes_whatever_there_is(tokens: int, heads: int, policy: str) -> None:
    """Also heads of one channel, one token, dropout, masks and unknown sizes."""
    layer = MultiHeadAttention(heads, dropout=0.1, attention="fused", dtype=policy)
    x = random(2, tokens, 8)
    for training in (False, True):
        assert np.all(np.isfinite(to_numpy(layer(x, training=training))))
    mask = ops.convert_to_tensor(np.arange(tokens)[None] < np.ones((2, 1)))
    attended, weights = layer.attend(ops.cast(x, layer.compute_dtype), key_mask=mask)
    assert np.all(np.isfinite(to_numpy(attended))) and not np.any(to_numpy(weights)[..., 1:])
    assert layer(keras.Input((None, 8))).shape == (None, None, 8)


def test_the_form_is_saved_and_checked() -> None:
    layers = (MultiHeadAttention(2, attention="plain"), AttentionPooling(2, 8, attention="plain"))
    for layer in (*layers, EncoderBlock(2, 8, attention="plain")):
        config = layer.get_config()
        assert type(layer).from_config(config).get_config()["attention"] == "plain"
        del config["attention"]  # as in a file of before
        assert type(layer).from_config(config).get_config()["attention"] == "auto"
    model = tk.create_model("vit_ti16", image_size=32, attention="fused", classifier="map")
    assert model.get_layer("encoder_block_3").attention.attention == "fused"
    assert model.get_layer("map_head").attention.attention == "fused"
    with pytest.raises(ValueError, match=r"`attention` must be one of .*'fused'.*Did you mean"):
        tk.VisionTransformerConfig(attention="fussed")


# The TPU's kernel, on this machine's CPU.


def _kernel(*inputs: Any) -> Any:
    return jax_attention.splash_attention(*inputs, interpret=True)


def _is_quick(size: int, dim: int, dtype: str) -> bool:
    return (size, dim, dtype) in ((16, 64, "float32"), (129, 80, "bfloat16"))


@on_jax
@pytest.mark.parametrize(
    ("size", "dim", "dtype"),
    [
        pytest.param(
            *case,
            marks=[pytest.mark.every_backend] + ([] if _is_quick(*case) else [pytest.mark.slow]),
        )
        for case in ((s, d, t) for s in SIZES for d in (64, 80) for t in TOLERANCES)
    ],
)
def test_the_kernel(size: int, dim: int, dtype: str) -> None:
    def with_gradients(form: Any, dtype: str) -> tuple[Any, ...]:
        *inputs, cotangent = (ops.cast(ops.cast(x, rounded), dtype) for x in arrays)
        output, pullback = jax.vjp(form, *inputs)
        return (output, *pullback(cotangent))

    rounded = dtype  # both get the same numbers
    # One example and head: two of them have the kernel do the same again.
    whole = (*_inputs(size, size, dim, dim), random(2, 2, size, dim, seed=9))
    arrays = [x[:1, :1] for x in whole]
    expected = with_gradients(_plain, "float32")
    for one, other in zip(with_gradients(_kernel, dtype), expected, strict=True):
        _assert_close(one, to_numpy(other), TOLERANCES[dtype])


@on_jax
@pytest.mark.slow
@pytest.mark.every_backend
def test_the_kernel_of_several_blocks_in_16_bits() -> None:
    arrays = [x[:1] for x in _inputs(1030, 1030, 64, 64)]
    expected = to_numpy(_plain(*map(ops.convert_to_tensor, arrays)))
    found = _kernel(*(ops.cast(x, "bfloat16") for x in arrays))
    _assert_close(found, expected, TOLERANCES["bfloat16"])


@on_jax
@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("count", "largest", "block"),
    [(1, 1024, 128), (197, 1024, 256), (577, 1024, 640), (1024, 1024, 1024), (1024, 512, 512)]
    + [(2601, 1024, 896), (3136, 1024, 640), (7744, 1024, 896)],
)
def test_blocks_are_few_and_hold_little_padding(count: int, largest: int, block: int) -> None:
    assert jax_attention._block(count, largest) == block


@on_jax
@pytest.mark.every_backend
def test_the_kernel_for_other_keys_than_queries(gradients: Any) -> None:
    _check(_kernel, _inputs(5, 130, dim=16, value_dim=24), gradients)


def _tpu_program(function: Any, *shapes: tuple[int, ...], dtype: str = "float32") -> str:
    """Returns what JAX gives a TPU's compiler; no TPU is needed."""
    inputs = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return str(jax.jit(function).trace(*inputs).lower(lowering_platforms=("tpu",)).as_text())


@on_jax
@pytest.mark.every_backend
def test_the_platform_that_is_lowered_for_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = [(1, 2, 196, 16)] * 3, [(1, 2, 257, 16)] * 3
    fused = functools.partial(forms.dot_product_attention, form="fused")
    plain = functools.partial(forms.dot_product_attention, form="plain")
    assert "tpu_custom_call" in _tpu_program(forms.dot_product_attention, *many)
    assert "tpu_custom_call" in _tpu_program(fused, *few)
    assert "tpu_custom_call" not in _tpu_program(forms.dot_product_attention, *few)
    assert "tpu_custom_call" not in _tpu_program(plain, *many)
    inputs = [jax.ShapeDtypeStruct(shape, "float32") for shape in many]
    assert "tpu_custom_call" not in jax.jit(forms.dot_product_attention).lower(*inputs).as_text()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "tpu_custom_call" in _tpu_program(forms.dot_product_attention, *many, dtype="bfloat16")


@on_jax
@pytest.mark.every_backend
def test_what_cudnn_does_not_take_is_computed_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def cudnn(queries: Any, *_: Any) -> Any:
        tried.append(queries.shape[2])
        return whole(queries, *_)  # this machine has no GPU, which is an error

    whole = jax_attention._cudnn
    monkeypatch.setattr(jax_attention, "_cudnn", cudnn)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for dtype in TOLERANCES:
        inputs = [ops.cast(x, dtype) for x in _inputs(9, 9)]
        expected = to_numpy(_plain(*inputs))
        _assert_close(forms.dot_product_attention(*inputs), expected, TOLERANCES[dtype])
    assert tried == [9]  # 16-bit numbers alone


@on_jax
@pytest.mark.every_backend
def test_one_program_for_several_platforms() -> None:
    from jax import export

    (batch,) = export.symbolic_shape("batch")
    inputs = [jax.ShapeDtypeStruct((batch, 2, 257, 8), "float32")] * 3
    # The kernel has no grid of an unknown number of examples.
    export.export(jax.jit(forms.dot_product_attention), platforms=("tpu",))(*inputs)
    with forms.without_kernels():
        attend = jax.jit(forms.dot_product_attention)
        program = export.export(attend, platforms=("cpu", "cuda", "tpu"))(*inputs)
    arrays = [random(2, 2, 257, 8, seed=seed) for seed in range(3)]
    expected = to_numpy(_plain(*map(ops.convert_to_tensor, arrays)))
    _assert_close(program.call(*arrays), expected, 1e-5)
    assert "tpu_custom_call" in _tpu_program(forms.dot_product_attention, *[(1, 2, 257, 8)] * 3)


@on_jax
@pytest.mark.every_backend
def test_dropout_and_weights_need_the_matrix() -> None:
    layer = MultiHeadAttention(2, dropout=0.1)
    layer.build((None, None, 16))
    shape = (1, 300, 16)
    assert "tpu_custom_call" in _tpu_program(layer, shape)
    assert "tpu_custom_call" not in _tpu_program(lambda x: layer(x, training=True), shape)
    assert "tpu_custom_call" not in _tpu_program(lambda x: layer.attend(x)[0], shape)
    one_channel = MultiHeadAttention(16)
    one_channel.build((None, None, 16))
    assert "tpu_custom_call" not in _tpu_program(one_channel, shape)
    grid = GridAttention("space", num_heads=1, key_width=8)
    grid.build((None, 1, 17, 17, 8))
    assert "tpu_custom_call" in _tpu_program(grid, (1, 1, 17, 17, 8))


@pytest.mark.every_backend
@without_and_with_jit
@pytest.mark.parametrize("remat", [True, "all_but_attention"])
def test_training_is_that_without_rematerialisation(remat: Any, jit_compile: bool) -> None:
    trained = {}
    for policy in (False, remat):
        keras.utils.set_random_seed(1)
        fields: dict[str, Any] = {"image_size": 72, "width": 8, "num_heads": 2, "mlp_dim": 8}
        model = tk.create_model("vit_ti4_d1", **fields, num_classes=3, remat=policy)  # 324 tokens
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=jit_compile)
        model.fit(random(2, 72, 72, 3), np.arange(2), batch_size=2, epochs=2, verbose=0)
        trained[policy] = [to_numpy(weight) for weight in model.trainable_variables]
    for one, other in zip(trained[remat], trained[False], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
