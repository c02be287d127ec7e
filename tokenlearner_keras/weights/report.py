"""The report of loading a checkpoint: loaded, resized, skipped and missing parameters."""

import dataclasses

_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of each parameter of the model, and of what else the file holds.

    Every parameter of the model is in exactly one of the first four. Names are the reference's,
    `head/...` for the logits' layer; between two Keras models they are the variables' paths.

    Attributes:
        loaded: Taken as they are in the file.
        resized: Taken, but adapted: positions resized or repeated over time, a patch kernel
            inflated to a tubelet's or adapted to other input channels.
        skipped: In the file for another number of classes, so left as they were.
        missing: Not in the file, so left as they were.
        left_over: Keys of the file that the model has no parameter for.
    """

    loaded: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether all of the file went, unchanged, into all of the model."""
        return not (self.resized or self.skipped or self.missing or self.left_over)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} parameters loaded as they are"]
        for field in dataclasses.fields(self)[1:]:
            names = getattr(self, field.name)
            if names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                label = field.name.replace("_", " ")
                lines.append(f"{len(names)} {label}: {', '.join(names[:_SHOWN])}{more}")
        return "\n".join(lines)


def first_problems(problems: list[str], most: int) -> list[str]:
    """Returns at most that many problems, and how many more there are."""
    more = len(problems) - most
    return [*problems[:most], f"and {more} more"] if more > 0 else problems
