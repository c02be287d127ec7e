"""Tubelet kernels that start as inflated 2-D kernels."""

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tokenlearner_keras.layers.patch_embedding import InflatedKernel
from tokenlearner_keras.layers.patch_embedding import PatchEmbedding
from tokenlearner_keras.layers.patch_embedding import inflate_kernel
from tokenlearner_keras.layers.reshaping import FrameSampling

pytestmark = pytest.mark.every_backend


def _kernel(method: str, frames: int = 4) -> np.ndarray:
    shape = (frames, 8, 6, 3, 32)
    return np.asarray(keras.ops.convert_to_numpy(InflatedKernel(method, seed=1)(shape)))


def test_the_central_frame_is_a_frame_and_not_a_column() -> None:
    kernel = _kernel("central_frame")
    assert np.all(kernel[[0, 1, 3]] == 0)
    assert np.all(np.abs(kernel[2]).max(axis=(0, 2, 3)) > 0), "every column of the width counts"
    # LeCun-normal over the 2-D kernel's fan-in.
    assert abs(kernel[2].std() * (8 * 6 * 3) ** 0.5 - 1) < 0.05


def test_the_average_spreads_one_kernel_over_time() -> None:
    kernel = _kernel("average")
    assert np.all(kernel == kernel[0])
    assert np.allclose(kernel.sum(axis=0), _kernel("central_frame").sum(axis=0), atol=1e-6)


@pytest.mark.parametrize("method", ["average", "central_frame"])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_still_video_gets_the_embedding_of_its_image(method: str, frames: int) -> None:
    image = np.random.default_rng(0).normal(size=(2, 16, 24, 3)).astype("float32")
    flat = PatchEmbedding(10, (8, 8))
    expected = keras.ops.convert_to_numpy(flat(image))
    tubelets = keras.layers.Conv3D(10, (frames, 8, 8), strides=(frames, 8, 8))
    video = np.repeat(image[:, None], 2 * frames, axis=1)
    tubelets.build(video.shape)
    kernel = keras.ops.convert_to_numpy(flat.projection.kernel)
    tubelets.set_weights([inflate_kernel(kernel, frames, method), flat.get_weights()[1]])
    received = keras.ops.convert_to_numpy(tubelets(video))
    assert received.shape == (2, 2, 2, 3, 10)
    assert np.allclose(received, expected[:, None], atol=1e-5)


def test_a_model_starts_inflated_and_comes_back_from_its_config() -> None:
    fields = {"num_frames": 4, "image_size": 16, "width": 8, "num_heads": 2, "mlp_dim": 8}
    model = tk.create_model("vivit_ti8x2_d1", **fields, tubelet_inflation="central_frame")
    layer = model.get_layer("embedding")
    kernel = keras.ops.convert_to_numpy(layer.projection.kernel)
    assert kernel.shape == (2, 8, 8, 3, 8) and np.all(kernel[0] == 0) and np.any(kernel[1])
    assert PatchEmbedding.from_config(layer.get_config()).tubelet_inflation == "central_frame"
    config = tk.VisionTransformerConfig(num_frames=4, tubelet_size=2, tubelet_inflation="average")
    assert tk.VisionTransformerConfig.from_dict(config.to_dict()) == config


def test_wrong_inflations() -> None:
    with pytest.raises(ValueError, match="`tubelet_inflation` must be one of"):
        PatchEmbedding(8, (8, 8), 2, tubelet_inflation="mean")
    for fields in ({"num_frames": 4}, {}):
        with pytest.raises(ValueError, match="tubelet"):
            tk.VisionTransformerConfig(**fields, tubelet_inflation="average")
    with pytest.raises(ValueError, match="above 1"):
        PatchEmbedding(8, (8, 8), tubelet_inflation="average")
    with pytest.raises(ValueError, match="`method`"):
        inflate_kernel(np.zeros((2, 2, 3, 4)), 2, "last")


@pytest.mark.parametrize(("frames", "samples"), [(8, 8), (4, 2), (32, 8), (7, 1), (32, 13)])
def test_sampled_frames_are_distinct_and_in_order(frames: int, samples: int) -> None:
    video = np.arange(frames, dtype="float32").reshape(1, frames, 1)
    taken = keras.ops.convert_to_numpy(FrameSampling(samples)(video)).ravel()
    assert len(taken) == samples and np.all(np.diff(taken) > 0)
    if samples == frames:
        assert np.array_equal(taken, video.ravel())
