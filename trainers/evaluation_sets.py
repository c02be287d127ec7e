"""The sets that a model is evaluated on: by name, from the training's data or from others.

An entry of `data.eval_sets` is one of

    SPLIT                           a split of data.source in data.data_dir: "test"
    SOURCE:SPLIT                    a split of another source in data.data_dir:
                                    "tfds:imagenet_v2:test"
    either followed by @DATA_DIR    the same in another folder: "folder:test@/data/sketch"
    NAME=ENTRY                      any of these under a name: "v2=tfds:imagenet_v2:test"

The name (else the entry up to the "@") stands in metrics.jsonl as `split`. Labels mean the
classes of the training's data, in the same order.
"""

import dataclasses
import re
from collections.abc import Iterable

from ml_collections import ConfigDict

from trainers.data.sources import Source
from trainers.data.sources import check_source
from trainers.data.sources import make_source
from trainers.errors import ConfigurationError

_NAMED = re.compile(r"([\w.-]+)=(.*)")
_FORMS = "[NAME=][SOURCE:]SPLIT[@DATA_DIR]"


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """One set to evaluate on.

    Attributes:
        name: In messages, and as `split` in metrics.jsonl.
        source: As `data.source`.
        split: One of the source's splits.
        data_dir: As `data.data_dir`.
    """

    name: str
    source: str
    split: str
    data_dir: str | None

    def open(self, num_classes: int) -> Source:
        """Opens the data.

        Args:
            num_classes: Outputs of the model.

        Raises:
            ConfigurationError: If the data are missing, or have other classes.
        """
        source = make_source(self.source, self.split, self.data_dir)
        if source.num_classes != num_classes:
            raise ConfigurationError(
                f"Evaluation set {self.name!r}: expected {num_classes} classes, as the model "
                f"has. Received {source.num_classes} in {self.source}."
            )
        return source


def configured_sets(data: ConfigDict) -> list[EvaluationSet]:
    """Returns the sets that a training evaluates: `eval_split`, then `eval_sets`.

    Args:
        data: The section `data` of a configuration.

    Raises:
        ConfigurationError: If an entry is wrong, or a name stands for two things.
    """
    sets = parse_sets((data.eval_split, *data.eval_sets), data)
    for reserved in ("train", data.final_split):
        if reserved in [each.name for each in sets]:
            raise ConfigurationError(
                f"Evaluation sets: the name {reserved!r} is taken by other rows of "
                f"metrics.jsonl. Give the set another one, such as 'my_{reserved}={reserved}', "
                "or leave it out."
            )
    return sets


def parse_sets(entries: Iterable[str], data: ConfigDict) -> list[EvaluationSet]:
    """Returns the sets that entries stand for; a comma separates two in one string.

    Args:
        entries: As above.
        data: The section `data` of a configuration.

    Raises:
        ConfigurationError: If an entry is wrong, or there are two of a name.
    """
    single = [part.strip() for entry in entries for part in str(entry).split(",")]
    sets = [_parse(entry, data) for entry in single]
    names = [each.name for each in sets]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"Evaluation sets: expected different names. Received {name!r} "
                f"{names.count(name)} times. Put NAME= in front of an entry."
            )
    return sets


def _parse(entry: str, data: ConfigDict) -> EvaluationSet:
    match = _NAMED.fullmatch(entry)
    place = match[2] if match else entry
    where, _, data_dir = place.partition("@")
    # A source may have colons of its own: tfds:NAME:VERSION.
    source, _, split = where.rpartition(":")
    if not split:
        raise ConfigurationError(f"Evaluation sets: expected {_FORMS}. Received {entry!r}.")
    chosen = EvaluationSet(
        name=match[1] if match else where,
        source=source or data.source,
        split=split,
        data_dir=data_dir or data.data_dir,
    )
    check_source(chosen.source, chosen.split)
    return chosen
