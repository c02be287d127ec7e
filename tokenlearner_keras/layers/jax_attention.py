"""Attention on JAX by the kernels of TPUs and GPUs, also where the chips are only described."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax.sharding import PartitionSpec

#: What `rematerialize_all_but_attention` keeps: the kernel's results and their normalisers.
_KEPT = "attention"
_TILE = 128  # rows and columns of the TPU's matrix units
# For fewer queries and keys, the compiler's plain program moves fewer bytes through HBM than the
# kernel (v5e; it is 1.2 GB against 1.7 for 197 tokens, and 7.1 against 3.7 for 577).
_FEW = 256
# What a step of the kernel costs beside its tiles, in tiles: libtpu's schedules for v5e, forward
# and backward, have 1,385 cycles for a block of one tile and 20,627 for one of 64.
_STEP_COST = 4.5


def jax_attention(
    queries: Any, keys: Any, values: Any, otherwise: Callable[..., Any], always: bool
) -> Any:
    """Returns attention as `dot_product_attention` does; `otherwise` is the form for other places.

    The platform that the program is lowered for decides, not the devices of this process; but only
    a process with a GPU can tell whether cuDNN takes these sizes. `always` takes the TPU's kernel
    also for few queries and keys.
    """
    forms: dict[str, Callable[..., Any]] = {}
    if _has_kernel(queries, values) and (always or queries.shape[2] * keys.shape[2] > _FEW**2):
        forms["tpu"] = functools.partial(_on_all_devices, splash_attention)
    if _has_cudnn(queries, keys, values):
        forms["cuda"] = _cudnn
    if not forms:
        return otherwise(queries, keys, values)
    return jax.lax.platform_dependent(queries, keys, values, default=otherwise, **forms)


def one_after_another(
    attend: Callable[[jax.Array], jax.Array], queries: jax.Array, size: int
) -> jax.Array:
    """Applies `attend` to so many queries at a time.

    It is a loop, for XLA may compute chunks that do not wait for each other at once, and hold the
    weights of them all.
    """
    batch, heads, count, dim = queries.shape
    chunks = _padded(queries, size).reshape(batch, heads, -1, size, dim)
    parts = jnp.moveaxis(jax.lax.map(attend, jnp.moveaxis(chunks, 2, 0)), 0, 2)
    return parts.reshape(batch, heads, -1, parts.shape[4])[:, :, :count]


def rematerialize_all_but_attention(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that keeps its inputs and the kernel's results for the backward pass."""
    policy = jax.checkpoint_policies.save_only_these_names(_KEPT)
    return jax.checkpoint(function, policy=policy)


def _has_cudnn(*inputs: Any) -> bool:
    if jax.default_backend() != "gpu" or inputs[0].dtype not in (jnp.bfloat16, jnp.float16):
        return False
    try:
        jax.eval_shape(_cudnn, *inputs)
    except (NotImplementedError, RuntimeError, ValueError):  # not for these sizes, or this GPU
        return False
    return True


def _cudnn(queries: Any, keys: Any, values: Any) -> Any:
    queries, keys, values = (x.swapaxes(1, 2) for x in (queries, keys, values))
    attended = jax.nn.dot_product_attention(
        queries, keys, values, scale=1.0, implementation="cudnn"
    )
    return attended.swapaxes(1, 2)


def _has_kernel(queries: Any, values: Any) -> bool:
    if queries.dtype not in (jnp.bfloat16, jnp.float32):
        return False
    # The kernel's grid is made of numbers: no symbols of jax.export, and none of them 0.
    if not all(isinstance(size, int) and size for size in (*queries.shape, *values.shape)):
        return False
    if not hasattr(jax, "shard_map") or min(queries.shape[3], values.shape[3]) < 8:
        return False
    # The compiler cannot divide a kernel between chips: it needs to know their mesh.
    return _mesh() is not None or jax.default_backend() != "tpu" or jax.device_count() == 1


def _mesh() -> Any:
    """Returns the mesh in force: that of `jax.set_mesh`, else that of Keras' distribution."""
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        return mesh
    distribution = keras.distribution.distribution()
    return None if distribution is None else distribution.device_mesh.backend_mesh


def _on_all_devices(attend: Callable[..., Any], *inputs: jax.Array) -> Any:
    """Runs attention on each device's part of the batch, and of the heads."""
    mesh = _mesh()
    if mesh is None or jax.sharding.AxisType.Manual in mesh.axis_types:
        return attend(*inputs)  # the caller's own shard_map has divided them already
    axes: list[list[str]] = [[], []]  # that divide the batch, and the heads
    for axis in mesh.axis_names:
        for dimension, names in enumerate(axes):
            shards = math.prod(mesh.shape[name] for name in (*names, axis))
            if inputs[0].shape[dimension] % shards == 0:
                names.append(axis)
                break
    spec = PartitionSpec(*(tuple(names) or None for names in axes))
    return jax.shard_map(attend, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(*inputs)


def splash_attention(
    queries: jax.Array, keys: jax.Array, values: jax.Array, interpret: bool = False
) -> jax.Array:
    """Returns attention by the Pallas kernel that JAX has for TPUs, for one device.

    `interpret` runs the kernel as plain JAX operations, on any device.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    largest = 1024 if queries.dtype.itemsize == 2 and queries.shape[3] <= 128 else 512
    count, key_count = queries.shape[2], keys.shape[2]
    block, key_block = _block(count, largest), _block(key_count, largest)
    queries = _padded(queries, block)
    keys, values = _padded(keys, key_block), _padded(values, key_block)
    segments = None
    if keys.shape[2] != key_count:  # padding is a segment that no query is in
        ids = (jnp.arange(keys.shape[2]) >= key_count).astype(jnp.int32)
        segments = kernels.SegmentIds(jnp.zeros(queries.shape[2], jnp.int32), ids)
    mask = masks.FullMask((queries.shape[2], keys.shape[2]))
    # One kernel for all gradients saves a quarter of their cycles. For several blocks of keys it
    # would write the queries' gradient once for each block.
    alone = keys.shape[2] == key_block
    kernel = kernels.make_splash_mha_single_device(
        masks.MultiHeadMask([mask] * queries.shape[1]),
        block_sizes=kernels.BlockSizes(
            block_q=block,
            block_kv=key_block,
            block_q_dkv=block,
            block_kv_dkv=key_block,
            block_q_dq=None if alone else block,
            block_kv_dq=None if alone else key_block,
            use_fused_bwd_kernel=alone,
        ),
        residual_checkpoint_name=_KEPT,
        interpret=interpret,
    )
    return jax.vmap(kernel, in_axes=(0, 0, 0, None))(queries, keys, values, segments)[:, :, :count]


def _block(count: int, largest: int) -> int:
    """Returns the size of the blocks that a sequence is padded to and cut into."""

    def cost(block: int) -> float:
        blocks = math.ceil(count / block)
        return blocks**2 * ((block // _TILE) ** 2 + _STEP_COST)

    return min(range(_TILE, largest + 1, _TILE), key=cost)


def _padded(x: jax.Array, block: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % block), (0, 0)))
