"""The worker processes that TF_CONFIG names, one per machine."""

import dataclasses
import json
import os
import sys
from typing import Any

from trainers.utils.errors import ConfigurationError

_JOBS = ("chief", "worker")

_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The worker processes that train together."""

    addresses: tuple[str, ...]  # `host:port` of every worker, the chief first
    index: int  # of this process; 0 is the chief

    def print_waiting(self) -> None:
        """Says that the next call waits for all workers, or it seems to hang."""
        print(
            f"host {self.index} of {len(self.addresses)}, waiting for the others: "
            f"{', '.join(self.addresses)}",
            file=sys.stderr,
            flush=True,
        )


def cluster_from_environment() -> Cluster | None:
    """Returns the cluster of the environment variable TF_CONFIG; None if it names none."""
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise _wrong(f"it is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise _wrong(f"a JSON object was expected, received {text!r}")
    if not config.get("cluster"):
        return None
    jobs = _jobs(config["cluster"])
    return Cluster(sum(jobs.values(), ()), _index(config.get("task"), jobs))


def _jobs(cluster: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(cluster, dict) or not set(cluster) <= set(_JOBS):
        raise _wrong(f"'cluster' may name the jobs {' and '.join(_JOBS)}, received {cluster!r}")
    for addresses in cluster.values():
        if not isinstance(addresses, list) or not all(map(_is_address, addresses)):
            raise _wrong(f"each job of 'cluster' is a list of 'host:port', received {cluster!r}")
    jobs = {job: tuple(cluster.get(job, ())) for job in _JOBS}
    addresses = sum(jobs.values(), ())
    if len(set(addresses)) < len(addresses):
        raise _wrong(f"each worker needs its own address, received {cluster!r}")
    if len(jobs["chief"]) > 1:
        raise _wrong(f"there can be one chief, received {cluster!r}")
    return jobs


def _index(task: Any, jobs: dict[str, tuple[str, ...]]) -> int:
    """Returns the index of a task among all workers."""
    fields = task if isinstance(task, dict) else {}
    kind = fields.get("type")
    try:
        index = int(fields.get("index", -1))  # some launchers write "0"
    except (TypeError, ValueError):
        index = -1
    if kind not in jobs or not 0 <= index < len(jobs[kind]):
        sizes = ", ".join(f"{job}: {len(addresses)}" for job, addresses in jobs.items())
        raise _wrong(f"'task' must be one of the cluster's ({sizes}), received {task!r}")
    return index + (len(jobs["chief"]) if kind == "worker" else 0)


def _is_address(address: Any) -> bool:
    if not isinstance(address, str):
        return False
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdigit()


def _wrong(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"The environment variable TF_CONFIG is wrong: {reason}. Set it on each machine "
        f"like {_EXAMPLE}, with that machine's own index, or unset it."
    )
