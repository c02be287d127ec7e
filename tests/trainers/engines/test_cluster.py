"""TF_CONFIG, in all the ways that launchers and people write it."""

import json
from typing import Any

import pytest

from trainers.engines.cluster import Cluster
from trainers.engines.cluster import cluster_from_environment
from trainers.utils.errors import ConfigurationError

TWO = ["a:1", "b:2"]


def _task(kind: str, index: Any) -> dict[str, Any]:
    return {"type": kind, "index": index}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"cluster": {"worker": TWO}, "task": _task("worker", 1)}, Cluster(("a:1", "b:2"), 1)),
        ({"cluster": {"worker": TWO}, "task": _task("worker", "0")}, Cluster(("a:1", "b:2"), 0)),
        (
            {"cluster": {"worker": TWO, "chief": ["c:3"]}, "task": _task("worker", 0)},
            Cluster(("c:3", "a:1", "b:2"), 1),
        ),
        (
            {"cluster": {"worker": TWO, "chief": ["c:3"]}, "task": _task("chief", 0), "job": {}},
            Cluster(("c:3", "a:1", "b:2"), 0),
        ),
        (
            {"cluster": {"worker": ["[::1]:9"]}, "task": _task("worker", 0)},
            Cluster(("[::1]:9",), 0),
        ),
        ({"cluster": {}, "task": {}}, None),
        ({}, None),
    ],
)
def test_clusters(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], expected: Cluster | None
) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert cluster_from_environment() == expected


@pytest.mark.parametrize("text", [None, "", "  "])
def test_no_cluster(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert cluster_from_environment() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'cluster': {}}", "not JSON"),
        ("[1]", "a JSON object was expected"),
        ('{"cluster": ["a:1"]}', "chief and worker"),
        ('{"cluster": {"ps": ["a:1"]}}', "chief and worker"),
        ('{"cluster": {"worker": "a:1"}}', "list of 'host:port'"),
        ('{"cluster": {"worker": ["a"]}}', "list of 'host:port'"),
        ('{"cluster": {"worker": [":1"]}}', "list of 'host:port'"),
        ('{"cluster": {"worker": [1]}}', "list of 'host:port'"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}}', "its own address"),
        ('{"cluster": {"chief": ["a:1", "b:1"]}}', "one chief"),
        ('{"cluster": {"worker": ["a:1"]}}', "received None"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker"}}', "chief: 0, worker: 1"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "'index': 1"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}', "'chief'"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}', "-1"),
    ],
)
def test_wrong_clusters(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigurationError, match=message) as failure:
        cluster_from_environment()
    assert "TF_CONFIG is wrong" in str(failure.value)
    assert "own index, or unset it" in str(failure.value)
    assert "\n" not in str(failure.value)
