"""vit-pytorch's plain ViT and the one with PatchMerger, eager and compiled."""

from typing import Any

import numpy as np
import torch
from vit_pytorch import ViT
from vit_pytorch.vit_with_patch_merger import ViT as PatchMergerViT

from benchmarks.implementations.problem import NUM_CLASSES
from benchmarks.implementations.problem import SIZES
from benchmarks.worker import Arm


def vit(size: str, input_shape: list[int], tokens: int, direction: str, mode: str) -> Arm:
    """Makes an arm; with `tokens` the PatchMerger stands before the seventh block of twelve."""
    width, heads, mlp_dim = SIZES[size]
    arguments: dict[str, Any] = {
        "image_size": input_shape[1], "patch_size": 16, "num_classes": NUM_CLASSES, "dim": width,
        "depth": 12, "heads": heads, "mlp_dim": mlp_dim,
    }  # fmt: skip
    if tokens:
        more = {"patch_merge_layer": 6, "patch_merge_num_tokens": tokens}
        model = PatchMergerViT(**arguments, **more)
    else:
        model = ViT(**arguments, pool="mean")
    images = torch.randn(input_shape[0], 3, *input_shape[1:3])
    labels = torch.randint(NUM_CLASSES, (input_shape[0],))
    called = torch.compile(model, dynamic=False) if mode == "compile" else model
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)

    def infer() -> None:
        with torch.inference_mode():
            called(images)

    def train() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(called(images), labels).backward()
        optimizer.step()

    def result() -> dict[str, np.ndarray]:
        return {}

    return Arm(infer if direction == "inference" else train, result, ("vit-pytorch", "torch"))
