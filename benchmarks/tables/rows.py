"""Groups rows of the committed results, and makes tables in Markdown."""

from collections.abc import Iterable

from benchmarks.timing import Row


def grouped(rows: list[Row], *keys: str) -> dict[tuple[str, ...], list[Row]]:
    """Returns the rows by their values of some columns, in the order of the file."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def table(header: str, lines: Iterable[str]) -> str:
    """Returns a table whose header and lines hold cells separated by ` | `."""
    separator = "---|" * len(header.split(" | "))
    return "\n".join([f"| {header} |", f"|{separator}", *(f"| {line} |" for line in lines)])


def versions(rows: list[Row], *packages: str) -> str:
    """Returns the versions of packages that rows were measured with."""
    found = {", ".join(f"{name} {row[name.lower()]}" for name in packages) for row in rows}
    return " and ".join(sorted(found))
