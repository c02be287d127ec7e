"""What the configurations of all kinds of models share: the check of their field names."""

import dataclasses
import difflib
from collections.abc import Iterable


def check_fields(kind: type, names: Iterable[str]) -> None:
    """Raises ValueError if a name is no field of a dataclass, with the nearest field."""
    known = [field.name for field in dataclasses.fields(kind)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{kind.__name__} has no field {name!r}.{hint} Known: {', '.join(known)}."
            )
