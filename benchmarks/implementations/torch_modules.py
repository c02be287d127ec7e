"""Layers and models of PyTorch packages that do the same job with other maths."""

from typing import Any

import torch
from timm.models import VisionTransformer
from tokenlearner_pytorch import TokenLearner
from vit_pytorch import ViT
from vit_pytorch.vit_with_patch_merger import PatchMerger
from vit_pytorch.vit_with_patch_merger import ViT as PatchMergerViT

from benchmarks.implementations.execution import torch_layer_runs
from benchmarks.implementations.execution import torch_runs
from benchmarks.implementations.problem import NUM_CLASSES
from benchmarks.implementations.problem import SIZES
from benchmarks.implementations.problem import problem
from benchmarks.worker import Implementation


def patch_merger(
    layer: str, shape: list[int], num_tokens: int, direction: str, mode: str
) -> Implementation:
    """Returns vit-pytorch's PatchMerger: fixed queries, no convolution, no MLP."""
    x, cotangent = _tensors(layer, shape, num_tokens)
    merger = PatchMerger(shape[-1], num_tokens)
    return _layer(merger, x.flatten(1, 2), cotangent, direction, mode, "vit-pytorch")


def tokenlearner_pytorch(
    layer: str, shape: list[int], num_tokens: int, direction: str, mode: str
) -> Implementation:
    """Returns tokenlearner-pytorch, which does not compute TokenLearner.

    Channels are taken for rows by a `view`, a weight comes from a 1x1 convolution of the mean and
    the maximum only, BatchNorm and a ReLU, and the tokenizers lie in a list, so that no optimizer
    sees their weights.
    """
    x, cotangent = _tensors(layer, shape, num_tokens)
    return _layer(TokenLearner(num_tokens), x, cotangent, direction, mode, "tokenlearner-pytorch")


def _tensors(layer: str, shape: list[int], num_tokens: int) -> tuple[Any, Any]:
    _, inputs, cotangent = problem(layer, shape, num_tokens)
    return torch.from_numpy(inputs["x"]), torch.from_numpy(cotangent)


def _layer(
    module: Any, x: Any, cotangent: Any, direction: str, mode: str, package: str
) -> Implementation:
    runs = torch_layer_runs(module, [x], cotangent, mode)
    return Implementation(runs[direction], (package, "torch"))


def vit_pytorch(
    size: str, input_shape: list[int], tokens: int, direction: str, mode: str
) -> Implementation:
    """Returns a ViT; with `tokens`, a PatchMerger stands before the seventh block of twelve."""
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
    return _model(model, input_shape, direction, mode, "vit-pytorch")


def timm(size: str, input_shape: list[int], direction: str, mode: str) -> Implementation:
    """Returns timm's ViT without a class token, averaged over the positions."""
    width, heads, _ = SIZES[size]
    model = VisionTransformer(
        img_size=input_shape[1], num_classes=NUM_CLASSES, embed_dim=width, num_heads=heads,
        class_token=False, global_pool="avg",
    )  # fmt: skip
    return _model(model, input_shape, direction, mode, "timm")


def _model(
    model: torch.nn.Module, input_shape: list[int], direction: str, mode: str, package: str
) -> Implementation:
    batch_size, *size, channels = input_shape
    images = torch.randn(batch_size, channels, *size)
    labels = torch.randint(NUM_CLASSES, (batch_size,))
    return Implementation(torch_runs(model, images, labels, mode)[direction], (package, "torch"))
