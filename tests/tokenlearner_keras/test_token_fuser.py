"""TokenFuser: shapes, initial values, both mixings, saving, errors."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import to_numpy

pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize("arguments", [{}, {"bottleneck_dim": None}, {"mixing": "video"}])
@pytest.mark.parametrize("video", [False, True])
def test_fuser_returns_the_originals_shape(
    arguments: dict[str, Any], video: bool, tmp_path: Path
) -> None:
    time = (2,) if video else ()
    tokens = keras.Input((*time, 4, 6))
    original = keras.Input((*time, 3, 5, 6))
    fuser = tk.TokenFuser(dropout=0.1, **arguments)
    output = fuser(tokens, original)
    assert output.shape == (None, *time, 3, 5, 6)
    assert tk.TokenFuser.from_config(fuser.get_config()).get_config() == fuser.get_config()
    model = keras.Model([tokens, original], output)
    # The mixing starts at zero, so give it weights that show a difference.
    model.set_weights([random(*w.shape, seed=i) for i, w in enumerate(model.get_weights())])
    model.save(tmp_path / "fuser.keras")
    loaded = keras.saving.load_model(tmp_path / "fuser.keras")
    x = [random(2, *time, 4, 6), random(2, *time, 3, 5, 6)]
    assert np.array_equal(to_numpy(model(x)), to_numpy(loaded(x)))
    assert tuple(fuser(*(each[:0] for each in x)).shape) == (0, *time, 3, 5, 6)
    flat = x[1].reshape(2, *time, 15, 6)
    assert np.allclose(to_numpy(fuser(x[0], flat)), to_numpy(model(x)).reshape(flat.shape))


def test_fuser_starts_at_zero() -> None:
    output = tk.TokenFuser()(random(2, 4, 6), random(2, 9, 6))
    assert np.all(to_numpy(output) == 0)


def test_video_mixing_joins_frames_and_frame_mixing_does_not() -> None:
    tokens, original = random(1, 2, 4, 6), random(1, 2, 9, 6)
    changed = tokens.copy()
    changed[:, 1] += random(1, 4, 6, seed=5)
    for mixing, joined in (("frame", False), ("video", True)):
        fuser = tk.TokenFuser(mixing=mixing)
        fuser.build(tokens.shape, original.shape)
        kernel = fuser.mixing_layer.kernel
        kernel.assign(random(*kernel.shape))
        first = (to_numpy(fuser(t, original))[:, 0] for t in (tokens, changed))
        assert np.allclose(*first) is not joined


@pytest.mark.parametrize(
    ("tokens", "original", "message"),
    [
        ((2, 6), (2, 9, 6), "expects tokens"),
        ((2, 4, 6), (2, 9), "expects tokens"),
        ((2, 4, 6), (3, 9, 6), "same batch"),
        ((2, 4, 6), (2, 9, 5), "number of channels"),
        ((2, 3, 4, 6), (2, 2, 9, 6), r"same batch \(and time\)"),
    ],
)
def test_fuser_inputs_that_do_not_fit(
    tokens: tuple[int, ...], original: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tk.TokenFuser()(np.ones(tokens, "float32"), np.ones(original, "float32"))
