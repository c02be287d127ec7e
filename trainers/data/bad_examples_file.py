"""The list of examples that could not be read, `bad_examples.jsonl` of a work directory."""

import json
import threading
from typing import Any

from trainers.utils import files


class BadExamplesFile:
    """A JSON object a line, `source`, `index` and `reason` of an example, each once.

    Args:
        path: of the file; it is made with the first example.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        content = files.read(path) if files.exists(path) else b""
        self._rows = _complete_rows(content)
        whole = b"".join(map(_line, self._rows))
        if whole != content:
            files.write_atomically(path, whole)

    def reasons(self, source: str) -> dict[int, str]:
        """Returns what is wrong with the examples of a source that are listed, by index.

        Args:
            source: name/split.
        """
        return {row["index"]: row["reason"] for row in self._rows if row["source"] == source}

    def add(self, source: str, index: int, reason: str) -> None:
        """Lists an example, unless it is listed.

        Args:
            source: name/split.
            index: of the example.
            reason: what is wrong with it.
        """
        row = {"source": source, "index": index, "reason": reason}
        with self._lock:
            if row not in self._rows:
                self._rows.append(row)
                files.append(self.path, _line(row))


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row) + "\n").encode()


def _complete_rows(content: bytes) -> list[dict[str, Any]]:
    rows = []
    for line in content.splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # a kill has cut the last line; the example will be met again
    return rows
