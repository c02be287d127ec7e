"""One random setting through what the training does before heavy work."""

import ast
import contextlib
import dataclasses
import re
import time
import warnings
from pathlib import Path

from absl import flags

from benchmarks.reliability.random_configurations import Change
from benchmarks.reliability.random_configurations import Setting
from trainers import train
from trainers.configuration.configuration import parse_config_flag
from trainers.preflight import check_configuration
from trainers.training.profiling import parse_profile_steps
from trainers.utils.errors import ConfigurationError

#: Seconds after which a check counts as hanging.
PATIENCE = 10
# How a message says what would be right.
_ALLOWED = re.compile(
    r"must|expect|needs?\b|takes|one of|at least|at most|between|known|did you mean|a name is|"
    r"choose|set |use |give|write|leave",
    re.IGNORECASE,
)
# Of a long value a message may show the beginning.
_SHOWN = 40


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a setting.

    Attributes:
        kind: accepted, refused or crashed.
        message: Of the refusal, or of the crash.
        seconds: How long it took.
    """

    kind: str
    message: str
    seconds: float


def command_line(setting: Setting, folder: Path) -> list[str]:
    """Returns the arguments, of a file `config.py` in the folder."""
    return [f"--config={folder}/config.py", f"--workdir={folder}/run", *setting.arguments()]


def check(setting: Setting, folder: Path) -> Outcome:
    """Reads a file and a command line, and checks them as the command does.

    Args:
        setting: The file and the command line.
        folder: Where the file goes; the work directory is one in it.
    """
    (folder / "config.py").write_text(setting.file())
    start = time.perf_counter()
    kind, message = "accepted", ""
    try:
        with contextlib.chdir(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check(["train", *command_line(setting, folder)])
    except (ConfigurationError, flags.Error) as error:
        kind, message = "refused", str(error)
    except Exception as error:  # what a user would see as a traceback
        kind, message = "crashed", f"{type(error).__name__}: {error}"
    return Outcome(kind, message, time.perf_counter() - start)


def _check(argv: list[str]) -> None:
    values = flags.FlagValues()
    train.define_flags(values)
    parse_config_flag(argv, values)
    check_configuration(values.config, values.workdir)
    parse_profile_steps(values.profile_steps)


def is_clear(setting: Setting, message: str) -> bool:
    """Tells whether a refusal names a key that was set, its value, and what is allowed."""
    return bool(_ALLOWED.search(message)) and any(_names(c, message) for c in setting.changes)


def _names(change: Change, message: str) -> bool:
    name = change.key.rpartition(".")[2]
    is_named = bool(name) and name in message
    unknown = f"Unknown flag --{change.key}." in message or any(
        f"{words} {form!r}" in message
        for words in ("Unknown configuration key", "has no field")
        for form in (change.key, name)
    )
    shown = message.lower()
    return unknown or (is_named and any(form.lower() in shown for form in _forms(change.value)))


def _forms(value: object) -> set[str]:
    text = str(value)
    forms = {text, repr(value), repr(text)[1:-1], *(() if text else ("none", "=:"))}
    forms.add(repr(re.split("[,@:]", text)[0].strip()))
    with contextlib.suppress(SyntaxError, ValueError):
        value = ast.literal_eval(text)
    forms |= {str(value), *((str(tuple(value)),) if isinstance(value, (list, dict)) else ())}
    if isinstance(value, (list, tuple)):
        forms |= set(map(str, value))  # a message may show the wrong one alone
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(value)  # type: ignore[arg-type]
        forms |= {f"{number:g}", str(number), str(int(number))}
    return {form[:_SHOWN] for form in forms if form} or {"''"}
