"""Lets conversions of several splits share a folder, at the same time or in turn.

Each conversion holds the lock of its split from start to end. The lock of the label map is
held while making or reading the label map, and while taking the lock of a split.
"""

from contextlib import AbstractContextManager

from trainers.data.records.manifest import has_shards
from trainers.data.sources import SPLITS
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.lock import locked

_REFUSAL = (
    "Another conversion of this split (process {owner}) is writing to {folder}. Wait for its "
    "end, stop it, or use another --output."
)


def conversion_lock(output: str, split: str) -> AbstractContextManager[bool]:
    """Keeps a second conversion of a split out of a folder; yields whether it is locked."""
    return locked(files.join(output, f".{split}.lock"), _REFUSAL)


def label_map_lock(output: str) -> AbstractContextManager[bool]:
    """Waits until no other conversion makes the label map of an existing folder."""
    return locked(files.join(output, ".labels.lock"))


def label_map_is_used(output: str, split: str) -> bool:
    """Returns whether records hold numbers of the folder's label map, or soon will.

    `split` asks; the others may be about to write a first shard. Where that cannot be known,
    because locks are missing, the answer is True.
    """
    if not files.exists(output):
        return False
    others = [other for other in SPLITS if other != split]
    return has_shards(output) or any(_is_running(output, other) for other in others)


def _is_running(output: str, split: str) -> bool:
    try:
        with conversion_lock(output, split) as is_held:
            return not is_held
    except ConfigurationError:
        return True
