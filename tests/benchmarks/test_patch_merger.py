"""The PatchMerger that accuracies are compared with."""

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from benchmarks.patch_merger import PatchMerger
from benchmarks.patch_merger import with_patch_merger


def test_the_published_formula() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype("float32")
    layer = PatchMerger(5)
    found = keras.ops.convert_to_numpy(layer(x))
    flat = x.reshape(2, 12, 6)
    normed = (flat - flat.mean(-1, keepdims=True)) / np.sqrt(flat.var(-1, keepdims=True) + 1e-6)
    scores = normed @ keras.ops.convert_to_numpy(layer.queries) / np.sqrt(6)
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, weights.transpose(0, 2, 1) @ normed, atol=1e-5)
    with pytest.raises(ValueError, match="mask"):
        layer(x, mask=np.ones((2, 3, 4), bool))


def test_it_stands_before_the_second_block() -> None:
    sizes = {"image_size": 32, "width": 12, "num_heads": 2, "mlp_dim": 8, "num_classes": 3}
    plain = tk.create_model("vit_ti8_d2", **sizes)
    model = with_patch_merger(plain)
    assert model(np.zeros((1, 32, 32, 3), "float32")).shape == (1, 3)
    learned = tk.create_model("vit_ti8_d2_tl8at1", **sizes)
    learner = next(each for each in learned.layers if isinstance(each, tk.TokenLearnerV11))
    mlp = 16 * learner.bottleneck_dim * (12 + 8)
    # Both pool 16 positions to 8 tokens; one weighs by an MLP, the other by a product.
    assert tk.count_macs(learned) - tk.count_macs(model) == mlp - 16 * 8 * 12
