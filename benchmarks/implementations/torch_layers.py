"""Layers of PyTorch packages that do the same job with other maths."""

from typing import Any

import numpy as np
import torch
from tokenlearner_pytorch import TokenLearner
from vit_pytorch.vit_with_patch_merger import PatchMerger

from benchmarks.implementations.problem import problem
from benchmarks.worker import Arm


def patch_merger(layer: str, shape: list[int], num_tokens: int, direction: str, mode: str) -> Arm:
    """Makes an arm of vit-pytorch's PatchMerger: fixed queries, no convolution, no MLP."""
    merger = PatchMerger(shape[-1], num_tokens)
    return _arm(merger, layer, shape, num_tokens, direction, mode, ("vit-pytorch",), flat=True)


def tokenlearner_pytorch(
    layer: str, shape: list[int], num_tokens: int, direction: str, mode: str
) -> Arm:
    """Makes an arm of tokenlearner-pytorch.

    What it computes is not TokenLearner: channels are taken for rows by a `view`, a weight
    comes from a 1x1 convolution of the mean and the maximum only, BatchNorm and a ReLU, and
    the tokenizers lie in a list, so that no optimizer sees their weights.
    """
    module = TokenLearner(num_tokens)
    packages = ("tokenlearner-pytorch",)
    return _arm(module, layer, shape, num_tokens, direction, mode, packages, flat=False)


def _arm(
    module: Any,
    layer: str,
    shape: list[int],
    num_tokens: int,
    direction: str,
    mode: str,
    packages: tuple[str, ...],
    *,
    flat: bool,
) -> Arm:
    _, inputs, weights = problem(layer, tuple(shape), num_tokens)
    x = torch.from_numpy(inputs["x"])
    x = (x.flatten(1, 2) if flat else x).requires_grad_(direction == "both")
    cotangent = torch.from_numpy(weights["cotangent"])
    called = torch.compile(module, dynamic=False) if mode == "compile" else module

    def run() -> Any:
        if direction == "forward":
            with torch.inference_mode():
                return called(x)
        x.grad = None
        (called(x) * cotangent).sum().backward()
        return x.grad

    def result() -> dict[str, np.ndarray]:
        return {}

    return Arm(run, result, (*packages, "torch"))
