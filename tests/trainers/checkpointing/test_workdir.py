"""What a work directory takes, and what it says of its run."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.small_runs import Trainer
from trainers.checkpointing.workdir import check_same_data
from trainers.checkpointing.workdir import check_workdir
from trainers.checkpointing.workdir import prepare_workdir
from trainers.checkpointing.workdir import read_class_names
from trainers.checkpointing.workdir import read_configuration
from trainers.configuration.configuration import base_config
from trainers.data.datasets.in_memory import InMemorySource
from trainers.experiment import make_model_config
from trainers.utils.errors import ConfigurationError


def _source(count: int = 3, class_names: tuple[str, ...] = ("cat", "dog")) -> InMemorySource:
    images, labels = np.zeros((count, 4, 4, 3), np.uint8), np.zeros(count, np.int64)
    return InMemorySource("folder", "train", images, labels, class_names)


def _check(path: Path | str) -> None:
    config = base_config()
    check_workdir(str(path), config, make_model_config(config, 2))


def _prepare(path: Path) -> None:
    config = base_config()
    path.mkdir(exist_ok=True)
    prepare_workdir(str(path), config, make_model_config(config, 2), _source())


def test_the_data_must_stay_the_same(tmp_path: Path) -> None:
    workdir = str(tmp_path)
    check_same_data(workdir, _source())  # no run yet
    _prepare(tmp_path)
    check_same_data(workdir, _source())
    assert read_class_names(workdir) == ("cat", "dog")
    with pytest.raises(ConfigurationError, match="num_examples: 3 there, 4 here"):
        check_same_data(workdir, _source(4))
    with pytest.raises(ConfigurationError, match=r"class_names: \['cat', 'dog'\] there"):
        check_same_data(workdir, _source(class_names=("dog", "cat")))


def test_a_run_of_an_earlier_release_says_nothing_of_its_data(tmp_path: Path) -> None:
    _prepare(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    del values["resolved_data"]
    path.write_text(json.dumps(values))
    check_same_data(str(tmp_path), _source(7))
    assert read_class_names(str(tmp_path)) is None
    read_configuration(str(tmp_path))


def test_keys_that_an_earlier_release_did_not_write_have_their_defaults(tmp_path: Path) -> None:
    _prepare(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    for section, key in (
        ("data", "multi_label"),
        ("data", "scaled_decoding"),
        ("model", "remat"),
        ("resolved_model", "remat"),
        ("model", "attention"),
        ("resolved_model", "attention"),
    ):
        del values[section][key]
    del values["video"], values["records"], values["resolved_model"]["tubelet_inflation"]
    del values["topology"]
    path.write_text(json.dumps(values))
    _check(tmp_path)
    config = base_config()
    config.video.stride = 3
    # It changes pixels.
    config.data.scaled_decoding = True
    different = r"data\.scaled_decoding: False there, True here; video\.stride: 2 there, 3 here"
    with pytest.raises(ConfigurationError, match=different):
        check_workdir(str(tmp_path), config, make_model_config(config, 2))


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"', "{", ""])
def test_damaged_configuration(tmp_path: Path, text: str) -> None:
    _prepare(tmp_path)
    (tmp_path / "config.json").write_text(text)
    for check in (_check, lambda path: read_configuration(str(path))):
        with pytest.raises(ConfigurationError, match=r"config.json is damaged .*Remove it"):
            check(tmp_path)


def test_places_that_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigurationError, match="file is not a directory"):
        _check(file / "a" / "b")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").touch()
    with pytest.raises(ConfigurationError, match="checkpoints is not a directory"):
        _check(tmp_path / "run")
    _check(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_places_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by the mode of a directory: the administrator, who may run this, writes anywhere.
    refused = tmp_path / "refused"
    refused.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != refused)
    with pytest.raises(ConfigurationError, match=f"no permission to write into {refused}"):
        _check(refused / "run")
    _check(tmp_path / "run")


@pytest.mark.slow
def test_rematerialisation_may_change_when_a_run_resumes(trainer: Trainer) -> None:
    workdir = trainer("run", "--config.total_steps=1")
    trainer("run", "--config.total_steps=2", "--config.model.remat=true")
    assert json.loads((workdir / "config.json").read_text())["resolved_model"]["remat"]
