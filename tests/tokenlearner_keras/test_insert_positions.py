"""What an inserted TokenLearner takes: sequences, grids, masks, and no tokens in front."""

import keras
import numpy as np
import pytest
from keras import layers

import tokenlearner_keras as tk
from tests.helpers.arrays import random
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.encoders import encoder
from tests.helpers.encoders import input_of
from tests.helpers.small_models import small_model
from tokenlearner_keras.models.insert import insert_token_learner


@pytest.mark.parametrize("rank", [4, 5])
def test_grids_and_videos_become_sequences(rank: int) -> None:
    inputs = keras.Input((6, 4, 8) if rank == 4 else (2, 6, 4, 8))
    x = layers.Activation("relu", name="here")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    inserted = insert_token_learner(model, "here", tk.TokenLearner(5))
    assert inserted.output_shape == ((None, 5, 3) if rank == 4 else (None, 2, 5, 3))
    (maps,) = tk.attention_maps(inserted, random_inputs(model)).values()
    assert maps.shape == ((2, 5, 6, 4) if rank == 4 else (2, 2, 5, 6, 4))
    with pytest.raises(ValueError, match="`grid` and `num_prefix_tokens` are for sequences"):
        insert_token_learner(model, "here", grid=(6, 4))


def test_grids_and_tokens_in_front_by_hand() -> None:
    model = encoder(positions=13)
    insert = insert_token_learner
    x = random_inputs(model)
    inserted = insert(model, "norm_0", tk.TokenLearner(2), grid=(2, 6), num_prefix_tokens=1)
    assert tk.attention_maps(inserted, x).popitem()[1].shape == (2, 2, 2, 6)
    joined = keras.Model(inserted.input, input_of(inserted, "norm_0"))
    assert joined.output_shape == (None, 3, 8)
    assert np.array_equal(to_numpy(joined(x))[:, 0], x[:, 0])
    video = insert(model, "norm_0", tk.TokenLearner(2), grid=(3, 2, 2), num_prefix_tokens=1)
    assert tk.attention_maps(video, x).popitem()[1].shape == (2, 3, 2, 2, 2)
    assert input_of(video, "norm_0").shape == (None, 1 + 3 * 2, 8)
    with pytest.raises(ValueError, match=r"13 tokens, which does not fit 0 .*grid \(2, 6\)"):
        insert(model, "norm_0", grid=(2, 6))
    with pytest.raises(ValueError, match="13 tokens, which does not fit 13 tokens in front"):
        insert(model, "norm_0", num_prefix_tokens=13)
    with pytest.raises(ValueError, match=r"no known square number.*grid=\(height, width\)"):
        insert(model, "norm_0", tk.TokenLearner(2))
    for wrong in ({"grid": 4}, {"grid": (2, 0)}, {"num_prefix_tokens": -1}):
        with pytest.raises(ValueError, match="must be"):
            insert(model, "norm_0", **wrong)  # type: ignore[arg-type]
    unknown = insert(encoder(positions=None), "norm_0", num_prefix_tokens=1)
    assert tk.attention_maps(unknown, x).popitem()[1].shape == (2, 8, 12)


def test_after_another_token_learner_the_class_token_still_stays_in_front() -> None:
    model = small_model("vit_ti8_d3_tl4at1", classifier="token")
    with pytest.warns(UserWarning, match="The first 1 stay in front; pass num_prefix_tokens=0"):
        kept = insert_token_learner(model, "encoder_block_2", tk.TokenLearnerV11(2, name="second"))
    assert input_of(kept, "encoder_norm").shape == (None, 3, 16)
    all_tokens = insert_token_learner(
        model, "encoder_block_2", tk.TokenLearnerV11(2, name="all"), num_prefix_tokens=0
    )
    assert input_of(all_tokens, "encoder_norm").shape == (None, 2, 16)
    x = random_inputs(model)
    assert tk.attention_maps(all_tokens, x)["all"].shape == (2, 2, 5)
    assert tk.attention_maps(kept, x)["second"].shape == (2, 2, 4)


def test_a_class_token_that_was_cut_off_is_not_looked_for() -> None:
    model = small_model("vit_ti8_d2", classifier="token")
    positions = model.get_layer("encoder_block_0").output[:, 1:]
    model = keras.Model(model.input, layers.Dense(3, name="head")(positions))
    inserted = insert_token_learner(model, "head", tk.TokenLearner(2, name="learner"))
    maps = tk.attention_maps(inserted, random_inputs(model))["learner"]
    assert maps.shape[:2] == (2, 2) and maps.ndim == 4


def test_masks_reach_the_tokens_and_end_there() -> None:
    inputs = keras.Input((6, 8))
    x = layers.Masking(name="masking")(inputs)
    model = keras.Model(inputs, layers.LSTM(4, name="lstm")(x))
    plain = insert_token_learner(model, "lstm", tk.TokenLearnerV11(2, name="learner"))
    front = insert_token_learner(model, "lstm", num_prefix_tokens=1)
    x = random(2, 6, 8)
    x[:, 4:] = 0
    maps = [*tk.attention_maps(plain, x).values(), *tk.attention_maps(front, x).values()]
    assert maps[0].shape == (2, 2, 6) and np.all(maps[0][..., 4:] == 0)
    assert maps[1].shape == (2, 8, 5) and np.all(maps[1][..., 3:] == 0)
    learner = plain.get_layer("learner")
    tokens = learner(x, mask=np.abs(x).sum(-1) > 0)
    assert np.allclose(to_numpy(plain(x)), to_numpy(model.get_layer("lstm")(tokens)), atol=1e-5)
    assert np.all(np.isfinite(to_numpy(front(x))))


def test_a_mask_is_folded_with_its_sequence() -> None:
    inputs = keras.Input((6, 5))
    x = layers.Masking(name="masking")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    learner = tk.TokenLearnerV11(3, name="learner")
    inserted = insert_token_learner(model, "head", learner, grid=(2, 3))
    values = random(2, 6, 5)
    values[:, 4:] = 0  # what Masking takes for padding
    maps = tk.attention_maps(inserted, values)["learner"]
    assert maps.shape == (2, 3, 2, 3)
    assert np.all(maps.reshape(2, 3, 6)[..., 4:] == 0) and np.allclose(maps.sum((-2, -1)), 1)
