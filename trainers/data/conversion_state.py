"""`SPLIT.conversion.json`: which shards of a split are finished, and what they hold.

    {"fingerprint": "…", "shards": {"0": {"fingerprint": "…", "num_examples": 255,
                                          "num_bytes": 52013, "skipped": [[7, "no label"]]}}}

The first fingerprint is of what all shards have in common, the others of their rows.
"""

import hashlib
import json
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from trainers.utils import files
from trainers.utils.errors import ConfigurationError


@dataclass
class ShardResult:
    """What a finished shard holds.

    Attributes:
        fingerprint: of its rows.
        num_examples: its records.
        num_bytes: the size of its file.
        skipped: number and reason of each row that was left out.
    """

    fingerprint: str
    num_examples: int = 0
    num_bytes: int = 0
    skipped: list[tuple[int, str]] = field(default_factory=list)


def fingerprint(content: Any) -> str:
    """Returns a text that differs where the content, which JSON can hold, differs."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def read_state(path: str) -> tuple[str, dict[int, ShardResult]]:
    """Reads the fingerprint of a conversion, and its finished shards by their numbers.

    Raises:
        ConfigurationError: the file is damaged.
    """
    try:
        state = json.loads(files.read(path))
        results = {int(key): _result(value) for key, value in state["shards"].items()}
        return str(state["fingerprint"]), results
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is damaged ({error}). Remove it; the conversion then begins anew."
        ) from error


def write_state(path: str, of_all: str, results: dict[int, ShardResult]) -> None:
    """Writes what `read_state` reads."""
    shards = {str(number): asdict(result) for number, result in results.items()}
    text = json.dumps({"fingerprint": of_all, "shards": shards}, indent=1, sort_keys=True) + "\n"
    files.write_atomically(path, text.encode())


def _result(value: dict[str, Any]) -> ShardResult:
    skipped = [(int(number), str(reason)) for number, reason in value["skipped"]]
    return ShardResult(
        str(value["fingerprint"]), int(value["num_examples"]), int(value["num_bytes"]), skipped
    )
