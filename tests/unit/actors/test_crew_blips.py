"""actors.crew: an exchange fails, and the worker lives, or nobody knows."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from actors.batch_book import BatchBook
from actors.crew import Crew, Ended, Gone, Limit
from actors.peers import WorkerUnreachable
from actors.settings import Settings
from orchestrator import actor_codec
from orchestrator.control import Bound
from orchestrator.messages import Assignment, Exchange, Holding, Need, Report, RunContext, Settled
from tests.virtual_time import virtually

RUN = RunContext("run_1", "t", "d", 1, None, "run-actor-0", {})
Key = tuple[str, str, int]
A, B = ("run_1", "a", 1), ("run_1", "b", 1)


class FarWorker:
    """Peers with one worker that keeps real books, and its road. Its attempts end when told."""

    def __init__(self) -> None:
        self.book = BatchBook(asyncio.get_running_loop().time)
        self.incarnation = "i1"
        self.begun: list[Key] = []
        self.asked: list[str] = []
        self.killed = 0
        #: attempts end when it is set
        self.end = asyncio.Event()
        #: exchanges that are under way fail when it is set
        self.breaks = asyncio.Event()
        #: exchanges fail before they arrive; these did
        self.swallows = False
        self.swallowed: list[Exchange] = []
        #: nobody answers, or it is known that nobody will
        self.cut_off = self.dead = False
        self._turn = asyncio.Lock()
        self._tasks: list[asyncio.Task[bytes]] = []

    def meet(self, worker: str, incarnation: str) -> None: ...

    async def exchange(self, worker: str, blob: bytes) -> bytes:
        exchange = actor_codec.decode_exchange(blob)
        if self.swallows:
            self.swallowed.append(exchange)
            raise WorkerUnreachable(worker, "it never got there")
        answer = self._start(self.serve(exchange))
        broken: asyncio.Task[Any] = asyncio.ensure_future(self.breaks.wait())
        await asyncio.wait((answer, broken), return_when=asyncio.FIRST_COMPLETED)
        broken.cancel()
        if self.breaks.is_set():
            self.breaks.clear()
            raise WorkerUnreachable(worker, "the connection broke")
        return answer.result()

    async def serve(self, exchange: Exchange) -> bytes:
        async with self._turn:
            batch = self.book.open(exchange)
            while batch is not None and (started := self.book.start(batch)) is not None:
                task, _ = started
                key = (task.run_id, task.task, task.attempt)
                self.begun.append(key)
                await self.end.wait()
                self.book.settle(batch, Report(*key, "ok"))
            if batch is not None:
                self.book.close(batch)
            reports, untouched = self.book.answer(exchange)
        settled = Settled("w0", self.incarnation, exchange.batch, tuple(reports), tuple(untouched))
        return actor_codec.encode_settled(settled)

    async def is_dead(self, worker: str) -> bool:
        return self.dead

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        self.asked.append(method)
        if self.cut_off:
            await asyncio.sleep(3.0)
            raise WorkerUnreachable(worker, "no answer within 3 s")
        if method == "give_back":
            newest, reports, untouched = self.book.give_back(*args)
            return actor_codec.encode_settled(
                Settled(worker, self.incarnation, newest, tuple(reports), tuple(untouched))
            )
        if method == "holding":
            live, reports = self.book.holding(*args)
            return actor_codec.encode_holding(Holding(worker, self.incarnation, tuple(live), tuple(reports)))
        return self.incarnation

    async def kill(self, worker: str) -> None:
        self.killed += 1

    def _start(self, work: Coroutine[Any, Any, bytes]) -> asyncio.Task[bytes]:
        self._tasks.append(asyncio.ensure_future(work))
        return self._tasks[-1]


class Stage:
    """A Crew with one seat, whose messages are booked as a RunActor would."""

    def __init__(self, need: Need | None = None) -> None:
        self.far = FarWorker()
        self.posted: list[Ended | Gone] = []
        #: attempts that were told as lost
        self.lost: list[Key] = []
        self.reports: list[Report] = []
        self.untouched: list[Key] = []
        peers: Any = self.far
        self.crew = Crew("run-actor-0", 1, peers, self._take, Settings(worker_ping_s=3.0, worker_lease_s=9.0))
        if need is None:
            self.crew.seat("w0", "i1", 7)
        else:
            self.crew.bind(Bound("w0", "i1", 7, need))
            self.crew.seen()

    def send(self, *names: str) -> int:
        """A batch goes to the seat."""
        tasks = [Assignment("run_1", n, 1, "core.noop", None, msgspec.Raw(b"{}"), {}, 60.0) for n in names]
        return self.crew.send(self.crew.seats["w0"], [RUN], tasks, 0.01)

    def _take(self, message: Ended | Gone) -> None:
        self.posted.append(message)
        if isinstance(message, Gone):
            self.lost += message.lost
        else:
            self.lost += self.crew.settle(message)
            self.reports += message.settled.reports
            self.untouched += message.settled.untouched

    def ended(self) -> list[Key]:
        """Attempts of which there was a report, each once."""
        return sorted({(report.run_id, report.task, report.attempt) for report in self.reports})

    @property
    def over(self) -> bool:
        """Nothing is in flight."""
        return not any(seat.batches for seat in self.crew.seats.values())


async def cut_off() -> Stage:
    """An attempt runs at a worker that is not reached any more."""
    stage = Stage()
    stage.send("a")
    await asyncio.sleep(0.01)
    stage.far.cut_off = True
    stage.far.breaks.set()
    return stage


def test_an_attempt_that_runs_on_is_waited_for_and_has_not_begun_twice() -> None:
    async def scenario() -> None:
        stage = Stage()
        stage.send("a")
        await asyncio.sleep(0.01)
        stage.far.breaks.set()
        await asyncio.sleep(20.0)
        assert (stage.lost, stage.over, stage.far.killed) == ([], False, 0)
        assert stage.crew.with_room() == [], "it is long, or its connection is bad"
        stage.far.end.set()
        await asyncio.sleep(0.01)
        assert (stage.lost, stage.ended(), stage.over) == ([], [A], True)
        assert stage.far.begun == [A]

    virtually(scenario())


def test_the_connection_may_break_again_and_again() -> None:
    async def scenario() -> None:
        stage = Stage()
        stage.send("a")
        for _ in range(5):
            await asyncio.sleep(2.0)
            stage.far.breaks.set()
        await asyncio.sleep(2.0)
        stage.far.end.set()
        await asyncio.sleep(0.01)
        assert (stage.lost, stage.ended(), stage.far.begun) == ([], [A], [A])

    virtually(scenario())


def test_what_had_not_begun_is_given_back_and_does_not_begin_there_any_more() -> None:
    async def scenario() -> None:
        stage = Stage()
        stage.send("a", "b")
        await asyncio.sleep(0.01)
        stage.far.breaks.set()
        await asyncio.sleep(0.01)
        assert (stage.lost, stage.untouched, stage.over) == ([], [B], False)
        stage.far.end.set()
        await asyncio.sleep(0.01)
        assert (stage.ended(), stage.far.begun, stage.over) == ([A], [A], True)

    virtually(scenario())


def test_an_answer_that_got_lost_is_told_again() -> None:
    async def scenario() -> None:
        stage = Stage()
        stage.send("a")
        await asyncio.sleep(0.01)
        stage.far.end.set()
        stage.far.breaks.set()
        await asyncio.sleep(0.01)
        assert (stage.lost, stage.ended(), stage.over) == ([], [A], True)
        assert [seat.worker for seat in stage.crew.with_room()] == ["w0"]

    virtually(scenario())


def test_a_batch_that_never_arrived_is_given_back_and_starts_nothing_when_it_arrives_late() -> None:
    async def scenario() -> None:
        stage = Stage()
        stage.far.swallows = True
        stage.send("a")
        await asyncio.sleep(0.01)
        assert (stage.lost, stage.untouched, stage.over) == ([], [A], True)
        stage.far.end.set()
        [late] = stage.far.swallowed
        await stage.far.serve(late)
        assert stage.far.begun == []

    virtually(scenario())


def test_of_two_batches_that_were_cut_off_each_is_asked_for_by_itself() -> None:
    async def scenario() -> None:
        stage = Stage()
        stage.send("a")
        await asyncio.sleep(0.001)
        stage.far.swallows = True
        stage.send("b")
        await asyncio.sleep(0.001)
        assert (stage.untouched, stage.lost) == ([B], [])
        stage.far.swallows = False
        stage.far.breaks.set()
        await asyncio.sleep(0.001)
        stage.far.end.set()
        await asyncio.sleep(0.01)
        assert (stage.lost, stage.ended(), stage.far.begun, stage.over) == ([], [A], [A], True)

    virtually(scenario())


def test_attempts_of_a_process_that_was_started_anew_are_lost_at_once() -> None:
    async def scenario() -> None:
        stage = Stage()
        stage.send("a", "b")
        await asyncio.sleep(0.01)
        stage.far.incarnation, stage.far.book = "i2", BatchBook(asyncio.get_running_loop().time)
        stage.far.breaks.set()
        await asyncio.sleep(0.01)
        assert (stage.lost, stage.untouched, stage.crew.seats) == ([A, B], [], {})

    virtually(scenario())


def test_attempts_of_a_worker_that_is_found_dead_are_lost_at_once() -> None:
    async def scenario() -> None:
        stage = Stage()
        stage.send("a")
        await asyncio.sleep(0.01)
        stage.far.dead = True
        stage.far.breaks.set()
        await asyncio.sleep(0.01)
        assert (stage.lost, stage.crew.seats) == ([A], {})

    virtually(scenario())


def test_a_worker_that_dies_while_it_is_not_reached_is_noticed_before_its_lease_is_over() -> None:
    async def scenario() -> None:
        stage = await cut_off()
        await asyncio.sleep(1.0)
        assert stage.lost == []
        stage.far.dead = True
        await asyncio.sleep(3.0)
        assert (stage.lost, stage.crew.seats) == ([A], {})

    virtually(scenario())


def test_attempts_of_a_worker_that_does_not_answer_are_lost_when_its_lease_is_over_and_it_is_ended() -> None:
    async def scenario() -> float:
        stage = await cut_off()
        loop = asyncio.get_running_loop()
        while not stage.lost:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)
        await asyncio.sleep(5.0)
        assert (stage.lost, stage.far.killed, stage.crew.seats, len(stage.posted)) == ([A], 1, {}, 1)
        return loop.time() - 5.0

    assert 8.9 <= virtually(scenario()) < 9.5


def test_a_worker_that_answers_before_its_lease_is_over_keeps_its_attempts() -> None:
    async def scenario() -> None:
        stage = await cut_off()
        await asyncio.sleep(5.0)
        stage.far.cut_off = False
        await asyncio.sleep(30.0)
        assert (stage.lost, stage.far.killed) == ([], 0)
        stage.far.end.set()
        await asyncio.sleep(0.01)
        assert (stage.ended(), stage.far.begun) == ([A], [A])

    virtually(scenario())


def test_a_seat_keeps_its_permits_for_as_long_as_something_runs_there() -> None:
    need = Need("default", (("l/t/w", 1),))

    async def scenario() -> None:
        stage = Stage(need)
        stage.send("a", "b")
        await asyncio.sleep(0.01)
        stage.far.breaks.set()
        await asyncio.sleep(1.0)
        assert stage.untouched == [B]
        assert stage.crew.bound() == (Bound("w0", "i1", 7, need),)
        assert stage.crew.leave_bound() == []
        stage.far.end.set()
        await asyncio.sleep(0.01)
        assert stage.crew.leave_bound() == [("w0", 7)]

    virtually(scenario())


def test_attempts_that_were_taken_over_and_that_the_worker_forgot_are_lost_and_not_given_back() -> None:
    async def scenario() -> None:
        stage = Stage()
        stage.far.swallows = True
        stage.crew.collect("w0", "i1", 0, {A: Limit(60.0)})
        await asyncio.sleep(0.01)
        assert (stage.lost, stage.untouched, stage.over) == ([A], [], True)

    virtually(scenario())
