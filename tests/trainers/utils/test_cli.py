"""Exit statuses and one-line errors of a command."""

from collections.abc import Callable
from pathlib import Path

import pytest
from absl import flags

from trainers.utils import cli
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.errors import Interrupted


def _raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConfigurationError("wrong key"), 2, "error: wrong key\n"),
        (DataError("bad record"), 1, "error: bad record\n"),
        (OSError("disk full"), 1, "error: disk full\n"),
        (
            OSError(28, "No space left on device", "run/a.npz"),
            1,
            "error: run/a.npz: No space left on device. Free some space; then run the same "
            "command again.\n",
        ),
        (Interrupted("stopped", 15), 143, "error: stopped\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_errors_end_in_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    message: str,
) -> None:
    # absl's own flags are parsed already, or not, by whatever runs the tests.
    monkeypatch.setattr(cli.app, "run", lambda run, flags_parser: run(flags_parser(["command"])))
    with pytest.raises(SystemExit) as end:
        cli.run(_raising(error), lambda argv: None)
    assert end.value.code == status
    assert capsys.readouterr().err == message


def test_arguments_that_are_no_flags() -> None:
    values = flags.FlagValues()
    with pytest.raises(ConfigurationError, match=r"Received: train\.csv DIR\.$"):
        cli.parse_known_flags(["command", "train.csv", "DIR"], values)
    flags.DEFINE_string("config", None, "A file.", flag_values=values)
    with pytest.raises(ConfigurationError, match=r"Write --config\.key=value"):
        cli.parse_known_flags(["command", "model.name=vit_s16"], values)


def test_paths_may_begin_with_the_home_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    values = flags.FlagValues()
    cli.define_path("workdir", "A place.", values)
    cli.define_path("report", "A file.", values)
    values(["command", "--workdir=~/run"])
    assert values.workdir == str(tmp_path / "run")
    assert values.report is None
