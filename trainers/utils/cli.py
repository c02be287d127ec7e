"""Parses command lines, and ends commands with an exit status and one-line errors."""

import os
import re
import runpy
import signal
import sys
import warnings
from collections.abc import Callable
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from absl import app
from absl import flags

from trainers.utils import errors
from trainers.utils import files
from trainers.utils import process

# Flags that `define_path` defines belong to the module that calls it.
flags.disclaim_key_flags()

STATUS_FAILED = 1
STATUS_WRONG_USAGE = process.STATUS_WRONG_USAGE
STATUS_SIGNAL = 128


def run(main: Callable[[], None], parse: Callable[[list[str]], None]) -> NoReturn:
    """Parses flags and runs a command; known errors end in one line, no traceback.

    Exit status: 0 finished, 2 wrong usage or configuration, 128 + signal after a
    signal, 1 anything else.
    """

    def parse_flags(argv: list[str]) -> list[str]:
        try:
            _check_utf8(argv[1:])
            parse(["--help" if argument == "-h" else argument for argument in argv])
        except SystemExit:  # raised by a help flag; absl's status for it is 1
            process.end_with(0)
            raise SystemExit(0) from None
        except (flags.Error, errors.ConfigurationError) as error:
            process.fail(str(error), STATUS_WRONG_USAGE)
        return argv[:1]

    def guarded(argv: list[str]) -> None:
        del argv
        process.end_with(STATUS_FAILED)  # for an error not caught below
        try:
            main()
            process.end_with(0)
        except SystemExit as end:
            process.end_with(end.code if isinstance(end.code, int) else int(end.code is not None))
            raise
        except errors.ConfigurationError as error:
            process.fail(str(error), STATUS_WRONG_USAGE)
        except errors.LostHostError as error:
            # The engine's own shutdown would wait for the host that is gone, and then abort.
            print(f"error: {error}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(STATUS_FAILED)
        except (errors.DataError, errors.ExportError, errors.TrainingError) as error:
            process.fail(str(error), STATUS_FAILED)
        except OSError as error:
            process.fail(errors.explain_os_error(error), STATUS_FAILED)
        except errors.Interrupted as error:
            process.fail(str(error), STATUS_SIGNAL + error.signal_number)
        except KeyboardInterrupt:
            process.fail("interrupted", STATUS_SIGNAL + signal.SIGINT)

    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    app.run(guarded, flags_parser=parse_flags)
    raise SystemExit(0)


def console() -> None:
    """Runs the module whose command this is: `tokenlearner-train` is `python -m trainers.train`."""
    name = Path(sys.argv[0]).stem.removeprefix("tokenlearner-")
    runpy.run_module(f"trainers.{name}", run_name="__main__", alter_sys=True)


class _PathParser(flags.ArgumentParser):
    """Expands "~" to the home directory, which a shell does not do after a "="."""

    def parse(self, argument: str) -> str:
        return os.path.expanduser(argument)


def define_path(name: str, help: str, flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines a flag that names a file or a directory; "~" is expanded."""
    flags.DEFINE(_PathParser(), name, None, help, flag_values)


def parse_known_flags(
    argv: list[str],
    flag_values: flags.FlagValues = flags.FLAGS,
    keys: Iterable[str] = (),
) -> None:
    """Parses absl flags after the program's name, and refuses arguments that are not flags.

    `keys` are keys of the configuration, one of which may have been meant. Raises a
    ConfigurationError for an unknown flag, a flags.Error for a wrong value.
    """
    try:
        rest = flag_values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        near = errors.near_names(error.flagname, [*flag_values, *keys])
        meant = [f"--{name}" if name in flag_values else f"--config.{name}" for name in near]
        hint = f" Did you mean {' or '.join(meant)}?" if meant else ""
        raise errors.ConfigurationError(f"Unknown flag --{error.flagname}.{hint}") from error
    except flags.IllegalFlagValueError as error:
        raise flags.IllegalFlagValueError(_plain(str(error))) from error
    if rest:
        hint = " Write --config.key=value to override a configuration key."
        raise errors.ConfigurationError(
            f"Expected only flags (--name=value). Received: {' '.join(rest)}."
            f"{hint if 'config' in flag_values else ''}"
        )


def _check_utf8(arguments: list[str]) -> None:
    for argument in arguments:
        if not files.is_utf8(argument):
            raise errors.ConfigurationError(
                f"Expected names in UTF-8. Received {argument!r}. Rename the file or folder."
            )


def _plain(message: str) -> str:
    """Rewrites absl's message about a wrong value to say which kind of value is expected."""
    for words, expected in (
        ("invalid literal for int()", "a whole number"),
        ("could not convert string to float", "a number"),
        ("Non-boolean argument", "true or false"),
    ):
        flag, found, _ = message.partition(words)
        if found:
            return flag.rstrip(" ('") + f" expected {expected}"
    if choice := re.match(r"flag --\w+=(.*): value should be one of <(.*)>$", message):
        return f"{message}.{errors.did_you_mean(choice[1], choice[2].split('|'))}"
    return message
