"""Errors that end a command with one clear message instead of a traceback."""


class ConfigurationError(Exception):
    """Wrong usage or configuration; ends the program with status 2."""


class DataError(Exception):
    """Damaged or unreadable data; ends the program with status 1."""


class Interrupted(Exception):
    """A signal asked the program to stop; ends it with status 128 + signal.

    Attributes:
        signal_number: The signal, such as 15 for SIGTERM.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
