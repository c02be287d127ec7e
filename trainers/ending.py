"""How the process of a command ends: at once, after everything that Python does before.

An input pipeline may be calling Python when a command ends. The interpreter, while it takes
itself apart, destroys the pipeline and waits for these calls, which can no longer begin: for
ever. So a command's process ends just before that. By then threads have been joined and what
libraries wanted to do at the end is done, for this is registered before any of them is imported.
"""

import atexit
import os
import sys

_statuses: list[int] = []


def end_with(status: int) -> None:
    """Sets the exit status of the process, if a command of this package is what it runs."""
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    name = specification.name if specification else ""
    if name.startswith(f"{__package__}."):
        _statuses.append(status)


@atexit.register
def _end() -> None:
    if _statuses:
        for stream in (sys.stdout, sys.stderr):
            # A pipe may be closed by whoever read it.
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(_statuses[-1])
