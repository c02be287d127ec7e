"""Meshes of JAX devices: what lies where, and axes that cannot be."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.arrays import random
from tests.helpers.backends import ON_JAX
from tokenlearner_keras.layers.dot_product_attention import dot_product_attention
from tokenlearner_keras.layers.dot_product_attention import plain_attention
from trainers.utils.errors import ConfigurationError

if not ON_JAX:
    pytest.skip("JAX only: TensorFlow has strategies", allow_module_level=True)

import jax

from tokenlearner_keras.layers import jax_attention
from trainers.engines.engine import to_numpy
from trainers.engines.hosts import Hosts
from trainers.engines.jax_engine import JaxEngine
from trainers.engines.jax_sharding import JaxLayout

pytestmark = pytest.mark.every_backend


@dataclasses.dataclass(frozen=True)
class _Device:
    """A device of several hosts, to be named only."""

    id: int
    process_index: int
    platform: str = "cpu"


def _devices(hosts: int, of_each: int) -> list[_Device]:
    """Returns devices, not in order."""
    return [_Device(id, id // of_each) for id in reversed(range(hosts * of_each))]


@pytest.mark.parametrize(
    ("batch_axis", "model_axis", "message"),
    [
        (None, 3, "--model_axis must be one of 1, 2, 4, 8, .* 8 devices .* Received: 3"),
        (None, 0, "--model_axis must be one of .* Received: 0"),
        (None, -2, "--model_axis must be one of .* Received: -2"),
        (None, 16, "--model_axis must be one of .* Received: 16"),
        (3, 1, "must be the number of devices, 8. Received: 3 and 1. .* set it to 8"),
        (
            8,
            2,
            "Received: 8 and 2. .* leave --batch_axis out, set it to 4, set --model_axis=1 with",
        ),
        (2, 1, "Received: 2 and 1. .* set --model_axis=4 with it"),
        (0, 1, "Received: 0 and 1. .* set it to 8"),
    ],
)
def test_axes_that_do_not_make_up_the_devices(
    batch_axis: int | None, model_axis: int, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        JaxLayout(jax.devices(), batch_axis, model_axis)


def test_devices_that_share_weights_are_of_one_host() -> None:
    layout = JaxLayout(_devices(hosts=2, of_each=4), None, 4)
    found = [[device.process_index for device in row] for row in layout.mesh.devices]
    assert found == [[0] * 4, [1] * 4]
    assert [device.id for device in layout.mesh.devices.flat] == list(range(8))
    with pytest.raises(ConfigurationError, match="on one host. Received 8, where a host has 4"):
        JaxLayout(_devices(hosts=2, of_each=4), None, 8)


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((256, 512), (256, 128)),  # the longest
        ((512, 512), (128, 512)),  # of two, the first
        ((1001, 64), (1001, 16)),  # the longest that is even
        ((1001, 3, 17), (1001, 3, 17)),  # none is
        ((64, 64), (64, 64)),  # too small
        ((), ()),
    ],
)
def test_weights_are_cut_along_their_longest_even_dimension(
    shape: tuple[int, ...], part: tuple[int, ...]
) -> None:
    cut, whole = JaxLayout(jax.devices(), 2, 4), JaxLayout(jax.devices())
    assert cut.sharding_of(shape).shard_shape(shape) == part
    assert whole.sharding_of(shape).shard_shape(shape) == shape
    variable = SimpleNamespace(shape=shape, dtype="float32")
    assert cut.device_bytes([variable]) == 4 * int(np.prod(part))
    assert whole.device_bytes([variable] * 2) == 8 * int(np.prod(shape))


def test_values_come_and_go_whole() -> None:
    layout = JaxLayout(jax.devices(), 2, 4)
    value = np.random.default_rng(0).normal(size=(256, 128)).astype(np.float32)
    variable = keras.Variable(value)
    placed = layout.place(variable)
    parts = [part.data for part in placed.addressable_shards]
    assert len(parts) == 8 and {part.shape for part in parts} == {(64, 128)}
    np.testing.assert_array_equal(to_numpy(placed), value)
    np.testing.assert_array_equal(to_numpy(variable), value)
    # It stays there, and is moved once.
    assert variable.value is placed and layout.place(variable) is placed


def test_a_line_about_the_devices() -> None:
    devices = jax.devices()
    alone = JaxEngine(JaxLayout(devices[:1]), Hosts()).describe()
    assert alone == f"JAX {jax.__version__}, 1 device: {devices[0]}"
    shared = JaxEngine(JaxLayout(devices, None, 4), Hosts()).describe()
    assert shared.startswith(f"JAX {jax.__version__}, 8 devices, 4 of them share the weights: ")
    assert all(str(device) in shared for device in devices)
    many = JaxLayout(_devices(hosts=4, of_each=4))
    of_pod = JaxEngine(many, Hosts(4, 2, gather=lambda value: [value] * 4)).describe()
    assert "16 devices: host 2 of 4, " in of_pod and ", ..., " in of_pod


@pytest.mark.parametrize("shape", [(8, 1), (2, 4), (4, 2)])
def test_a_kernel_gets_a_part_of_batch_or_heads(shape: tuple[int, int]) -> None:
    layout = JaxLayout(jax.devices(), *shape)
    # 8 examples, one for each device; 2 examples and 4 heads; what no device can share.
    for batch, heads, devices in ((8, 2, 8), (2, 4, 8 if shape != (8, 1) else 1), (3, 1, 1)):
        inputs = [random(batch, heads, 9, 8, seed=seed) for seed in range(3)]
        expected = to_numpy(plain_attention(*map(jax.numpy.asarray, inputs))[0])
        parts: list[Any] = []

        def kernel(*part: Any, parts: list[Any] = parts) -> Any:
            parts.append(part[0])
            return plain_attention(*part)[0]

        def attend(*inputs: Any, kernel: Any = kernel) -> Any:
            with layout.in_force():
                return jax_attention._on_all_devices(kernel, *inputs)

        received = jax.jit(attend)(*jax.device_put(inputs, layout.replicated))
        np.testing.assert_allclose(to_numpy(received), expected, atol=1e-6)
        assert parts[0].size * devices == inputs[0].size


def test_keras_distribution_says_how_devices_share_a_kernel() -> None:
    devices = [f"cpu:{index}" for index in range(8)]
    inputs = [jax.ShapeDtypeStruct((8, 2, 300, 8), "float32")] * 3
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        traced = jax.jit(dot_product_attention).trace(*inputs)
    finally:
        keras.distribution.set_distribution(None)
    program = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "tpu_custom_call" in program and "tensor<1x2x300x8xf32>" in program
