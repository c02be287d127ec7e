"""SIGTERM and SIGINT: finish the step, save, leave with 128 + signal."""

import signal
from types import FrameType


class StopRequest:
    """Remembers the first signal; a second one ends the process as usual."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def install(self) -> "StopRequest":
        """Starts listening. Only the main thread may do this."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal_number = number
        signal.signal(number, signal.SIG_DFL)
