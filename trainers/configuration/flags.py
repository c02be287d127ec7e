"""Adapts `--config...` arguments to what ml_collections parses."""

import re
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

_EVAL_SETS = "--config.data.eval_sets="
_FREEZE = "--config.optimizer.freeze="
# What may follow a comma: [NAME=][SOURCE:]SPLIT.
_NEXT_SET = re.compile(
    r",(?=\s*(?:[\w.-]+=)?(?:[^,@]+:)?(?:train|validation|test|whole_train)\s*(?:[,@]|$))"
)


class _OrNone(flags.ArgumentParser):
    """Reads "None" as None, and everything else with another parser."""

    def __init__(self, parser: flags.ArgumentParser) -> None:
        self.parser = parser

    def parse(self, argument: Any) -> Any:
        return None if argument == "None" else self.parser.parse(argument)

    def flag_type(self) -> str:
        return str(self.parser.flag_type())


# ml_collections does not read None, which --config.model.fuser_bottleneck_dim=None needs.
for _type, _parser in (
    (int, flags.IntegerParser()),
    (float, flags.FloatParser()),
    (str, flags.ArgumentParser()),
    (tuple, tuple_parser.TupleParser()),
):
    config_flags.register_flag_parser_for_type(_type, _OrNone(_parser))


def split_config_argument(argv: list[str]) -> tuple[str | None, list[str]]:
    """Takes --config=FILE or --config FILE out of a command line; overrides get two dashes."""
    path, rest = None, []
    arguments = iter(argv)
    for argument in arguments:
        if re.match(r"-(no)?config\b", argument):
            argument = f"-{argument}"
        if argument == "--config":
            path = next(arguments, None)
        elif argument.startswith("--config="):
            path = argument.split("=", 1)[1]
        else:
            rest.append(argument)
    return path, rest


def quote_texts(argument: str) -> str:
    """Rewrites texts with commas between as the tuple of strings that ml_collections expects."""
    key, equals, value = argument.partition("=")
    key += equals
    if key not in (_EVAL_SETS, _FREEZE) or value.startswith("("):
        return argument
    texts = split_sets(value) if key == _EVAL_SETS else value.split(",")
    entries = () if value == "None" else tuple(filter(None, texts))
    return f"{key}{entries!r}"


def split_sets(text: str) -> list[str]:
    """Splits evaluation sets at the commas between them, but not at commas in a folder's name."""
    before, at, rest = text.partition("@")
    *sets, last = before.split(",")
    if not at:
        return [*sets, last]
    folder, *others = _NEXT_SET.split(rest, maxsplit=1)
    return [*sets, f"{last}@{folder}", *(split_sets(others[0]) if others else ())]


def describe_type(kind: type) -> str:
    """Returns the words for the values of a type, for "must be ..."."""
    return {
        bool: "True or False",
        int: "a whole number",
        float: "a number",
        str: "a text",
        tuple: "a tuple, such as (0.5, 1.0) or ('head',)",
        ConfigDict: "a section with keys",
    }.get(kind, f"of the type {kind.__name__}")
