"""actors.crew: what was on its way to a worker that dies is lost, and told."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from actors.crew import Crew, Ended, Gone
from actors.peers import WorkerGone
from actors.settings import Settings
from orchestrator import actor_codec
from orchestrator.control import Bound
from orchestrator.messages import Assignment, Need, RunContext, Settled
from tests.virtual_time import virtually

RUN = RunContext("run_1", "t", "d", 1, None, "run-actor-0", {})


class DyingWorkers:
    """Peers whose workers die once `dead` is set."""

    def __init__(self) -> None:
        self.dead = asyncio.Event()
        self.met: list[tuple[str, str]] = []

    def meet(self, worker: str, incarnation: str) -> None:
        self.met.append((worker, incarnation))

    async def exchange(self, worker: str, blob: bytes) -> bytes:
        await self.dead.wait()
        raise WorkerGone(worker, "told to die")


def a_task(name: str) -> Assignment:
    return Assignment("run_1", name, 1, "core.noop", None, msgspec.Raw(b"{}"), {}, 60.0)


async def told(posted: list[Ended | Gone], number: int) -> list[Gone]:
    async with asyncio.timeout(2.0):
        while len(posted) < number:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0)
    return [each for each in posted if isinstance(each, Gone)]


async def test_a_batch_that_is_sent_when_its_worker_has_died_already_is_lost_too() -> None:
    workers: Any = DyingWorkers()
    posted: list[Ended | Gone] = []
    crew = Crew("run-actor-0", 1, workers, posted.append, Settings())
    crew.seat("w0", "i1", 7)
    seat = crew.seats["w0"]
    crew.send(seat, [RUN], [a_task("a")], 0.01)
    workers.dead.set()
    await told(posted, 1)
    crew.send(seat, [RUN], [a_task("b")], 0.01)  # composed before, committed meanwhile
    first, second = await told(posted, 2)
    assert (first.lost, first.lease) == ((("run_1", "a", 1),), 7)
    assert (second.lost, second.lease) == ((("run_1", "b", 1),), 0)
    assert crew.seats == {}


async def test_a_worker_that_dies_with_two_batches_is_told_of_once() -> None:
    workers: Any = DyingWorkers()
    posted: list[Ended | Gone] = []
    crew = Crew("run-actor-0", 1, workers, posted.append, Settings())
    crew.seat("w0", "i1", 7)
    for name in ("a", "b"):
        crew.send(crew.seats["w0"], [RUN], [a_task(name)], 0.01)
    workers.dead.set()
    [gone] = await told(posted, 1)
    await asyncio.sleep(0.01)
    assert (gone.lost, len(posted)) == ((("run_1", "a", 1), ("run_1", "b", 1)), 1)


class SilentWorker:
    """Peers with one worker, whose attempt says nothing for longer and longer; a cancel of it is kept."""

    def __init__(self, *silences: float | None) -> None:
        self.silences = list(silences)
        self.cancelled: list[tuple[Any, ...]] = []
        self.over = asyncio.Event()

    def meet(self, worker: str, incarnation: str) -> None: ...

    async def exchange(self, worker: str, blob: bytes) -> bytes:
        await self.over.wait()
        raise WorkerGone(worker, "killed")

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        if method == "silence":
            return self.silences.pop(0)
        if method == "cancel":
            self.cancelled.append(args)
            return True
        return actor_codec.encode_settled(Settled(worker, "i1", 1, ()))

    async def kill(self, worker: str) -> None:
        self.over.set()


async def test_an_attempt_that_is_silent_for_too_long_is_cancelled_and_its_worker_killed_if_it_does_not_obey() -> None:
    worker: Any = SilentWorker(None, 0.01, 0.06)
    posted: list[Ended | Gone] = []
    crew = Crew("run-actor-0", 1, worker, posted.append, Settings(cancel_grace_s=0.01))
    crew.seat("w0", "i1", 7)
    task = msgspec.structs.replace(a_task("a"), heartbeat_timeout_s=0.05)
    crew.send(crew.seats["w0"], [RUN], [task], 0.01)
    async with asyncio.timeout(2.0):
        while not any(isinstance(each, Gone) for each in posted):  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)
    [gone] = [each for each in posted if isinstance(each, Gone)]
    assert worker.cancelled == [("run_1", "a", 1, "stalled")]
    assert worker.silences == []
    assert (gone.lost, gone.overdue) == ((), ((("run_1", "a", 1), "stalled"),))


async def test_a_worker_is_not_asked_about_attempts_that_need_not_give_signs_of_life() -> None:
    worker: Any = SilentWorker()
    crew = Crew("run-actor-0", 1, worker, lambda _: None, Settings())
    crew.seat("w0", "i1", 7)
    crew.send(crew.seats["w0"], [RUN], [a_task("a")], 0.01)
    await asyncio.sleep(0.1)
    assert not crew.seats["w0"].batches[1].silent_at_s


async def test_a_seat_with_permits_is_not_taken_over_by_a_lease_for_plain_tasks() -> None:
    worker: Any = SilentWorker()
    crew = Crew("run-actor-0", 1, worker, lambda _: None, Settings())
    need = Need("default", (("l/t/w", 1),))
    assert crew.bind(Bound("w0", "i1", 7, need))
    assert not crew.seat("w0", "i1", 8), "void: its scheduler has to hear of it"
    assert crew.bound() == (Bound("w0", "i1", 7, need),)
    crew.seen()
    assert crew.leave_bound() == [("w0", 7)], "and its permits come back"
    assert crew.seat("w0", "i1", 8), "the void one, for the second time"
    assert crew.seats == {}
    assert crew.seat("w0", "i1", 9)
    assert crew.seats["w0"].lease == 9


class CutOffWorker:
    """Peers with one worker behind a network that swallows everything; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.killed = 0

    def meet(self, worker: str, incarnation: str) -> None: ...

    async def exchange(self, worker: str, blob: bytes) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError("for ever")

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        self.asked.append(method)
        await asyncio.sleep(3.0)
        raise WorkerGone(worker, "TimeoutError")

    async def kill(self, worker: str) -> None:
        self.killed += 1


@pytest.mark.parametrize("names", ["ab", "a"], ids=["a batch, which is taken back first", "one task"])
def test_a_worker_that_is_cut_off_from_the_network_is_lost_after_its_lease_and_not_later(names: str) -> None:
    async def scenario() -> float:
        worker: Any = CutOffWorker()
        posted: list[Ended | Gone] = []
        crew = Crew("run-actor-0", 1, worker, posted.append, Settings(worker_ping_s=3.0, worker_lease_s=9.0))
        crew.seat("w0", "i1", 7)
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        crew.send(crew.seats["w0"], [RUN], [a_task(name) for name in names], 0.01)
        while not posted:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)
        [gone] = posted
        assert isinstance(gone, Gone)
        assert (gone.lost, worker.killed) == (tuple(("run_1", name, 1) for name in names), 1)
        return loop.time() - start_s

    took_s = virtually(scenario())
    assert 8.9 <= took_s < 9.5


async def test_the_node_of_a_worker_is_known_once_it_has_answered_and_stays_known() -> None:
    workers: Any = DyingWorkers()
    crew = Crew("run-actor-0", 1, workers, lambda _: None, Settings())
    crew.seat("w0", "i1", 7)
    assert crew.seats["w0"].node == ""
    crew.settle(Ended("w0", Settled("w0", "i1", 1, (), (), "A"), None))
    assert crew.seats["w0"].node == "A"
    crew.leave_idle()
    crew.seat("w0", "i1", 8)
    assert crew.seats["w0"].node == "A", "of a lease after that"
    crew.settle(Ended("w0", Settled("w0", "i2", 1, (), (), "B"), None))
    assert crew.seats["w0"].node == "B", "it came back elsewhere"


async def test_whoever_has_a_workers_name_now_is_made_known_before_a_batch_goes_there() -> None:
    workers: Any = DyingWorkers()
    crew = Crew("run-actor-0", 1, workers, lambda _: None, Settings())
    crew.seat("w0", "i1", 7)
    crew.leave_idle()
    crew.seat("w0", "i2", 8)
    crew.leave_idle()
    crew.bind(Bound("w0", "i3", 9, Need("default", ())))
    assert workers.met == [("w0", "i1"), ("w0", "i2"), ("w0", "i3")]
