"""Misspelt flags, keys and values get the right hint."""

from pathlib import Path

import pytest
from absl import flags

from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import parse
from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.configuration.training_options import TrainingConfig
from trainers.preflight import check_steps
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import did_you_mean

#: A flag that there is not, and what was meant.
FLAGS = {
    "epochs": "config.total_epochs",
    "num_epochs": "config.total_epochs",
    "max_steps": "config.total_steps",
    "train_steps": "config.total_steps",
    "steps": "config.total_steps",
    "epoch": "config.total_epochs",
    "total_epochs": "config.total_epochs",
    "warmup_step": "config.warmup_steps",
    "batch_size": "config.batch_size",
    "bach_size": "config.batch_size",
    "learning_rate": "config.optimizer.learning_rate",
    "learningrate": "config.optimizer.learning_rate",
    "optimizer.learning_rate": "config.optimizer.learning_rate",
    "lr": "config.optimizer.learning_rate",
    "weight_decay": "config.optimizer.weight_decay",
    "data_dir": "config.data.data_dir",
    "model": "config.model.name",
    "model.name": "config.model.name",
    "width": "config.model.width",
    "seed": "config.seed",
    "nojit_compile": "config.jit_compile",
    "flip": "config.augmentation.flip or --config.video.flip",
    "wrkdir": "workdir",
    "profile_step": "profile_steps",
    "dryrun": "dry_run",
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_plain_flag(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        parse(f"--config={config_file(tmp_path)}", f"--{name}=3")
    assert str(failure.value) == f"Unknown flag --{name}. Did you mean --{FLAGS[name]}?"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epochs", "total_epochs"),
        ("learning_rate", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("flip", "augmentation.flip' or 'video.flip"),
    ],
)
def test_a_key(tmp_path: Path, key: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Did you mean '{hint}'"):
        parse(f"--config={config_file(tmp_path)}", f"--config.{key}=3")


@pytest.mark.parametrize(
    ("received", "hint"),
    [
        ("acc", "accuracy"),
        ("Accuracy", "accuracy"),
        ("val_accuracy", "accuracy"),
        ("val_loss", "loss"),
        ("top5", "top5_accuracy"),
        ("mAP", "mean_average_precision"),
    ],
)
def test_a_metric(received: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Received: '{received}'\. .*'{hint}'\?$"):
        TrainingConfig(keep_best_metric=received)


#: A value of the configuration, and what was meant.
VALUES = {
    "dtype_policy=bfloat16": "mixed_bfloat16",
    "loss=softmx": "softmax",
    "optimizer.name=adam": "adamw",
    "optimizer.schedule=cos": "cosine",
    "optimizer.weight_decay_mask=kernel": "kernels",
    "augmentation.crop=incepton": "inception",
    "augmentation.interpolation=bilinaer": "bilinear",
    "data.normalization=image_net": "imagenet",
    "model.classifier=gaps": "gap",
    "model.token_learner=v11": "v1.1",
}


@pytest.mark.parametrize("override", VALUES)
def test_a_value(tmp_path: Path, override: str) -> None:
    config = parse(f"--config={config_file(tmp_path)}", f"--config.{override}").config
    with pytest.raises(ConfigurationError, match=rf"\. Did you mean '{VALUES[override]}'\?"):
        check_steps(config)


def test_a_value_of_a_section_for_videos() -> None:
    for values, hint in (({"view_reduction": "logit"}, "logits"), ({"frame_order": "x"}, None)):
        with pytest.raises(ConfigurationError) as failure:
            VideoPreprocessingConfig((8, 8), 2, **values)
        assert str(failure.value).endswith(
            f" Did you mean '{hint}'?" if hint else "shuffled. Received: 'x'."
        )


def test_a_value_of_a_flag(tmp_path: Path) -> None:
    with pytest.raises(flags.Error, match=r"--strategy=mirored.*Did you mean 'mirrored'\?$"):
        parse(f"--config={config_file(tmp_path)}", "--strategy=mirored")


def test_a_configuration_file(tmp_path: Path) -> None:
    path = config_file(tmp_path)
    with pytest.raises(ConfigurationError, match=f"Did you mean '{path}'"):
        parse(f"--config={path.replace('experiment', 'experment')}")


def test_names_of_other_kinds() -> None:
    assert did_you_mean("st bernard", ["St. Bernard", "poodle"]) == " Did you mean 'St. Bernard'?"
    assert did_you_mean("0", ["v1.0", "v1.1"]) == ""
    assert did_you_mean("zebra", ["cat", "dog"]) == ""
