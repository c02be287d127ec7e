"""Lets conversions of several splits share a folder, at the same time or in turn.

Each conversion holds the lock of its split from start to end. The lock of the label map is
held while making or reading the label map, and while taking the lock of a split. Where
file locks do not exist (gs://, Windows, some network file systems) nothing is locked.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from trainers.data.records.manifest import has_shards
from trainers.data.sources import SPLITS
from trainers.utils import files
from trainers.utils.cache import exclusive
from trainers.utils.errors import ConfigurationError
from trainers.utils.lock import WorkdirLock

_LABEL_MAP_LOCK = ".labels.lock"
_REFUSAL = (
    "Another conversion of this split (process {owner}) is writing to {folder}. Wait for its "
    "end, stop it, or use another --output."
)


def conversion_lock(split: str) -> WorkdirLock:
    """Returns the lock of a split, for a `with`; call its `acquire` to take it."""
    return WorkdirLock(_lock_name(split), _REFUSAL)


@contextlib.contextmanager
def label_map_lock(output: str) -> Iterator[None]:
    """Waits until no other conversion makes the label map of an existing folder."""
    if files.is_remote(output):
        yield
        return
    with exclusive(Path(output, _LABEL_MAP_LOCK)):
        yield


def label_map_is_used(output: str, split: str) -> bool:
    """Returns whether records hold numbers of the folder's label map, or soon will.

    `split` asks; the others may be about to write a first shard. Where that cannot be known,
    because locks are missing, the answer is True.
    """
    if not files.exists(output):
        return False
    if has_shards(output):
        return True
    others = [other for other in SPLITS if other != split]
    return any(_is_running(output, other) for other in others)


def _is_running(output: str, split: str) -> bool:
    if files.is_remote(output):
        return True
    with conversion_lock(split) as lock:
        try:
            lock.acquire(output)
        except ConfigurationError:
            return True
        return not lock.is_held


def _lock_name(split: str) -> str:
    return f".{split}.lock"
