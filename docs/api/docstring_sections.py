"""Tells the API reference how this package's docstrings name their sections."""

from typing import Any

import griffe

#: What we write, and the section that is shown in the same way.
SECTIONS = {
    "Call arguments:": "Other Parameters: Call arguments:",
    "Example:": "Examples:",
    "Keys:": "Other Parameters: Keys:",
}


class DocstringSections(griffe.Extension):
    """Renames sections before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Renames the sections of one class, function or module."""
        del kwargs
        if obj.docstring is None:
            return
        lines = obj.docstring.value.split("\n")
        obj.docstring.value = "\n".join(SECTIONS.get(line, line) for line in lines)
