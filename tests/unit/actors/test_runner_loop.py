"""actors.runner_loop and job_log: one runner against a server made of dictionaries, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any, TypeVar

import pytest

from actors import job_log
from actors.runner_loop import RunnerLoop
from orchestrator.errors import Invalid, NotFound, Unavailable
from orchestrator.pipeline_views import Claimed, CompletionWanted, JobResult, LogEntry, PipelineJobView
from tests.virtual_time import VirtualLoop, WorldClock, virtually

T = TypeVar("T")
DONE = JobResult(success=True, exit_code=0)
WHEN = datetime(2026, 1, 2, tzinfo=UTC)


class Server:
    """Jobs by id, and what one runner asked. `down` until that virtual second."""

    def __init__(self, *jobs: str, timeout_s: int | None = None) -> None:
        self.jobs = dict.fromkeys(jobs, "Queued")
        self.timeout_s = timeout_s
        self.known = False
        #: (virtual second, what was asked), without polls and empty log batches
        self.asked: list[tuple[float, str]] = []
        self.logs: list[str] = []
        self.completed: dict[str, CompletionWanted] = {}
        self.down_until = 0.0
        #: answers that are lost on their way back
        self.lose = 0
        self.claim_keys: dict[str, str] = {}
        self.polls: list[float] = []

    async def forget(self) -> None:
        self._ask("forget")
        self.known = False

    async def register(self) -> None:
        self._ask("register")
        self.known = True

    async def heartbeat(self) -> None:
        self._ask("heartbeat")
        if not self.known:
            raise NotFound("runner", "r1")

    async def scheduled(self) -> Sequence[PipelineJobView]:
        self._ask("")
        self.polls.append(now())
        return [view(job, self.timeout_s) for job, status in self.jobs.items() if status == "Queued"]

    async def claim(self, job_id: str, key: str) -> Claimed:
        self._ask(f"claim {job_id}")
        if self.jobs[job_id] != "Queued" and self.claim_keys.get(job_id) != key:
            raise Invalid(f"Job {job_id} is not in Queued state (current: {self.jobs[job_id]})")
        self.jobs[job_id] = "Running"
        self.claim_keys[job_id] = key
        self._maybe_lose()
        return Claimed(job_id, "p", "source", {})

    async def add_logs(self, job_id: str, entries: Sequence[LogEntry]) -> str | None:
        self._ask(f"logs {len(entries)}" if entries else "")
        if job_id not in self.jobs:
            raise NotFound("job", job_id)
        self.logs += [entry.message for entry in entries]
        return self.jobs[job_id] if self.jobs[job_id] in ("Cancelled", "TimedOut") else None

    async def complete(self, job_id: str, wanted: CompletionWanted) -> None:
        self._ask(f"complete {job_id}")
        if self.jobs[job_id] != "Running" and self.completed.get(job_id) != wanted:
            raise Invalid(f"Job {job_id} is already completed (current: {self.jobs[job_id]})")
        self.jobs[job_id] = "Succeeded" if wanted.result.success else "Failed"
        self.completed[job_id] = wanted
        self._maybe_lose()

    def _ask(self, what: str) -> None:
        if now() < self.down_until:
            raise Unavailable("down")
        if what:
            self.asked.append((round(now(), 3), what))

    def _maybe_lose(self) -> None:
        if self.lose:
            self.lose -= 1
            raise Unavailable("the answer was lost")


def now() -> float:
    return asyncio.get_running_loop().time()


def view(job_id: str, timeout_s: int | None) -> PipelineJobView:
    return PipelineJobView(job_id, "p", "Queued", WHEN, None, None, None, {}, None, 0, timeout_s)


async def ends_well(claimed: Claimed, write: Callable[[str, str], None]) -> JobResult:
    write("Info", f"{claimed.job_id} runs")
    await asyncio.sleep(10)
    return DONE


async def never_ends(_claimed: Claimed, _write: Callable[[str, str], None]) -> JobResult:
    await asyncio.Event().wait()
    raise AssertionError


Execute = Callable[[Claimed, Callable[[str, str], None]], Awaitable[JobResult]]


def runner(server: Server, execute: Execute = ends_well, **more: Any) -> RunnerLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return RunnerLoop(server, execute, WorldClock(loop, Random(1)), **more)


async def for_seconds(loop: RunnerLoop, seconds: float) -> None:
    """The runner works for so long and is then cut off."""
    working = asyncio.create_task(loop.run())
    await asyncio.wait({working}, timeout=seconds)
    working.cancel()
    await asyncio.wait({working})
    if not working.cancelled():
        working.result()


def test_a_runner_does_job_after_job_and_polls_at_once_after_each() -> None:
    async def story() -> None:
        server = Server("j1", "j2")
        await for_seconds(runner(server), 26)
        assert server.jobs == {"j1": "Succeeded", "j2": "Succeeded"}
        assert server.logs == ["j1 runs", "j2 runs"]
        assert [round(at) for at in server.polls] == [0, 10, 20, 25]
        assert [what for _, what in server.asked[:2]] == ["forget", "register"]

    virtually(story())


def test_heartbeats_go_on_while_a_job_runs() -> None:
    async def story() -> None:
        server = Server("j1")
        await for_seconds(runner(server, never_ends), 100)
        assert [round(at) for at, what in server.asked if what == "heartbeat"] == [0, 30, 60, 90]

    virtually(story())


def test_a_runner_that_was_forgotten_registers_again() -> None:
    async def story() -> None:
        server = Server()
        loop = runner(server)
        working = asyncio.create_task(loop.run())
        await asyncio.sleep(10)
        server.known = False
        await asyncio.sleep(30)
        assert server.known
        working.cancel()

    virtually(story())


def test_a_job_that_another_runner_won_is_passed_over() -> None:
    async def story() -> None:
        server = Server("j1", "j2")
        scheduled = server.scheduled

        async def listed_late() -> Sequence[PipelineJobView]:
            jobs = await scheduled()
            server.jobs["j1"] = "Running"
            return jobs

        server.scheduled = listed_late  # type: ignore[method-assign] # another runner is faster
        await for_seconds(runner(server), 20)
        assert server.jobs == {"j1": "Running", "j2": "Succeeded"}

    virtually(story())


def test_a_claim_whose_answer_was_lost_is_asked_for_again_with_its_key() -> None:
    async def story() -> None:
        server = Server("j1")
        server.lose = 1
        await for_seconds(runner(server), 20)
        assert server.jobs == {"j1": "Succeeded"}
        assert [what for _, what in server.asked if "claim" in what] == ["claim j1", "claim j1"]

    virtually(story())


def test_a_completion_is_told_until_it_is_acknowledged() -> None:
    async def story() -> None:
        server = Server("j1")
        working = asyncio.create_task(runner(server).run())
        await asyncio.sleep(5)
        server.down_until, server.lose = 300, 1
        await asyncio.sleep(400)
        assert server.jobs == {"j1": "Succeeded"}
        assert [what for _, what in server.asked if "complete" in what] == ["complete j1", "complete j1"]
        working.cancel()

    virtually(story())


def test_a_stale_completion_is_refused_and_the_runner_goes_on() -> None:
    async def story() -> None:
        server = Server("j1")
        working = asyncio.create_task(runner(server).run())
        await asyncio.sleep(5)
        server.jobs = {"j1": "Failed", "j2": "Queued"}  # we were thought lost meanwhile
        await asyncio.sleep(30)
        assert server.jobs == {"j1": "Failed", "j2": "Succeeded"}
        working.cancel()

    virtually(story())


@pytest.mark.parametrize("end", ["Cancelled", "TimedOut", "deleted"])
def test_a_job_that_is_not_wanted_any_more_is_ended_though_it_is_silent(end: str) -> None:
    async def story() -> None:
        server = Server("j1")
        told: list[str] = []
        loop = runner(server, never_ends, tell=lambda event, **_: told.append(event))
        working = asyncio.create_task(loop.run())
        await asyncio.sleep(20)
        if end == "deleted":
            del server.jobs["j1"]
        else:
            server.jobs["j1"] = end
        await asyncio.sleep(6)
        assert told == ["registered", "claimed", "dropped"]
        assert not server.completed
        working.cancel()

    virtually(story())


def test_a_job_has_its_time_and_no_more() -> None:
    async def story() -> None:
        server = Server("j1", timeout_s=60)
        await for_seconds(runner(server, never_ends), 70)
        told = JobResult(success=False, exit_code=124, error_message="Timed out after 60 s")
        assert server.completed == {"j1": CompletionWanted(told, "TimedOut")}
        assert [round(at) for at, what in server.asked if what == "complete j1"] == [60]

    virtually(story())


def test_a_runner_that_is_told_to_stop_ends_what_it_is_at() -> None:
    async def story() -> None:
        server = Server("j1", "j2")
        loop = runner(server)
        working = asyncio.create_task(loop.run())
        await asyncio.sleep(5)
        loop.stop()
        await working
        assert round(now()) == 10
        assert server.jobs == {"j1": "Succeeded", "j2": "Queued"}
        assert server.asked[-1][1] == "forget"

    virtually(story())


def test_a_runner_that_is_cut_off_gives_its_job_away_and_completes_nothing() -> None:
    async def story() -> None:
        server = Server("j1")
        await for_seconds(runner(server), 5)
        assert not server.completed
        assert server.asked[-1][1] == "forget"

    virtually(story())


def test_a_runner_waits_for_a_server_that_is_down_but_a_limited_one_gives_up() -> None:
    async def story() -> None:
        server = Server("j1")
        server.down_until = 1000
        await for_seconds(runner(server), 1100)
        assert server.jobs == {"j1": "Succeeded"}
        server.down_until = 1e9
        start = now()
        with pytest.raises(Unavailable):
            await runner(server, tries=10).run()
        assert now() - start == pytest.approx(0.5 + 1 + 2 + 4 + 8 + 16 + 30 + 30 + 30, abs=0.1)

    virtually(story())


def test_a_full_disk_fails_the_job_and_not_the_runner() -> None:
    async def full(_claimed: Claimed, _write: object) -> JobResult:
        raise OSError(28, "No space left on device")

    async def story() -> None:
        server = Server("j1", "j2")
        await for_seconds(runner(server, full), 5)
        why = server.completed["j2"].result.error_message
        assert why == "The runner could not execute the job: [Errno 28] No space left on device"

    virtually(story())


# ── logs ──────────────────────────────────────────────────────────────────────────────────────────


def test_logs_travel_in_order_in_batches_over_an_outage_before_the_completion() -> None:
    async def chatty(_claimed: Claimed, write: Callable[[str, str], None]) -> JobResult:
        for number in range(2500):
            write("Info", str(number))
        await asyncio.sleep(5)
        write("Error", "last")
        return DONE

    async def story() -> None:
        server = Server("j1")
        working = asyncio.create_task(runner(server, chatty).run())
        await asyncio.sleep(0.01)
        server.down_until = 60
        await asyncio.sleep(100)
        assert server.logs == [*map(str, range(2500)), "last"]
        told = [what for _, what in server.asked if "logs" in what or "complete" in what]
        assert told == ["logs 1000", "logs 1000", "logs 501", "complete j1"]
        working.cancel()

    virtually(story())


def test_a_line_is_at_the_server_soon_after_it_was_written() -> None:
    async def slow(_claimed: Claimed, write: Callable[[str, str], None]) -> JobResult:
        for word in ("one", "two"):
            write("Info", word)
            await asyncio.sleep(20)
        return DONE

    async def story() -> None:
        server = Server("j1")
        await for_seconds(runner(server, slow), 50)
        assert [(round(at, 1), what) for at, what in server.asked if "logs" in what] == [
            (0.1, "logs 1"),
            (20.1, "logs 1"),
        ]

    virtually(story())


def test_a_job_may_log_so_much_and_says_when_it_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_log, "TEXT_MAX", 100)

    async def chatty(_claimed: Claimed, write: Callable[[str, str], None]) -> JobResult:
        for _ in range(50):
            write("Info", "123456789")
        return DONE

    async def story() -> None:
        server = Server("j1")
        await for_seconds(runner(server, chatty), 5)
        assert server.logs == ["123456789"] * 10 + ["nothing more is logged after 100 characters"]

    virtually(story())


def test_times_of_entries_are_as_the_contract_writes_them() -> None:
    async def story() -> str:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        log = job_log.JobLog(Server("j1"), "j1", WorldClock(loop, Random(1)))
        log.write("Info", "x")
        return log._batch()[0].timestamp

    assert virtually(story()).startswith("2026-03-01T11:59:52.000")
    assert virtually(story()).endswith("Z")
