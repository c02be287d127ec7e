"""Errors that end a command with one clear message instead of a traceback."""


class ConfigurationError(Exception):
    """Wrong usage or configuration; ends the program with status 2."""


class DataError(Exception):
    """Damaged or unreadable data; ends the program with status 1."""


class TrainingError(Exception):
    """The training cannot go on; ends the program with status 1."""


class DivergedError(TrainingError):
    """The loss or the gradient of a block of steps is not finite."""


class LostHostError(TrainingError):
    """Another host of the training is gone; ends the program at once, with status 1."""


class ExportError(Exception):
    """A model cannot be exported, or its export answers otherwise; status 1."""


class Interrupted(BaseException):
    """A signal asked the program to stop; ends it with status 128 + signal.

    Like KeyboardInterrupt, it passes every `except Exception`.

    Attributes:
        signal_number: The signal, such as 15 for SIGTERM.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
