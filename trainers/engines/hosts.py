"""Communication between the hosts of a training, which all run the same program.

All of them take part in every step and evaluation; the chief writes the work directory.
"""

import tempfile
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress

from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import LostHostError
from trainers.utils.errors import TrainingError

# Outcome of an `all_succeed()` block on one host.
_WENT_WELL, _REFUSED, _FAILED = range(3)


class Hosts:
    """The hosts of an engine.

    Methods that talk to the other hosts must be called by all of them, in the same order. With one
    host they return at once. They raise `LostHostError` if another host is gone.

    Args:
        count: How many processes train together.
        index: Which of them this is; 0 is the chief, which writes files.
        gather: Returns the 64-bit integers of all hosts, in host order; None for a single host.
        lost: What a step raises when another process is gone.
    """

    def __init__(
        self,
        count: int = 1,
        index: int = 0,
        gather: Callable[[int], list[int]] | None = None,
        lost: tuple[type[Exception], ...] = (),
    ) -> None:
        self.count = count
        self.index = index
        self.is_chief = index == 0
        self._gather = gather
        self._lost = lost

    def describe(self, devices: list[str]) -> str:
        """Returns this host among several, and its devices."""
        # A pod has hundreds.
        places = [devices[0], "...", devices[-1]] if len(devices) > 8 else devices
        if self.count > 1:
            places = [f"host {self.index} of {self.count}", *places]
        return ", ".join(places)

    def output_directory(self, workdir: str) -> str:
        """Returns `workdir` on the chief, elsewhere a directory removed when the process ends."""
        if self.is_chief:
            return workdir
        self._scratch = tempfile.TemporaryDirectory(prefix="tokenlearner-host-")
        return self._scratch.name

    def all_values(self, value: int) -> list[int]:
        """Returns the values that the hosts called this with, in host order."""
        if self._gather is None:
            return [value]
        try:
            return self._gather(value)
        # This only asks the other hosts, and an engine's error for a host that is gone can be
        # of many types.
        except Exception as error:
            raise self._lost_host(error) from error

    def max(self, value: int) -> int:
        return max(self.all_values(value))

    def barrier(self) -> None:
        """Returns when all hosts have called it.

        A process that exits takes the others with it, so all wait until the chief has written its
        last file.
        """
        self.all_values(0)
        self._let_others_hear()

    def _let_others_hear(self) -> None:
        """Waits until all hosts have the last gathered values or are gone, so this one may exit."""
        # A gathering may end here before it ends elsewhere. A host in the next one has the last.
        with suppress(LostHostError):
            self.all_values(0)

    @contextmanager
    def all_succeed(self) -> Iterator[None]:
        """Barrier: continues only if the block succeeded on every host.

        It is for what depends on the files of each machine. Nothing in the block may wait for the
        other hosts.

        Raises:
            ConfigurationError: If another host has raised one; this host's own error comes first.
            TrainingError: If another host has raised something else, or is gone.
        """
        try:
            yield
        except Exception as error:
            with suppress(LostHostError):
                self.all_values(_REFUSED if isinstance(error, ConfigurationError) else _FAILED)
            self._let_others_hear()
            raise
        ends = self.all_values(_WENT_WELL)
        for index, end in enumerate(ends):
            if end != _WENT_WELL:
                self._let_others_hear()
                kind = ConfigurationError if end == _REFUSED else TrainingError
                raise kind(
                    f"Host {index} of {self.count} cannot continue; its own message says why. "
                    "Put it right there, and start all of them again."
                )

    @contextmanager
    def explain_lost_hosts(self) -> Iterator[None]:
        """Replaces an engine's error about a lost host by a `LostHostError` of one line."""
        try:
            yield
        except self._lost as error:
            if self.count == 1:
                raise
            raise self._lost_host(error) from error

    def _lost_host(self, error: Exception) -> LostHostError:
        return LostHostError(
            f"Host {self.index} of {self.count} has lost another one "
            f"({_first_line(error)}); its own message may say why. Start all of them "
            "again; a training resumes from its last checkpoint."
        )

    def check_same(self, what: str, value: int) -> None:
        """Raises a `ConfigurationError` on every host if they differ; `what` names the value."""
        values = self.all_values(value)
        if len(set(values)) > 1:
            self._let_others_hear()
            listed = ", ".join(f"host {index}: {each}" for index, each in enumerate(values))
            raise ConfigurationError(
                f"The hosts differ in {what} ({listed}). Start the same command on all of "
                "them, with a --workdir that they share."
            )


def _first_line(error: Exception) -> str:
    # TensorFlow names the place in its graph first, then the error.
    lines = [line for line in str(error).splitlines() if line.strip()]
    lines = lines[1:] if lines and lines[0].startswith("Graph execution error") else lines
    return f"{type(error).__name__}: {lines[0].strip()[:200]}" if lines else type(error).__name__
