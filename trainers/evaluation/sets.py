"""Parses the names of evaluation sets, and opens the sets.

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
from collections.abc import Mapping

from ml_collections import ConfigDict

from trainers.configuration.data_options import RecordsConfig
from trainers.configuration.flags import split_sets
from trainers.data.sources import Source
from trainers.data.sources import check_source
from trainers.data.sources import make_source
from trainers.data.sources import reads_directory
from trainers.utils.errors import ConfigurationError

_NAMED = re.compile(r"([\w.-]+)=(.*)")
_FORMS = "[NAME=][SOURCE:]SPLIT[@DATA_DIR]"


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """One set to evaluate on; `source` and `data_dir` are as in the section `data`.

    Attributes:
        name: In messages, and as `split` in metrics.jsonl.
    """

    name: str
    source: str
    split: str
    data_dir: str | None

    def open(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None,
        records: RecordsConfig | None = None,
        file_splits: Mapping[str, str] | None = None,
    ) -> Source:
        """Opens the data; `records` and `file_splits` are those of `make_source`.

        Args:
            num_classes: Outputs of the model.
            class_names: The classes that the model was trained on, in order; None if unknown. A
                folder's classes are numbered by them.

        Raises:
            ConfigurationError: If the data are missing, or have other classes.
        """
        source = make_source(
            self.source, self.split, self.data_dir, class_names, records, file_splits
        )
        if source.num_classes != num_classes:
            raise ConfigurationError(
                f"Evaluation set {self.name!r}: expected {num_classes} classes, as the model "
                f"has. Received {source.num_classes} in {self.source}."
            )
        if class_names is not None:
            self._check_classes(source.class_names, class_names)
        return source

    def _check_classes(self, found: tuple[str, ...], expected: tuple[str, ...]) -> None:
        numbers = tuple(map(str, range(len(found))))  # the names of unnamed classes
        if found == expected or numbers in (found, expected):
            return
        number = next(i for i, name in enumerate(found) if name != expected[i])
        raise ConfigurationError(
            f"Evaluation set {self.name!r}: expected the classes that the model was trained "
            f"on, in the same order. Class {number} is {expected[number]!r} there, and "
            f"{found[number]!r} in {self.source}."
        )


def configured_sets(data: ConfigDict) -> list[EvaluationSet]:
    """Returns the sets that a training evaluates: `eval_split`, then `eval_sets` of `data`.

    Raises:
        ConfigurationError: If an entry is wrong, or a name stands for two sets.
    """
    try:
        sets = parse_sets((data.eval_split, *data.eval_sets), data)
    except ConfigurationError as error:
        raise ConfigurationError(f"data.eval_split, data.eval_sets: {error}") from error
    for each in sets:
        if each.name in ("train", data.final_split):
            raise ConfigurationError(
                f"data.eval_split, data.eval_sets: the name {each.name!r} is taken by the rows "
                f"of data.train_split or data.final_split in metrics.jsonl. Give the set another "
                f"one, such as 'my_{each.name}={each.name}', or leave it out."
            )
        same_data = (each.source, each.data_dir) == (data.source, data.data_dir)
        if data.train_split == "whole_train" and same_data and each.split == "validation":
            raise ConfigurationError(
                f"Evaluation set {each.name!r}: the training sees these examples, for "
                f"data.train_split is {data.train_split!r}. Evaluate on 'test', or train on "
                "'train'."
            )
    return sets


def parse_sets(entries: Iterable[str], data: ConfigDict) -> list[EvaluationSet]:
    """Returns the sets that entries stand for; one string may hold several, with commas between.

    Raises:
        ConfigurationError: If an entry is wrong, or two have the same name.
    """
    single = [part.strip() for entry in entries for part in split_sets(str(entry))]
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
    # A source may contain colons: tfds:NAME:VERSION.
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
    if data_dir and not reads_directory(chosen.source):
        raise ConfigurationError(
            f"Evaluation set {entry!r}: {chosen.source} is built in and reads no directory. "
            f"Leave out '@{data_dir}', or name another source."
        )
    return chosen
