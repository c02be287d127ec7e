import pytest
from ml_collections import ConfigDict

from trainers.configuration import base_config
from trainers.errors import ConfigurationError
from trainers.evaluation_sets import EvaluationSet
from trainers.evaluation_sets import configured_sets
from trainers.evaluation_sets import parse_sets

FORMS = {
    "test": ("test", "digits", "test", "/data"),
    "mine=test": ("mine", "digits", "test", "/data"),
    "test@/other": ("test", "digits", "test", "/other"),
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
    assert chosen.open(10).num_examples == 270
    with pytest.raises(ConfigurationError, match="expected 3 classes.* Received 10"):
        chosen.open(3)
