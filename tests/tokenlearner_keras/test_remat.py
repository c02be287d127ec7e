"""Rematerialisation changes what is kept for the backward pass, and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tests.helpers.round_trips import ON_JAX
from tests.helpers.round_trips import check_files
from tests.helpers.round_trips import waken
from tests.helpers.round_trips import without_and_with_jit
from tokenlearner_keras.layers.encoder_block import EncoderBlock

BACKEND = keras.backend.backend()
RATES = {"dropout": 0.2, "attention_dropout": 0.2, "stochastic_depth": 0.5}


@pytest.fixture(autouse=True)
def _policy() -> Iterator[None]:
    yield
    keras.config.set_dtype_policy("float32")


def _model(remat: bool, **overrides: Any) -> keras.Model:
    """Returns a model whose weights and random numbers do not depend on `remat`."""
    keras.backend.clear_session()  # the names of generators are numbered
    keras.utils.set_random_seed(1)
    fields = {"image_size": 8, "width": 8, "num_heads": 2, "mlp_dim": 12, "num_classes": 3}
    model = tk.create_model("vit_ti4_d2_tl2at1", **{**fields, **overrides}, remat=remat)
    waken(model)
    return model


def _arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns all variables, the states of the random generators among them."""
    arrays = {f"{n}: {v.path}": to_numpy(v) for n, v in enumerate(model.variables)}
    if BACKEND == "torch":  # Dropout draws from torch's own generator there.
        return {n: a for n, a in arrays.items() if "seed_generator_state" not in n}
    return arrays


def _fit(model: keras.Model, jit_compile: bool) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    keras.utils.set_random_seed(2)
    model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=jit_compile)
    model.fit(random(6, 8, 8, 3), np.arange(6) % 3, batch_size=2, shuffle=False, verbose=0)


@pytest.mark.every_backend
@without_and_with_jit
def test_training_is_the_same_with_dropout(jit_compile: bool) -> None:
    plain, remat = _model(False, **RATES), _model(True, **RATES)
    start = _arrays(plain)
    for model in (plain, remat):
        _fit(model, jit_compile)
    expected, received = _arrays(plain), _arrays(remat)
    assert expected.keys() == received.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(received[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    moved = [name for name in expected if not np.array_equal(start[name], expected[name])]
    states = [name for name in moved if "seed_generator_state" in name]
    assert BACKEND == "torch" or any("encoder_block_1" in name for name in states)
    assert any("encoder_block_0/mlp/hidden/kernel" in name for name in moved)


@pytest.mark.slow
@pytest.mark.every_backend
def test_training_is_the_same_in_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    plain, remat = _model(False), _model(True)
    images = random(2, 8, 8, 3)
    np.testing.assert_array_equal(to_numpy(remat(images)), to_numpy(plain(images)))
    for model in (plain, remat):
        _fit(model, jit_compile=ON_JAX)
    for name, value in _arrays(plain).items():
        np.testing.assert_allclose(_arrays(remat)[name], value, rtol=0.02, atol=2e-3, err_msg=name)


def test_frozen_blocks_stay_frozen() -> None:
    model = _model(True, **RATES)
    block = model.get_layer("encoder_block_1")
    block.trainable = False
    before, others = [to_numpy(each) for each in block.weights], _arrays(model)
    _fit(model, jit_compile=ON_JAX)
    for old, variable in zip(before, block.weights, strict=True):
        assert np.array_equal(old, to_numpy(variable)), variable.path
    name = next(name for name in others if "encoder_block_0/mlp/hidden/kernel" in name)
    assert not np.array_equal(others[name], _arrays(model)[name])


@pytest.mark.every_backend
def test_files(tmp_path: Path) -> None:
    model = _model(True, **RATES)
    check_files(model, _model(True, **RATES), random(2, 8, 8, 3), tmp_path)
    assert model.get_layer("encoder_block_0").get_config()["remat"] is True
    # Weights go both ways: remat is no part of them.
    plain = _model(False)
    plain.load_weights(tmp_path / "model.weights.h5")


def test_flag_is_checked() -> None:
    with pytest.raises(ValueError, match="`remat` must be one of False, True, 'all_but_attention'"):
        tk.VisionTransformerConfig(remat="yes")  # type: ignore[arg-type]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="reads TensorFlow's graph")
@pytest.mark.parametrize("remat", [False, True])
def test_tensorflow_computes_twice(remat: bool) -> None:
    import tensorflow as tf

    model = _model(remat, **RATES)

    @tf.function
    def gradients(images: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True))
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    graph = gradients.get_concrete_function(tf.TensorSpec((2, 8, 8, 3))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    # TokenLearner's softmax, and one of each of two blocks.
    assert kinds.count("Softmax") == 1 + 2 * (1 + remat)


@pytest.mark.skipif(not ON_JAX, reason="reads JAX's program")
@pytest.mark.parametrize("remat", [False, True])
def test_jax_computes_twice(remat: bool) -> None:
    import jax

    block = EncoderBlock(2, 64, dropout=0.1, remat=remat)
    block.build((None, 64, 8))
    trained = [variable.value for variable in block.trainable_variables]
    others = [variable.value for variable in block.non_trainable_variables]

    def loss(weights: Any, x: Any) -> Any:
        y, _ = block.stateless_call(weights, others, x, training=True)
        return y.sum()

    program = str(jax.make_jaxpr(jax.grad(loss))(trained, random(2, 64, 8)))
    assert ("remat" in program) == remat


@pytest.mark.skipif(BACKEND != "torch", reason="counts what torch keeps")
def test_torch_keeps_less() -> None:
    import torch

    def kept(remat: bool) -> int:
        block = EncoderBlock(2, 64, dropout=0.1, remat=remat)
        x = torch.from_numpy(random(2, 64, 8)).requires_grad_()
        block(x, training=False)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            block(x, training=True)
        return sum(sizes)

    assert kept(True) < kept(False) / 3
