"""Training from the weights of another model."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tokenlearner_keras as tk
from tests.helpers.goldens import CHECKPOINT
from tests.helpers.goldens import golden_arrays
from tests.helpers.goldens import golden_model
from tests.helpers.small_runs import TINY_MODEL
from tests.helpers.small_runs import Trainer
from tests.helpers.small_runs import checkpoint_arrays
from trainers.checkpointing.init_from import check_init_from
from trainers.checkpointing.init_from import initialize
from trainers.utils.errors import ConfigurationError

TABLE = "position_embedding/table"
KERNEL = "encoder_block_0/mlp/hidden/kernel"

CONVOLUTIONAL: dict[str, Any] = {
    "name": "x2plus1d_m_tokenlearner",
    "image_size": 16,
    "num_frames": 2,
    "stem_width": 4,
    "widths": (4,),
    "inner_widths": (8,),
    "depths": (2,),
    "module_blocks": 1,
    "num_tokens": 2,
    "num_heads": 2,
    "key_width": 4,
    "representation_size": None,
}


def _model(seed: int, **fields: Any) -> keras.Model:
    keras.utils.set_random_seed(seed)
    base = {} if fields.get("name", "").startswith("x2") else TINY_MODEL
    return tk.create_model(**{**base, "num_classes": 10, **fields})


def _weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in model.trainable_variables}


def _saved(folder: Path, **fields: Any) -> tuple[str, dict[str, np.ndarray]]:
    """Saves a model whose weights are all its own; returns the file and the weights."""
    model = _model(1, **fields)
    for variable in model.trainable_variables:
        variable.assign_add(keras.random.normal(variable.shape, seed=3))
    model.save(folder / "model.keras")
    return str(folder / "model.keras"), _weights(model)


def test_the_same_model(tmp_path: Path) -> None:
    path, expected = _saved(tmp_path)
    for start in (path, str(tmp_path)):  # the file, and its work directory
        model = _model(2)
        report = initialize(model, start)
        assert report.is_exact and set(report.loaded) == expected.keys()
        for name, value in _weights(model).items():
            np.testing.assert_array_equal(value, expected[name], name)


def test_another_size_and_other_classes(tmp_path: Path) -> None:
    path, source = _saved(tmp_path)
    model = _model(2, image_size=16, num_classes=4)
    before = _weights(model)
    report = initialize(model, path)
    after = _weights(model)
    (table,) = report.resized
    assert source[table].shape == (1, 4, 16) and after[table].shape == (1, 16, 16)
    # The corners of the grid keep their values.
    corners = after[table].reshape(4, 4, 16)[::3, ::3].reshape(4, 16)
    np.testing.assert_allclose(corners, source[table][0], atol=1e-6)
    assert report.skipped == ("head/bias", "head/kernel")
    np.testing.assert_array_equal(after["head/kernel"], before["head/kernel"])
    np.testing.assert_array_equal(after[KERNEL], source[KERNEL])
    assert not (report.missing or report.left_over)


def test_a_new_token_learner_starts_fresh(tmp_path: Path) -> None:
    path, source = _saved(tmp_path, name="vit_ti4_d1")
    model = _model(2)
    before = _weights(model)
    report = initialize(model, path)
    assert report.missing and all(name.startswith("token_learner_0/") for name in report.missing)
    for name in report.missing:
        np.testing.assert_array_equal(_weights(model)[name], before[name])
    np.testing.assert_array_equal(_weights(model)[KERNEL], source[KERNEL])


def test_an_image_model_starts_a_video_model(tmp_path: Path) -> None:
    """Which then gives a still video the logits of its image, as the maths has it."""
    path, _ = _saved(tmp_path)
    fields = {"num_frames": 6, "tubelet_inflation": "central_frame", "remat": True}
    model = _model(2, name="vivit_ti4x3_d1_tl2at0", **fields)
    report = initialize(model, str(tmp_path))
    assert report.resized == ("embedding/projection/kernel", TABLE)
    assert not (report.skipped or report.missing or report.left_over)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    expected = np.asarray(keras.saving.load_model(path)(images))
    received = np.asarray(model(np.repeat(images[:, None], 6, axis=1)))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(received, expected, atol=1e-5 * np.abs(expected).max())
    with pytest.raises(ConfigurationError, match="expected a TokenLearner, received a Token") as no:
        initialize(_model(2, name="vivit_ti4x3_d1_tl2at0_v10", num_frames=6), path)
    assert "\n" not in str(no.value)


def test_a_convolutional_video_model_at_another_size(tmp_path: Path) -> None:
    """The paper tests on Charades at 256 pixels what it trains at 224."""
    path, _ = _saved(tmp_path, **CONVOLUTIONAL)
    source = keras.saving.load_model(path)
    source.get_layer("stem_norm").moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    source.save(path)
    model = _model(2, **{**CONVOLUTIONAL, "image_size": 24, "num_frames": 3})
    assert initialize(model, path).is_exact
    for variable, expected in zip(model.weights, source.weights, strict=True):
        np.testing.assert_array_equal(variable.numpy(), expected.numpy(), variable.path)


def test_an_image_model_cannot_start_a_convolutional_one(tmp_path: Path) -> None:
    path, _ = _saved(tmp_path)
    with pytest.raises(ConfigurationError, match=r"expected a convolutional X\(2\+1\)D") as raised:
        initialize(_model(2, **CONVOLUTIONAL), path)
    assert "\n" not in str(raised.value)


def test_a_public_checkpoint() -> None:
    model = golden_model(image_size=(48, 48), num_classes=5, classifier="token")
    report = initialize(model, str(CHECKPOINT))
    assert any("pos_embedding" in name for name in report.resized)
    assert set(report.skipped) == {"head/bias", "head/kernel"}
    kernel = golden_arrays("augreg_checkpoint")["embedding/kernel"]
    received = model.get_layer("embedding").get_weights()[0]
    np.testing.assert_allclose(received.ravel(), kernel.ravel())


def test_what_cannot_be_a_start(tmp_path: Path) -> None:
    check_init_from(None)
    (tmp_path / "run").mkdir()
    for path, message in (
        (tmp_path / "run", "has no model.keras"),
        (tmp_path / "none.keras", "no such file"),
        (tmp_path / "weights.h5", "expected a work directory"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            check_init_from(str(path))


@pytest.mark.parametrize("kind", ["wider.keras", "damaged.keras", "damaged.npz", "other.npz"])
def test_another_model_changes_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "wider.keras":
        _model(1, width=32).save(path)
    elif kind == "other.npz":
        path.write_bytes(CHECKPOINT.read_bytes())
    else:
        path.write_bytes(b"PK no archive")
    model = _model(2)
    before = _weights(model)
    with pytest.raises(ConfigurationError, match=f"init_from={path}") as failure:
        initialize(model, str(path))
    assert "\n" not in str(failure.value)
    for name, value in _weights(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.slow
def test_a_training_starts_there_and_resumes_without(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, expected = _saved(tmp_path)
    flags = [f"--config.init_from={path}", "--config.optimizer.learning_rate=0.0"]
    workdir = trainer("run", *flags, "--config.total_steps=1")
    assert "parameters loaded as they are" in capsys.readouterr().out
    arrays = checkpoint_arrays(workdir, 1)
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[f"model/{name}"], value, name)
    # It resumes from its own checkpoint, not from the start again.
    trainer("run", *flags, "--config.total_steps=2")
    assert "parameters loaded as they are" not in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["flipped", "truncated", "html", "empty"])
def test_a_damaged_keras_file_is_named(tmp_path: Path, damage: str) -> None:
    path, _ = _saved(tmp_path)
    content = Path(path).read_bytes()
    middle = len(content) // 2
    Path(path).write_bytes(
        {
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "truncated": content[:middle],
            "html": b"<html>not found</html>",
            "empty": b"",
        }[damage]
    )
    model = _model(2)
    before = _weights(model)
    with pytest.raises(ConfigurationError, match=r"init_from=.*model\.keras: ") as raised:
        initialize(model, path)
    assert "there is no such file" not in str(raised.value)
    assert "File not found" not in str(raised.value)
    for name, value in _weights(model).items():
        np.testing.assert_array_equal(value, before[name], name)


def test_a_path_may_begin_with_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _saved(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert initialize(_model(2), "~/model.keras").is_exact
