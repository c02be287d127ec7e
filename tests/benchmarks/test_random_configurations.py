"""Random configurations and flags through the checks, as the reliability table does more of."""

from pathlib import Path

import pytest

from benchmarks.reliability.configurations import check_many
from benchmarks.reliability.configurations import is_clear
from benchmarks.reliability.random_configurations import Change
from benchmarks.reliability.random_configurations import Setting


@pytest.mark.slow
def test_no_random_configuration_ends_in_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = check_many(300, tmp_path)
    assert row.held == row.tries, capsys.readouterr().out
    assert row.tries > 200


@pytest.mark.parametrize(
    ("message", "is_it"),
    [
        ("batch_size must be at least 1. Received: -3.", True),
        ("batch_size must be at least 1.", False),
        ("It must be at least 1. Received: -3.", False),
        ("batch_size is wrong: -3", False),
    ],
)
def test_what_a_clear_refusal_is(message: str, is_it: bool) -> None:
    setting = Setting("image", (), (Change("batch_size", "-3"),), ())
    assert is_clear(setting, message) is is_it
