"""Exports a `.keras` file to StableHLO in a separate process, with Keras on JAX.

python -m trainers.exporting.stablehlo_process MODEL.keras OUTPUT SHAPE STATISTICS

SHAPE is that of one input, STATISTICS null for normalised floats, or for bytes the means
and deviations of their channels; both are JSON. `stablehlo` runs this.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
from jax import export

import tokenlearner_keras  # noqa: F401  (registers the layers of saved models)
from tokenlearner_keras.layers.dot_product_attention import without_kernels

# Where platforms need different operations, the program holds all of them.
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def main(path: str, output: str, shape: list[int], statistics: list[list[float]] | None) -> None:
    """Writes the program."""
    model = keras.saving.load_model(path, compile=False)

    def logits(images: jax.Array) -> jax.Array:
        if statistics is not None:
            mean, deviation = (jnp.asarray(each, jnp.float32) for each in statistics)
            images = (images.astype(jnp.float32) - mean) / deviation
        return model(images, training=False)

    (batch,) = export.symbolic_shape("batch")
    dtype = jnp.float32 if statistics is None else jnp.uint8
    images = jax.ShapeDtypeStruct((batch, *shape), dtype)
    with without_kernels():
        program = export.export(jax.jit(logits), platforms=_PLATFORMS)(images)
    Path(output).write_bytes(program.serialize())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4]))
