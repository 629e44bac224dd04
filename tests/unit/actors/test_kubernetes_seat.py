"""actors.kubernetes_seat: an order is sent until it is answered, and a cancel until it is heard."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import kubernetes_seat
from actors.crew import Ended, Key
from actors.kubernetes_seat import KubernetesSeat
from actors.names import KUBERNETES
from actors.peers import WorkerGone
from actors.settings import Settings
from orchestrator import actor_codec
from orchestrator.messages import JobOrder, Report, Settled
from orchestrator.run_state import Run
from tests.builders import Story, a_task

KEY: Key = ("run_1", "a", 1)


class FakePeers:
    """Answers orders when told to; calls fail as often as told."""

    def __init__(self) -> None:
        self.orders: list[JobOrder] = []
        self.cancels: list[Key] = []
        self.exchange_failures = self.control_failures = 0
        self.answers: asyncio.Queue[Report] = asyncio.Queue()

    async def exchange(self, worker: str, blob: bytes) -> bytes:
        assert worker == KUBERNETES
        self.orders.append(actor_codec.decode_job_order(blob))
        if self.exchange_failures:
            self.exchange_failures -= 1
            raise WorkerGone(worker, "told to fail")
        return actor_codec.encode_settled(Settled(worker, worker, 0, (await self.answers.get(),)))

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        assert (worker, method, args[3]) == (KUBERNETES, "cancel", "cancelled")
        if self.control_failures:
            self.control_failures -= 1
            raise WorkerGone(worker, "told to fail")
        self.cancels.append(args[:3])
        return True


class Desk:
    """A seat and who gets its post."""

    def __init__(self) -> None:
        self.peers = FakePeers()
        self.post: asyncio.Queue[Ended] = asyncio.Queue()
        peers: Any = self.peers
        self.seat = KubernetesSeat("run-actor-0", 7, peers, self.post.put_nowait, Settings(k8s_api_url="http://x"))

    async def report(self) -> Report:
        async with asyncio.timeout(5.0):
            [report] = (await self.post.get()).settled.reports
        return report

    async def until_ordered(self, times: int = 1) -> None:
        async with asyncio.timeout(5.0):
            while len(self.peers.orders) < times:  # noqa: ASYNC110
                await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_time_to_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_seat, "PAUSE_S", 0.001)
    monkeypatch.setattr(kubernetes_seat, "configured", lambda _: True)


def a_run(**changes: Any) -> Run:
    """A run whose task `a` has begun."""
    story = Story(a_task("a", **changes), mode="k8s").start().begin("a", worker=KUBERNETES)
    return story.run


def ok() -> Report:
    return Report(*KEY, "ok")


async def test_an_order_says_whose_it_is_and_its_answer_is_posted() -> None:
    desk = Desk()
    desk.seat.order(a_run(params={"n": 1}), [0])
    await desk.until_ordered()
    [order] = desk.peers.orders
    assert (order.owner, order.epoch, order.run.owner) == ("run-actor-0", 7, "run-actor-0")
    assert (order.task.task, order.task.attempt, bytes(order.task.params)) == ("a", 1, b'{"n":1}')
    assert (order.image, order.command) == (None, ())
    desk.peers.answers.put_nowait(ok())
    assert await desk.report() == ok()


async def test_an_order_is_sent_again_until_somebody_is_there() -> None:
    desk = Desk()
    desk.peers.exchange_failures = 5
    desk.seat.order(a_run(), [0])
    await desk.until_ordered(6)
    desk.peers.answers.put_nowait(ok())
    assert await desk.report() == ok()
    assert len(desk.peers.orders) == 6


async def test_a_cancel_that_is_not_heard_is_said_again() -> None:
    desk = Desk()
    desk.seat.order(a_run(), [0])
    await desk.until_ordered()
    desk.peers.control_failures = 3
    desk.seat.abort(KUBERNETES, KEY)
    async with asyncio.timeout(5.0):
        while not desk.peers.cancels:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert desk.peers.cancels == [KEY]
    assert len(desk.peers.orders) == 1


async def test_who_is_there_again_is_told_of_the_cancel_before_the_order() -> None:
    desk = Desk()
    desk.peers.exchange_failures = desk.peers.control_failures = 1
    desk.seat.order(a_run(), [0])
    desk.seat.abort(KUBERNETES, KEY)
    await desk.until_ordered(1)
    assert desk.peers.cancels


async def test_a_cancel_of_what_was_answered_says_nothing() -> None:
    desk = Desk()
    desk.seat.order(a_run(), [0])
    desk.peers.answers.put_nowait(ok())
    await desk.report()
    desk.seat.abort(KUBERNETES, KEY)
    await asyncio.sleep(0.01)
    assert desk.peers.cancels == []


async def test_an_order_that_is_never_answered_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_seat, "LATE_S", 0.0)
    desk = Desk()
    desk.seat.order(a_run(timeout_s=0.05), [0])
    report = await desk.report()
    assert (report.outcome, report.error) == (
        "timed_out",
        "timed out after 0.05 s, and actor kubernetes said nothing of it",
    )


async def test_without_a_cluster_every_attempt_fails_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_seat, "configured", lambda _: False)
    desk = Desk()
    desk.seat.order(a_run(), [0])
    report = await desk.report()
    assert (report.outcome, report.permanent) == ("error", True)
    assert desk.peers.orders == []


def test_a_task_of_any_type_is_ready_where_images_know_it() -> None:
    story = Story(a_task("a", type="acme.anything"), mode="k8s").start()
    assert story.ready == ["a"]
    assert Story(a_task("a", type="acme.anything")).start().ready == []


def test_how_long_jobs_take_says_nothing_of_workers() -> None:
    tasks = (a_task("a"),)
    assert set(Story(*tasks).run.compiled.keys).isdisjoint(Story(*tasks, mode="k8s").run.compiled.keys)
    assert isinstance(Story(*tasks).run, Run)
