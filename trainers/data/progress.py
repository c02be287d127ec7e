"""A progress bar on a terminal, and few, complete lines in a log."""

import contextlib
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator


@contextlib.contextmanager
def progress_bar(description: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Shows a bar on a terminal, a line about every ten seconds elsewhere.

    Args:
        description: the words before the numbers.
        total: how many there are to do.
        done: how many of them are done already.

    Yields:
        A function to call after each; any thread may.
    """
    try:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn
        from rich.progress import Progress
        from rich.progress import TimeElapsedColumn
    except ImportError:
        yield _PlainLines(description, total, done).advance
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(description, total, done).advance
        return
    columns = (
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=total, completed=done)
        yield lambda: progress.advance(task)


class _PlainLines:
    """Progress for logs: few lines, each complete."""

    seconds_between_lines = 10.0

    def __init__(self, description: str, total: int, done: int) -> None:
        self._description = description
        self._total = total
        self._done = done
        self._last_line = time.monotonic()
        self._write()

    def advance(self) -> None:
        self._done += 1
        waited = time.monotonic() - self._last_line
        if self._done == self._total or waited >= self.seconds_between_lines:
            self._write()

    def _write(self) -> None:
        self._last_line = time.monotonic()
        line = f"{self._description}: {self._done} of {self._total}"
        print(line, file=sys.stderr, flush=True)
