"""--help of every command: status 0, all flags, and the keys of the configuration."""

import copy
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import app
from absl import flags
from ml_collections import ConfigDict

from trainers.configuration.configuration import base_config
from trainers.configuration.configuration import key_lines
from trainers.utils import cli

FOLDER = Path(cli.__file__).parents[1]
COMMANDS = [
    path.stem
    for path in sorted(FOLDER.glob("*.py"))
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
]
#: A flag of each command of its own.
WITH_CONFIG = {"train": "--workdir", "tpu_check": "--topology"}
OTHERS = {
    "checkpoints": "--workdir",
    "demo": "--workdir",
    "demo_video": "--workdir",
    "evaluate": "--split",
    "export": "--format",
    "make_video_records": "--csv",
    "predict": "--inputs",
}
KEYS = {
    f"{section}{name}": keys[name]
    for section, keys in [("", base_config()), *((f"{k}.", v) for k, v in base_config().items())]
    if isinstance(keys, ConfigDict)
    for name in keys
    if not isinstance(keys[name], ConfigDict)
}


@pytest.fixture
def no_flags() -> Iterator[None]:
    """Takes the flags of our commands away, for one to define its own."""
    app.define_help_flags()
    # delattr forgets which module a flag belongs to: all that FLAGS holds is put back.
    before = {
        name: {key: copy.copy(each) for key, each in value.items()}
        if isinstance(value, dict) and name != "__flags"
        else copy.copy(value)
        for name, value in vars(flags.FLAGS).items()
    }
    by_module = flags.FLAGS.flags_by_module_dict()
    absls = {flag.name for name in by_module if name.startswith("absl") for flag in by_module[name]}
    for name in set(flags.FLAGS) - absls - {"?"}:
        delattr(flags.FLAGS, name)
    yield
    vars(flags.FLAGS).update(before)


def _help(
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
) -> str:
    """Runs a command as a process does, and returns what it prints."""
    monkeypatch.setattr(sys, "argv", [str(FOLDER / f"{command}.py"), *arguments])
    # absl.app.run can be called once in a process.
    monkeypatch.setattr(cli.app, "run", lambda run, flags_parser: flags_parser(sys.argv))
    monkeypatch.delitem(sys.modules, f"trainers.{command}", raising=False)
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"trainers.{command}", run_name="__main__", alter_sys=True)
    assert end.value.code == 0
    printed = capsys.readouterr()
    assert "error" not in printed.err
    return printed.out


def test_these_are_all_commands() -> None:
    assert sorted([*WITH_CONFIG, *OTHERS]) == COMMANDS


@pytest.mark.usefixtures("no_flags")
@pytest.mark.parametrize("command", OTHERS)
def test_help(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _help(command, monkeypatch, capsys, "--help")
    assert f"\n  {OTHERS[command]}: " in text
    assert f"trainers.{command}" in text
    assert "--config=FILE" not in text


@pytest.mark.usefixtures("no_flags")
@pytest.mark.parametrize("argument", ["--help", "--helpshort", "--helpfull", "-h", "-?"])
@pytest.mark.parametrize("command", WITH_CONFIG)
def test_help_lists_the_configuration(
    command: str,
    argument: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = _help(command, monkeypatch, capsys, "--config=no_such_file.py", argument)
    assert f"\n  {WITH_CONFIG[command]}: " in text
    assert "\n--config=FILE: " in text
    for key, value in KEYS.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"  --config.{key} (")]
        assert f"; default {value!r}): " in line
    assert "--config.optimizer.learning_rate (a number; default 0.001): Rate after" in text
    assert "--config.model.width (a whole number; default None): Channels of a token." in text
    assert ("--verbosity" in text) == (argument == "--helpfull")


def test_every_key_has_a_line() -> None:
    lines = key_lines()
    assert {key for key in KEYS if len(lines.get(key, "")) < 10} == set()
    # In base_config's docstring, none of a key that there is not.
    described = {key for key in lines if "." not in key or key.startswith(("data.", "optimizer."))}
    assert described <= KEYS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_after_all_its_functions_are_defined(command: str) -> None:
    last = (FOLDER / f"{command}.py").read_text(encoding="utf-8").rpartition("\n\n\n")[2]
    assert last.startswith('if __name__ == "__main__":')
