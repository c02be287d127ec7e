"""The small files beside records: values of a wrong type are told, not guessed."""

from pathlib import Path

import pytest

from trainers.data.records.manifest import Description
from trainers.data.records.manifest import read_description
from trainers.data.records.manifest import read_labels
from trainers.utils.errors import ConfigurationError


@pytest.mark.parametrize(
    "content",
    [
        '{"num_classes": 3, "multi_label": "false"}',
        '{"num_classes": "3", "multi_label": false}',
        '{"num_classes": true, "multi_label": false}',
        '{"num_classes": 0, "multi_label": false}',
        '{"num_classes": 3}',
        '{"num_classes": 3, "multi_label": false, "frames_per_second": "25"}',
        '{"num_classes": 3, "multi_label": false, "min_side": 0}',
        "[3, false]",
    ],
)
def test_wrong_description(tmp_path: Path, content: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"dataset\.json must hold .*Correct or remove"):
        read_description(str(tmp_path))
    path.write_text('{"num_classes": 3, "multi_label": true}')
    assert read_description(str(tmp_path)) == Description(3, True)


@pytest.mark.parametrize(
    "content", ['{"a": "0", "b": 1}', '{"a": false, "b": true}', '{"a": 0, "b": 2}', '[["a"]]']
)
def test_wrong_label_map(tmp_path: Path, content: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"labels\.json must be a list of class names"):
        read_labels(str(tmp_path))
    path.write_text('{"a": 1, "b": 0}')
    assert read_labels(str(tmp_path)) == ("b", "a")
