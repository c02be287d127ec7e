"""The numbers that every implementation computes with, from one seed."""

import math

import numpy as np

BOTTLENECK_DIM = 64
NUM_CONVOLUTIONS = 4
NUM_HEADS = 8
NUM_CLASSES = 1000
#: Width, heads and width of the MLP; twelve blocks and patches of 16x16 throughout.
SIZES = {"s": (384, 6, 1536), "b": (768, 12, 3072)}

Arrays = dict[str, np.ndarray]


def problem(layer: str, shape: list[int], num_tokens: int) -> tuple[Arrays, Arrays, np.ndarray]:
    """Returns parameters by the reference's names, inputs by argument, and a cotangent.

    The gradient to compute is that of `sum(output * cotangent)`.
    """
    generator = np.random.default_rng(0)
    channels = shape[-1]
    tokens_shape = [*shape[:-3], num_tokens, channels]

    def normal(*dimensions: int, scale: float = 1.0) -> np.ndarray:
        return (scale * generator.standard_normal(dimensions)).astype(np.float32)

    def norm(name: str) -> Arrays:
        return {f"{name}/scale": 1 + normal(channels, scale=0.1), f"{name}/bias": normal(channels)}

    def dense(name: str, inputs: int, outputs: int) -> Arrays:
        kernel = normal(inputs, outputs, scale=inputs**-0.5)
        return {f"{name}/kernel": kernel, f"{name}/bias": normal(outputs, scale=0.1)}

    def attention() -> Arrays:
        heads = (NUM_HEADS, channels // NUM_HEADS)
        found = {"tokens": normal(1, num_tokens, channels)}
        for name in ("query", "key", "value"):
            found[f"attn/{name}/kernel"] = normal(channels, *heads, scale=channels**-0.5)
            found[f"attn/{name}/bias"] = normal(*heads, scale=0.1)
        found["attn/out/kernel"] = normal(*heads, channels, scale=channels**-0.5)
        return {**found, "attn/out/bias": normal(channels, scale=0.1)}

    parameters = attention() if layer == "mha" else norm("LayerNorm_0")
    if layer == "v1.0":
        for index in range(NUM_CONVOLUTIONS):
            width = num_tokens if index else channels
            kernel = normal(3, 3, width, num_tokens, scale=(9 * width) ** -0.5)
            parameters[f"Conv_{index}/kernel"] = kernel
    elif layer != "mha":
        parameters |= dense("token_masking/Dense_0", channels, BOTTLENECK_DIM)
        parameters |= dense("token_masking/Dense_1", BOTTLENECK_DIM, num_tokens)
    inputs = {"x": normal(*shape)}
    if layer == "fuser":
        parameters |= norm("fuser_mix_norm1") | norm("fuser_mix_norm2")
        parameters |= dense("Dense_0", num_tokens, num_tokens)
        inputs = {"tokens": normal(*tokens_shape), **inputs}
    output = shape if layer == "fuser" else tokens_shape
    return parameters, inputs, normal(*output, scale=math.prod(output) ** -0.5)
