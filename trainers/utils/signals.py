"""Handles SIGTERM and SIGINT: finishes the running steps, saves, exits with 128 + signal."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trainers.utils.errors import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds after which a signal whose exception was dropped is sent again.
_AGAIN = 0.05


class StopRequest:
    """Stops at once, except in `deferred` blocks, where there is something to save.

    Such a block runs `steps_per_loop` steps in one compiled loop, which ends first. A second signal
    ends the process as usual, in a notebook the call.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None  # of the first one received
        self._deferred = False
        self._timer: threading.Timer | None = None

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Listens inside the block; elsewhere than in the main thread signals are not seen."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        hook = sys.unraisablehook

        def send_again(unraisable: "sys.UnraisableHookArgs") -> None:
            if isinstance(unraisable.exc_value, Interrupted):
                self._again(unraisable.exc_value.signal_number)
            else:
                hook(unraisable)

        self._listen()
        sys.unraisablehook = send_again
        try:
            yield self
        finally:
            sys.unraisablehook = hook
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _listen(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._receive)

    def _again(self, number: int) -> None:
        """Sends a signal again whose exception Python dropped, in a finalizer or `gc` callback."""
        # As if it had not come yet: nothing may stop because of it and then be interrupted by it.
        self.signal_number = None
        self._listen()
        # Two dropped in a row are sent again as one: a second one would end the process.
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(_AGAIN, os.kill, (os.getpid(), number))
        self._timer.daemon = True
        self._timer.start()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Raises for a signal only at the end of the block, which may read `signal_number`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.signal_number is not None:
            raise self._interrupted(self.signal_number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal_number = number
        # In a notebook a second Ctrl-C stops the training, and not the notebook.
        second = signal.default_int_handler if hasattr(sys, "ps1") else signal.SIG_DFL
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, second)
        if not self._deferred:
            raise self._interrupted(number)
        # print() must not be called in a handler: it may interrupt another print().
        os.write(2, b"stopping soon, with a checkpoint; again to stop at once\n")

    def _interrupted(self, number: int) -> Interrupted:
        return Interrupted(
            f"stopped by signal {number}; the same command resumes from the last "
            "checkpoint, if there is one",
            number,
        )


@contextmanager
def own_signal_handlers() -> Iterator[None]:
    """Lets Ctrl-C end a wait for other workers, and keeps SIGTERM for us.

    Python's handlers do not run while TensorFlow or JAX waits. Their preemption notice takes over
    SIGTERM, which then does nothing during the wait, nor afterwards unless it is restored.
    """
    on_terminate = signal.getsignal(signal.SIGTERM)
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, on_terminate)
        signal.signal(signal.SIGINT, on_interrupt)
