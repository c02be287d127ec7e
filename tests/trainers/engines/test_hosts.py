"""What hosts agree on, also when one of them fails: two hosts in two threads."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainers.engines.hosts import Hosts
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError
from trainers.utils.errors import LostHostError
from trainers.utils.errors import TrainingError


class _Network:
    """Gathers of two hosts; the slow one has the values late, and not from a host that is gone."""

    def __init__(self, slow: int) -> None:
        self._slow = slow
        self._changed = threading.Condition()
        self._sent: list[list[int]] = [[], []]
        self._gone = [False, False]

    def run(self, *programs: Callable[[Hosts], object]) -> list[Future[object]]:
        """Returns how the program of each host has ended."""
        with ThreadPoolExecutor(2) as threads:
            started = [
                threads.submit(self._run, index, each) for index, each in enumerate(programs)
            ]
        return started

    def _run(self, index: int, program: Callable[[Hosts], object]) -> object:
        try:
            return program(Hosts(2, index, lambda value: self._gather(index, value)))
        finally:
            with self._changed:
                self._gone[index] = True
                self._changed.notify_all()

    def _gather(self, index: int, value: int) -> list[int]:
        other = 1 - index
        with self._changed:
            self._sent[index].append(value)
            self._changed.notify_all()
            number = len(self._sent[index])
            # The slow host has a value only when the other one has begun to send the next.
            needed = number + (index == self._slow and number == 1)
            self._changed.wait_for(lambda: len(self._sent[other]) >= needed or self._gone[other])
            if len(self._sent[other]) < needed:
                raise RuntimeError("Graph execution error:\n\nthe connection is closed")
            return [sent[number - 1] for sent in self._sent]


def _fail(error: Exception) -> Callable[[Hosts], None]:
    def program(hosts: Hosts) -> None:
        with hosts.all_succeed():
            raise error

    return program


def _agree(hosts: Hosts) -> None:
    with hosts.all_succeed():
        pass


@pytest.mark.parametrize("slow", [0, 1])
@pytest.mark.parametrize(
    ("error", "kind"),
    [(ConfigurationError("ours"), ConfigurationError), (DataError("ours"), TrainingError)],
)
def test_both_hosts_hear_of_a_failure_whoever_ends_first(
    slow: int, error: Exception, kind: type[Exception]
) -> None:
    failed, other = _Network(slow).run(_fail(error), _agree)
    assert failed.exception() is error
    with pytest.raises(kind, match="Host 0 of 2 cannot continue"):
        other.result()


@pytest.mark.parametrize("slow", [0, 1])
def test_both_hosts_hear_of_a_difference_whoever_ends_first(slow: int) -> None:
    for end in _Network(slow).run(*[lambda hosts: hosts.check_same("age", hosts.index)] * 2):
        with pytest.raises(ConfigurationError, match=r"differ in age \(host 0: 0, host 1: 1\)"):
            end.result()


@pytest.mark.parametrize("slow", [0, 1])
def test_a_host_that_has_waited_may_leave(slow: int) -> None:
    for end in _Network(slow).run(*[Hosts.barrier] * 2):
        assert end.result() is None


def test_hosts_that_have_not_failed_go_on() -> None:
    def program(hosts: Hosts) -> int:
        with hosts.all_succeed():
            pass
        return hosts.max(hosts.index)

    assert [end.result() for end in _Network(slow=2).run(program, program)] == [1, 1]


def test_a_host_that_is_gone() -> None:
    gone, other = _Network(slow=2).run(lambda _: None, _agree)
    assert gone.result() is None
    with pytest.raises(LostHostError, match=r"Host 1 of 2 .* \(RuntimeError: the connection"):
        other.result()
    error = DataError("ours")  # comes first, though the other host cannot hear of it
    _, failed = _Network(slow=2).run(lambda _: None, _fail(error))
    assert failed.exception() is error
