import dataclasses
from pathlib import Path
from typing import Any

import pytest
from absl import flags
from ml_collections import ConfigDict

from tests.helpers.small_runs import TINY_CONFIG
from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import parse
from tokenlearner_keras import VisionTransformerConfig
from trainers.configuration.configuration import base_config
from trainers.configuration.configuration import model_fields
from trainers.configuration.configuration import whole_config
from trainers.configuration.schedule import NAMES
from trainers.configuration.schedule import UNITS
from trainers.configuration.schedule import duration_steps
from trainers.utils.errors import ConfigurationError

# A valid value of every field that a number does not fit.
FIELD_VALUES = {
    "image_size": "(32,32)",
    "patch_size": "8",
    "token_learner": "v1.0",
    "token_learner_pooling": "mean",
    "token_fuser": "true",
    "per_frame": "false",
    "classifier": "token",
    "fuser_mixing": "video",
    "pooling": "((1,2),)",
    "dropout": "0.5",
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    return config_file(tmp_path)


def test_a_file_is_filled_up_with_all_keys(file: str) -> None:
    config = parse(f"--config={file}").config
    assert config.model.width == 16
    assert config.batch_size == 32
    assert config.optimizer.beta_2 == base_config().optimizer.beta_2
    assert config.keys() == base_config().keys()


@pytest.mark.parametrize(
    "order",
    [
        ["--config", "FILE", "--config.batch_size=8"],
        ["--config.batch_size=8", "--config=FILE"],
        ["--config.batch_size", "8", "--config", "FILE"],
        ["-config.batch_size=8", "-config=FILE"],
    ],
)
def test_order_and_spelling_of_flags_do_not_matter(file: str, order: list[str]) -> None:
    values = parse(*(argument.replace("FILE", file) for argument in order))
    assert values.config.batch_size == 8
    assert values["config"].override_values == {"batch_size": 8}


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--config.totl_steps=3", "total_steps"),
        ("-config.totl_steps=3", "total_steps"),
        ("--noconfig.jit_compil", "jit_compile"),
        ("--config.modle.name=vit_b16", "model.name"),
        ("--config.model=vit_b16", "model.name"),
        ("--config.optimizer.learningrate=1", "optimizer.learning_rate"),
    ],
)
def test_unknown_key_on_the_command_line(file: str, argument: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Unknown .*Did you mean '{hint}'"):
        parse(f"--config={file}", argument)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("config.optimiser = {'name': 'sgd'}", "optimiser.name.*'optimizer.name'"),
        ("config.model.widht = 3", "model.widht.*'model.width'"),
        ("config.total_steps = 'ten'", "'total_steps'"),
        ("config.model.depth = 'deep'", "'model.depth'"),
        ("config.batch_size = 0.5", "'batch_size'"),
        ("config.demo = 'fast'", "'demo'"),
        ("config.model.depth = {}", "'model.depth' must be a whole number"),
        ("config.seed = {}", "'seed' must be a whole number"),
        ("raise RuntimeError('of the file')", "RuntimeError: of the file"),
        ("import not_a_package", "not_a_package"),
        ("return 3", "returned a int"),
    ],
)
def test_wrong_files(tmp_path: Path, line: str, message: str) -> None:
    text = TINY_CONFIG.replace("    return config", f"    {line}\n    return config")
    with pytest.raises(ConfigurationError, match=message):
        parse(f"--config={config_file(tmp_path, text)}")


def test_file_without_get_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs a function get_config"):
        whole_config(config_file(tmp_path, "x = 1"))
    with pytest.raises(ConfigurationError, match="SyntaxError"):
        whole_config(config_file(tmp_path, "def"))


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.py"):
        with pytest.raises(ConfigurationError, match="There is no configuration file"):
            parse(f"--config={path}")
    text = tmp_path / "config.txt"
    text.write_text(TINY_CONFIG)
    with pytest.raises(ConfigurationError, match="Expected a Python file"):
        parse(f"--config={text}")


@pytest.mark.parametrize("arguments", [[], ["--config"], ["--config="], ["--workdir=x"]])
def test_no_file(arguments: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="Expected --config=FILE"):
        parse(*arguments)


@pytest.mark.parametrize(
    "argument",
    [
        "--config.batch_size=many",
        "--config.batch_size=2.5",
        "--config.total_steps=ten",
        "--config.model.width=wide",
        "--config.model.width=",
        "--config.model.token_fuser=perhaps",
        "--config.batch_size=None",
        "--config.optimizer.name=None",
        "--strategy=cluster",
        "--virtual_devices=two",
        "--wrkdir=x",
        "--workdir",
        "stray",
    ],
)
def test_wrong_values(file: str, argument: str) -> None:
    with pytest.raises((ConfigurationError, flags.Error)) as failure:
        parse(f"--config={file}", argument)
    name = argument.removeprefix("--").split("=")[0].removeprefix("config.")
    assert name in str(failure.value)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(VisionTransformerConfig)])
def test_every_field_of_the_model_can_be_overridden(file: str, name: str) -> None:
    if name == "num_classes":  # the data says it
        with pytest.raises(ConfigurationError, match="num_classes"):
            parse(f"--config={file}", "--config.model.num_classes=3")
        return
    values = parse(f"--config={file}", f"--config.model.{name}={FIELD_VALUES.get(name, 1)}")
    fields = model_fields(values.config)
    default = getattr(VisionTransformerConfig(), name)
    assert fields[name] is not None
    if default is not None:
        assert fields[name] != default or name == "tubelet_size"


@pytest.mark.parametrize(
    "key",
    [
        "model.fuser_bottleneck_dim",
        "model.token_learner_at",
        "model.representation_size",
        "model.token_learner",
        "ema_decay",
        "optimizer.global_clipnorm",
        "video.scale_jitter",
        "data.final_split",
        "data.data_dir",
        "total_steps",
    ],
)
def test_none_can_be_given(file: str, key: str) -> None:
    values = parse(f"--config={file}", f"--config.{key}=None")
    assert values["config"].override_values == {key: None}
    config: Any = values.config
    for part in key.split("."):
        config = config[part]
    assert config is None


def test_only_a_none_that_was_given_reaches_the_model(file: str) -> None:
    values = parse(f"--config={file}", "--config.model.fuser_bottleneck_dim=None")
    fields = model_fields(values.config)
    assert fields["fuser_bottleneck_dim"] is None
    assert "representation_size" not in fields


@pytest.mark.parametrize(
    ("section", "name", "override", "value"),
    [
        ("optimizer", "global_clipnorm", "0.5", 0.5),
        ("video", "scale_jitter", "(0.5, 1.0)", (0.5, 1.0)),
        ("model", "token_learner", "v1.0", "v1.0"),
    ],
)
def test_a_none_in_the_file_can_be_overridden(
    tmp_path: Path, section: str, name: str, override: str, value: object
) -> None:
    path = tmp_path / "experiment.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict({{{section!r}: {{{name!r}: None}}}})\n"
    )
    for arguments, expected in (([], None), ([f"--config.{section}.{name}={override}"], value)):
        config = parse(f"--config={path}", *arguments).config
        assert config[section][name] == expected


def test_a_none_in_the_file_reaches_the_model() -> None:
    config = whole_config(ConfigDict({"model": {"fuser_bottleneck_dim": None}}))
    assert model_fields(config) == {"fuser_bottleneck_dim": None}
    assert model_fields(whole_config(base_config())) == {}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unit", UNITS)
def test_a_duration_replaces_the_unit_of_the_file(tmp_path: Path, name: str, unit: str) -> None:
    for other in UNITS:
        text = TINY_CONFIG.replace(
            "config.total_steps = 4\n    config.log_steps = 1", f"config.{name}_{other} = 7"
        )
        flag = f"--config.{name}_{unit}=3"
        config = parse(f"--config={config_file(tmp_path, text)}", flag).config
        given = {u: config[f"{name}_{u}"] for u in UNITS if config[f"{name}_{u}"]}
        assert given == {unit: 3}


def test_two_units_in_one_place(file: str) -> None:
    flag = f"--config={file}"
    config = parse(flag, "--config.eval_steps=3", "--config.eval_epochs=1").config
    with pytest.raises(ConfigurationError, match=r"eval_steps=3, eval_epochs=1"):
        duration_steps(config, "eval", num_examples=10)
    config = whole_config(ConfigDict({"total_steps": 3, "total_epochs": 1}))
    with pytest.raises(ConfigurationError, match=r"total_steps=3, total_epochs=1"):
        duration_steps(config, "total", num_examples=10)
