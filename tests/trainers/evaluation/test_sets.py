from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict

from tests.helpers.small_runs import config_file
from tests.helpers.small_runs import parse
from trainers.configuration.configuration import base_config
from trainers.data.datasets.in_memory import InMemorySource
from trainers.evaluation.sets import EvaluationSet
from trainers.evaluation.sets import configured_sets
from trainers.evaluation.sets import parse_sets
from trainers.utils.errors import ConfigurationError

FORMS = {
    "test": ("test", "digits", "test", "/data"),
    "mine=test": ("mine", "digits", "test", "/data"),
    "folder:test@/other": ("folder:test", "folder", "test", "/other"),
    "elpv:test": ("elpv:test", "elpv", "test", "/data"),
    "v2=tfds:imagenet_v2/matched-frequency:3.0.0:test@gs://bucket/tfds": (
        "v2",
        "tfds:imagenet_v2/matched-frequency:3.0.0",
        "test",
        "gs://bucket/tfds",
    ),
    "folder:validation@/a=b": ("folder:validation", "folder", "validation", "/a=b"),
}


def _data(**keys: object) -> ConfigDict:
    data = base_config().data
    data.update({"source": "digits", "data_dir": "/data", **keys})
    return data


@pytest.mark.parametrize("entry", FORMS)
def test_forms(entry: str) -> None:
    assert parse_sets([entry], _data()) == [EvaluationSet(*FORMS[entry])]


def test_a_comma_separates_two() -> None:
    assert [each.name for each in parse_sets(["train, test"], _data())] == ["train", "test"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("", r"expected \[NAME=\]"),
        ("digits:", r"expected \[NAME=\]"),
        ("a=", r"expected \[NAME=\]"),
        ("test,", r"expected \[NAME=\]"),
        ("tset", "Did you mean 'test'"),
        ("digit:test", "Did you mean 'digits'"),
        ("test,test", "different names"),
    ],
)
def test_wrong_entries(entry: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_sets([entry], _data())


def test_the_main_split_comes_first() -> None:
    sets = configured_sets(_data(eval_sets=("v=digits:test",)))
    assert [each.name for each in sets] == ["validation", "v"]


@pytest.mark.parametrize("taken", ["train", "test"])
def test_names_of_other_rows_are_taken(taken: str) -> None:
    with pytest.raises(ConfigurationError, match=f"my_{taken}={taken}"):
        configured_sets(_data(eval_sets=(taken,), final_split="test"))


def test_the_classes_must_be_the_models() -> None:
    (chosen,) = parse_sets(["test"], _data())
    assert chosen.open(10, None).num_examples == 270
    names = chosen.open(10, None).class_names
    assert chosen.open(10, names).num_examples == 270
    with pytest.raises(ConfigurationError, match="expected 3 classes.* Received 10"):
        chosen.open(3, None)


def _write_test_folder(folder: Path) -> None:
    for name in ("ant", "bee"):
        path = folder / "test" / name / "one.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(tf.io.encode_png(tf.fill((4, 4, 3), tf.constant(9, tf.uint8))).numpy())


def test_a_folder_is_numbered_by_the_trainings_classes(tmp_path: Path) -> None:
    _write_test_folder(tmp_path)
    (chosen,) = parse_sets([f"folder:test@{tmp_path}"], _data())
    names = ("bee", "cat", "ant")
    source = chosen.open(3, names)
    assert source.class_names == names
    labels = [int(source.load(tf.constant(index, tf.int64))["label"]) for index in range(2)]
    assert labels == [2, 0]
    with pytest.raises(ConfigurationError, match="lack: ant"):
        chosen.open(2, ("bee", "cat"))


@pytest.mark.parametrize(
    ("found", "trained", "message"),
    [
        (("cat", "dog"), ("cat", "dog"), None),
        (("cat", "dog"), ("dog", "cat"), "Class 0 is 'dog' there, and 'cat'"),
        (("cat", "dog"), ("cat", "fox"), "Class 1 is 'fox' there, and 'dog'"),
        # Classes without names may be any.
        (("0", "1"), ("dog", "cat"), None),
        (("cat", "dog"), ("0", "1"), None),
    ],
)
def test_classes_in_another_order_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    found: tuple[str, ...],
    trained: tuple[str, ...],
    message: str | None,
) -> None:
    source = InMemorySource(
        "digits", "test", np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1, np.int64), found
    )
    monkeypatch.setattr("trainers.evaluation.sets.make_source", lambda *_: source)
    (chosen,) = parse_sets(["test"], _data())
    if message is None:
        assert chosen.open(2, trained) is source
    else:
        with pytest.raises(ConfigurationError, match=message):
            chosen.open(2, trained)


def test_what_is_trained_on_is_no_evaluation_set() -> None:
    with pytest.raises(ConfigurationError, match="the training sees these examples"):
        configured_sets(_data(source="tfds:mnist", train_split="whole_train"))
    configured_sets(_data(source="tfds:mnist", train_split="whole_train", eval_split="test"))


def test_a_built_in_source_has_no_directory() -> None:
    with pytest.raises(ConfigurationError, match="digits is built in"):
        parse_sets(["test@/other"], _data())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a=test,b=train", ("a=test", "b=train")),
        ("v2=tfds:imagenet_v2:test", ("v2=tfds:imagenet_v2:test",)),
        ("validation", ("validation",)),
        ("('a=test', 'b=train')", ("a=test", "b=train")),
        ("()", ()),
        ("", ()),
        ("None", ()),
    ],
)
def test_sets_by_flag(tmp_path: Path, value: str, expected: tuple[str, ...]) -> None:
    flags = parse(f"--config={config_file(tmp_path)}", f"--config.data.eval_sets={value}")
    assert tuple(flags.config.data.eval_sets) == expected
