"""Rematerialisation of the convolutional models: the same training, the same statistics."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy
from tests.helpers.round_trips import ON_JAX
from tests.helpers.round_trips import waken

SHAPE = (2, 16, 16, 3)


def _model(remat: bool) -> Any:
    """Returns a model whose weights do not depend on `remat`."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    model = tk.create_model(
        "x2plus1d_m_tokenlearner",
        3,
        16,
        SHAPE[0],
        stem_width=4,
        widths=(4, 6),
        inner_widths=(6, 8),
        depths=(1, 2),
        module_blocks=1,
        num_tokens=2,
        num_heads=2,
        key_width=4,
        representation_size=None,
        dropout=0.5,
        remat=remat,
    )
    waken(model)
    return model


def _trained(remat: bool) -> dict[str, np.ndarray]:
    model = _model(remat)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    keras.utils.set_random_seed(2)
    model.compile(keras.optimizers.SGD(0.05), loss, jit_compile=ON_JAX)
    model.fit(random(4, *SHAPE), np.arange(4) % 3, batch_size=2, shuffle=False, verbose=0)
    arrays = {variable.path: to_numpy(variable) for variable in model.variables}
    return {name: value for name, value in arrays.items() if "seed_generator" not in name}


@pytest.mark.slow
def test_training_and_statistics_are_the_same() -> None:
    plain, remat = _trained(False), _trained(True)
    assert plain.keys() == remat.keys()
    for name, value in plain.items():
        np.testing.assert_allclose(remat[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    moving = [value for name, value in plain.items() if name.endswith("moving_mean")]
    assert len(moving) == 15 and all(np.any(value != 0) for value in moving)


def test_it_is_kept_in_files_and_by_a_change_of_size(tmp_path: Path) -> None:
    model = _model(True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model) and loaded.remat is True
    x = random(1, *SHAPE)
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))
    assert tk.resize_model(model, 24).remat is True
    assert _model(False).remat is False


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="reads TensorFlow's graph")
@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.slow
def test_tensorflow_convolves_twice(remat: bool) -> None:
    import tensorflow as tf

    keras.config.set_dtype_policy("mixed_bfloat16")  # where each layer casts its weights
    model = _model(remat)

    @tf.function
    def gradients(videos: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(videos, training=True))
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    function = gradients.get_concrete_function(tf.TensorSpec((2, *SHAPE)))
    kinds = [operation.type for operation in function.graph.get_operations()]
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv3D)]
    # All but the one after the last block.
    assert kinds.count("Conv3D") == len(layers) + remat * (len(layers) - 1)
    assert kinds.count("ReluGrad") == (0 if remat else kinds.count("Relu"))
    assert all(gradient.dtype == tf.float32 for gradient in function.outputs)


@pytest.mark.skipif(not ON_JAX, reason="reads JAX's program")
def test_jax_keeps_no_masks() -> None:
    import jax

    model = _model(True)
    arrays = [variable.value for variable in model.variables]

    def loss(arrays: list[Any]) -> Any:
        with keras.StatelessScope([*zip(model.variables, arrays, strict=True)]):
            return keras.ops.sum(model(random(2, *SHAPE), training=True))

    program = str(jax.make_jaxpr(jax.grad(loss, allow_int=True))(arrays))
    # A mask of activations has five axes.
    assert re.findall(r"bool\[\d+(?:,\d+){4}\]", program) == []
