"""Jobs over a journal in memory and a scripted gateway: what is created, read, asked (jobs contract, 3 to 5, 9a)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from actors.names import JOBS
from orchestrator import actor_codec, codec
from orchestrator import job_events as e
from orchestrator import remote as r
from orchestrator import webhook_messages as wm
from orchestrator.blueprint import Dispatch
from orchestrator.cluster_views import WorkerView
from orchestrator.errors import ActorUnreachable, Conflict, Invalid, NotFound, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.steps import Append, Commit
from orchestrator.webhook import Delivery
from serve_app.creations import Creations
from serve_app.jobs import Jobs, _to_next_month_s
from serve_app.outside_ports import JobWanted
from serve_app.problems import QuotaExhausted
from serve_app.worker_tokens import KeptTokens
from tests.fakes_jobs import INNER, SIMPLE_FLOW
from tests.fakes_journal import MemoryJournal
from tests.fakes_remote import FakeRemote
from tests.virtual_time import START, VirtualLoop, WorldClock, virtually

UNKNOWN = "00000000-0000-4000-8000-000000000000"
TASK = Dispatch("video_processing", transitions={"success": "finished"})


class Shop:
    """One replica, the journal, and the gateway; the test itself plays the owner of jobs."""

    def __init__(self, workers_path: str = "", tokens: KeptTokens | None = None) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.clock = WorldClock(loop, Random(0))
        self.journal = MemoryJournal()
        self.gateway = FakeRemote(self.clock)
        self.path = workers_path
        self.tokens = tokens or KeptTokens()
        self.jobs = self.replica()
        self._epoch = 0
        self._turn = 0

    def replica(self) -> Jobs:
        """One more replica of the same server."""
        creations, draining = Creations(self.journal), asyncio.Event()
        blueprints = [(SIMPLE_FLOW, 2), (INNER, 1)]
        return Jobs(
            self.journal,
            self.gateway,  # type: ignore[arg-type] # the part of the control plane that jobs need
            creations,
            self.clock,
            draining,
            blueprints,
            self.tokens,
            self.path,
        )

    async def create(self, tenant: str = "default", idem: Idempotency | None = None, **wanted: Any) -> str:
        given = {"blueprint": "simple_flow", "initial_data": {"clip": "a"}, "client": "default"} | wanted
        return (await self.jobs.create(tenant, JobWanted(**given), idem))[0]

    async def happen(self, job_id: str, state: str, *events: e.AnyJobEvent) -> None:
        """These events, as the owner of jobs would write them."""
        self._epoch = self._epoch or await self.journal.take_epoch(JOBS)
        self._turn += 1
        row = await self.journal.summary(job_id)
        assert row is not None
        append = Append(
            run_id=job_id,
            expected=row.version,
            count=len(events),
            events=codec.encode_job_events(events),
            state=state,
            schema=e.SCHEMA,
        )
        commit = Commit(owner=JOBS, epoch=self._epoch, turn=self._turn, appends=(append,))
        assert [each.status for each in await self.journal.commit(commit)] == ["ok"]

    async def dispatch(self, job_id: str) -> None:
        """The job waits for a worker."""
        at = self.clock.now()
        started, finished = e.StateStarted(at, "start", 1), e.StateFinished(at, 1, TASK)
        await self.happen(job_id, "waiting", started, finished, e.TaskQueued(at, f"task-{job_id}"))

    async def end(self, job_id: str, state: str, status: str) -> None:
        """The job has ended."""
        await self.happen(job_id, state, e.JobEnded(self.clock.now(), status, status))


def play(story: Any, **shop: Any) -> None:
    """The story, on virtual time."""

    async def whole() -> None:
        async with asyncio.timeout(600):
            await story(Shop(**shop))

    virtually(whole())


# -- creating


def test_a_job_is_born_held_by_the_gateway_with_all_that_it_was_asked_for() -> None:
    async def story(shop: Shop) -> None:
        job_id = await shop.create(webhook_url="http://x/", client="acme", plan="gold")
        row = await shop.journal.summary(job_id)
        assert row is not None
        assert (row.owner, row.dag_id, row.dag_version, row.run_type, row.state) == (
            *(JOBS, "@job/simple_flow", 2, "job", "queued"),
        )
        view = await shop.jobs.job("default", job_id)
        assert (view.id, view.status, view.current_state, view.initial_data) == (
            job_id,
            "pending",
            "start",
            {"clip": "a"},
        )
        assert (view.webhook_url, view.client_config) == ("http://x/", {"name": "acme", "plan": "gold"})
        assert view.created_at == START
        [line] = await shop.jobs.history("default", job_id)
        assert (line.event_type, line.job_id) == ("job_created", job_id)

    play(story)


def test_a_blueprint_that_is_not_loaded_has_no_jobs() -> None:
    async def story(shop: Shop) -> None:
        with pytest.raises(NotFound):
            await shop.create(blueprint="nope")
        assert [(each.name, version) for each, version in shop.jobs.blueprints()] == [("inner", 1), ("simple_flow", 2)]

    play(story)


def test_a_key_gives_the_same_job_again_or_a_conflict() -> None:
    async def story(shop: Shop) -> None:
        wanted = JobWanted(blueprint="simple_flow", initial_data={}, client="default")
        first = await shop.jobs.create("default", wanted, Idempotency("k", "f"))
        assert await shop.replica().create("default", wanted, Idempotency("k", "f")) == (first[0], True)
        with pytest.raises(Conflict, match="Idempotency key reused"):
            await shop.jobs.create("default", wanted, Idempotency("k", "g"))
        assert first[1] is False

    play(story)


def test_a_quota_holds_for_a_client_over_replicas_and_for_a_month() -> None:
    async def story(shop: Shop) -> None:
        limited = {"client": "acme", "monthly_attempts": 2}
        first = await shop.create(idem=Idempotency("k", "f"), **limited)
        other = shop.replica()
        await other.create("default", JobWanted(blueprint="inner", initial_data={}, **limited), None)
        for jobs in (shop.jobs, other):
            with pytest.raises(QuotaExhausted) as refused:
                await jobs.create("default", JobWanted(blueprint="inner", initial_data={}, **limited), None)
            assert refused.value.retry_after_s > 0
        assert await shop.create(idem=Idempotency("k", "f"), **limited) == first
        await shop.create(client="other", monthly_attempts=1)
        await shop.create(tenant="t2", client="acme", monthly_attempts=1)
        await shop.create(client="free")
        shop.clock.skew = timedelta(days=31)
        await shop.create(**limited)

    play(story)


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC), 1),
        (datetime(2026, 12, 31, 0, 0, tzinfo=UTC), 86_400),
        (datetime(2026, 2, 1, tzinfo=UTC), 28 * 86_400),
    ],
)
def test_a_month_ends_when_the_next_one_begins(now: datetime, seconds: int) -> None:
    assert _to_next_month_s(now) == seconds


# -- reading


def test_another_tenants_job_and_a_run_that_is_no_job_are_not_found() -> None:
    async def story(shop: Shop) -> None:
        job_id = await shop.create()
        for tenant, wanted in (("other", job_id), ("default", UNKNOWN)):
            for read in (shop.jobs.job, shop.jobs.history):
                with pytest.raises(NotFound, match="job"):
                    await read(tenant, wanted)

    play(story)


def test_reads_go_on_while_the_gateway_is_away() -> None:
    async def story(shop: Shop) -> None:
        job_id = await shop.create()
        shop.gateway.away = True
        assert (await shop.jobs.job("default", job_id)).id == job_id
        assert len(await shop.jobs.jobs("default", None, 10, 0)) == 1
        assert await shop.jobs.counts("default") == {"queued": 1}

    play(story)


def test_a_job_that_waits_for_a_worker_says_why_unless_a_worker_has_its_task() -> None:
    async def story(shop: Shop) -> None:
        job_id = await shop.create()
        shop.gateway.answers[r.Why] = lambda _: r.Answer({"reason": "no live worker offers 'video_processing'"})
        assert (await shop.jobs.job("default", job_id)).waiting_reason is None
        assert shop.gateway.asked == []
        await shop.dispatch(job_id)
        assert (await shop.jobs.job("default", job_id)).waiting_reason == "no live worker offers 'video_processing'"
        assert shop.gateway.asked == [r.Why("default", job_id)]
        [listed] = await shop.jobs.jobs("default", None, 10, 0)
        assert (listed.waiting_reason, len(shop.gateway.asked)) == (None, 1)
        shop.gateway.answers[r.Why] = lambda _: r.Answer(refused="not_found")  # it has ended and is erased meanwhile
        assert (await shop.jobs.job("default", job_id)).waiting_reason is None
        await shop.happen(job_id, "waiting", e.TaskDelivered(shop.clock.now(), f"task-{job_id}", "w1"))
        assert (await shop.jobs.job("default", job_id)).waiting_reason is None
        assert len(shop.gateway.asked) == 2

    play(story)


def test_a_job_is_shown_without_a_reason_when_the_gateway_is_away_or_slow() -> None:
    async def story(shop: Shop) -> None:
        job_id = await shop.create()
        await shop.dispatch(job_id)
        shop.gateway.away = True
        assert (await shop.jobs.job("default", job_id)).waiting_reason is None
        shop.gateway.away = False
        shop.gateway.gate.clear()
        began_s = shop.clock.monotonic()
        view = await shop.jobs.job("default", job_id)
        assert (view.status, view.waiting_reason) == ("waiting_for_worker", None)
        assert 0.49 < shop.clock.monotonic() - began_s < 0.6

    play(story)


def test_jobs_are_listed_newest_first_by_status_in_pages() -> None:
    async def story(shop: Shop) -> None:
        made = []
        for _ in range(6):
            made.append(await shop.create())
            await asyncio.sleep(0.01)
        await shop.dispatch(made[0])
        await shop.dispatch(made[1])
        await shop.end(made[1], "quarantined", "quarantined")
        await shop.end(made[2], "failed", "error")
        await shop.end(made[3], "failed", "failed")

        async def listed(status: str | None, limit: int = 10, offset: int = 0) -> list[str]:
            return [each.id for each in await shop.jobs.jobs("default", status, limit, offset)]

        assert await listed(None) == made[::-1]
        assert await listed(None, 2, 3) == [made[2], made[1]]
        assert await listed("pending") == [made[5], made[4]]
        assert await listed("waiting_for_worker") == [made[0]]
        assert await listed("waiting_for_human") == []
        assert await listed("quarantined") == [made[1]]
        assert (await listed("error"), await listed("failed")) == ([made[2]], [made[3]])
        assert await listed("pending", 1, 1) == [made[4]]
        assert await shop.jobs.jobs("other", None, 10, 0) == []
        counts = await shop.jobs.counts("default")
        assert counts == {"queued": 3, "quarantined": 1, "failed": 2}

    play(story)


def test_only_jobs_that_have_changed_are_read_again_for_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(shop: Shop) -> None:
        made = [await shop.create() for _ in range(3)]
        for each in made:
            await shop.dispatch(each)
        read: list[str] = []
        load = shop.journal.load

        async def noted(run_ids: Any) -> Any:
            read.extend(run_ids)
            return await load(run_ids)

        monkeypatch.setattr(shop.journal, "load", noted)
        for _ in range(2):
            assert await shop.jobs.counts("default") == {"queued": 3}
        assert sorted(read) == sorted(made)
        await shop.happen(made[0], "waiting", e.TaskDelivered(shop.clock.now(), f"task-{made[0]}", "w1"))
        await shop.jobs.counts("default")
        assert len(read) == 4

    play(story)


# -- commands


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (r.Answer(refused="not_found"), NotFound),
        (r.Answer(refused="conflict", message="finished"), Conflict),
    ],
)
def test_a_refused_cancel_says_why(answer: r.Answer, error: type[Exception]) -> None:
    async def story(shop: Shop) -> None:
        shop.gateway.answers[r.Cancel] = lambda _: answer
        with pytest.raises(error) as refused:
            await shop.jobs.cancel("default", UNKNOWN)
        assert error is not Conflict or str(refused.value) == "finished"

    play(story)


def test_a_cancel_waits_for_a_gateway_that_is_away_for_a_moment() -> None:
    async def story(shop: Shop) -> None:
        shop.gateway.answers[r.Cancel] = lambda _: r.Answer({"status": "cancellation_request_sent"})
        shop.gateway.away = True
        cancelling = asyncio.create_task(shop.jobs.cancel("default", UNKNOWN))
        await asyncio.sleep(3)
        shop.gateway.away = False
        assert await cancelling == "cancellation_request_sent"
        assert shop.gateway.asked == [r.Cancel("default", UNKNOWN)]

    play(story)


@pytest.mark.parametrize(
    ("answer", "error"),
    [(r.Answer(refused="not_found"), NotFound), (r.Answer(refused="conflict", message="running"), Conflict)],
)
def test_a_refused_release_says_why(answer: r.Answer, error: type[Exception]) -> None:
    async def story(shop: Shop) -> None:
        shop.gateway.answers[r.Release] = lambda _: answer
        with pytest.raises(error) as refused:
            await shop.jobs.release("default", UNKNOWN)
        assert error is not Conflict or str(refused.value) == "running"

    play(story)


def test_a_release_is_not_asked_twice() -> None:
    async def story(shop: Shop) -> None:
        shop.gateway.away = True
        with pytest.raises(ActorUnreachable):
            await shop.jobs.release("default", UNKNOWN)
        shop.gateway.away = False
        await shop.jobs.release("default", UNKNOWN)
        assert shop.gateway.asked == [r.Release("default", UNKNOWN)]

    play(story)


@pytest.mark.parametrize(
    ("refused", "error"), [("not_found", NotFound), ("invalid_decision", Invalid), ("conflict", Conflict)]
)
def test_a_refused_approval_says_why(refused: str, error: type[Exception]) -> None:
    async def story(shop: Shop) -> None:
        shop.gateway.answers[r.Approve] = lambda _: r.Answer(refused=refused)
        with pytest.raises(error):
            await shop.jobs.approve(UNKNOWN, "approved")

    play(story)


def test_an_approval_is_not_asked_twice() -> None:
    async def story(shop: Shop) -> None:
        shop.gateway.away = True
        began_s = shop.clock.monotonic()
        with pytest.raises(ActorUnreachable):
            await shop.jobs.approve(UNKNOWN, "approved")
        assert shop.clock.monotonic() - began_s < 1
        shop.gateway.away = False
        await shop.jobs.approve(UNKNOWN, "approved")
        assert shop.gateway.asked == [r.Approve(UNKNOWN, "approved")]

    play(story)


def test_workers_of_the_cluster_are_among_the_live_ones() -> None:
    async def story(shop: Shop) -> None:
        shop.gateway.answers[r.Workers] = lambda _: r.Answer([{"worker_id": "b"}, {"worker_id": "x"}])
        slots = [WorkerView("worker-default-0", "default", "idle"), WorkerView("worker-default-1", "default", "lost")]
        shop.gateway.slots = actor_codec.encode_workers(slots)
        found = await shop.jobs.workers("default")
        assert [each["worker_id"] for each in found] == ["b", "worker-default-0", "x"]
        assert (found[1]["worker_type"], found[1]["reputation"], found[1]["status"]) == ("ray", 1.0, "idle")

    play(story)


# -- webhooks


def test_the_log_of_webhooks_waits_for_the_gateway_and_another_try_does_not() -> None:
    async def story(shop: Shop) -> None:
        found = Delivery(
            id="msg_1", tenant="t", client="c", url="https://x/", event="job_finished", about="j", created_at=START
        )
        shop.gateway.outbox = lambda _: wm.Answer((found,))
        shop.gateway.away = True
        with pytest.raises(ActorUnreachable):
            await shop.jobs.retry_webhook("t", "msg_1")
        listing = asyncio.create_task(shop.jobs.webhooks("t", "dead", 5))
        await asyncio.sleep(3)
        shop.gateway.away = False
        assert list(await listing) == [found]
        assert await shop.jobs.retry_webhook("t", "msg_1") == found
        assert shop.gateway.asked == [wm.Deliveries("t", 5, "dead"), wm.Again("t", "msg_1")]
        for refused, error in (("not_found", NotFound), ("conflict", Conflict)):
            shop.gateway.outbox = lambda _, word=refused: wm.Answer(refused=word, message="pending")
            with pytest.raises(error, match=r"webhook|pending"):
                await shop.jobs.retry_webhook("t", "msg_1")

    play(story)


def test_a_flush_takes_the_webhooks_of_the_jobs_too() -> None:
    async def story(shop: Shop) -> None:
        await shop.jobs.flush()
        assert shop.gateway.asked == [r.Flush(), wm.Flush()]

    play(story)


# -- what workers say


def test_a_result_waits_for_a_gateway_that_is_away_but_no_longer_than_a_request_may() -> None:
    async def story(shop: Shop) -> None:
        result = r.Result("default", "w1", UNKNOWN, "t1", "success")
        shop.gateway.away = True
        began_s = shop.clock.monotonic()
        with pytest.raises(Unavailable):
            await shop.jobs.ask(result)
        assert 4.9 < shop.clock.monotonic() - began_s < 5.1
        shop.gateway.away = False
        shop.gateway.answers[r.Result] = lambda _: r.Answer({"status": "result_accepted_success"})
        assert (await shop.jobs.ask(result)).body == {"status": "result_accepted_success"}
        shop.gateway.answers[r.Result] = lambda _: r.Answer(refused="not_found")
        with pytest.raises(NotFound, match="job"):
            await shop.jobs.ask(result)

    play(story)


def test_requests_of_a_worker_are_counted_over_replicas() -> None:
    async def story(shop: Shop) -> None:
        passed = [await jobs.ask_leave("w1", "/x") for jobs in (shop.jobs, shop.replica()) for _ in range(26)]
        assert passed == [0] * 50 + [1] * 2
        assert (await shop.jobs.ask_leave("w2", "/x"), await shop.jobs.ask_leave("w1", "/y")) == (0, 0)
        shop.journal.failing = [False]
        assert await shop.jobs.ask_leave("w1", "/x") == 0

    play(story)


# -- tokens of workers


def test_a_reload_counts_for_every_replica_within_a_second(tmp_path: Path) -> None:
    path = tmp_path / "workers.toml"
    path.write_text('[w1]\ntoken = "first-token-of-w1"\n')

    async def story(shop: Shop) -> None:
        other = shop.replica()
        for jobs in (shop.jobs, other):
            assert not (await jobs.worker_tokens()).has("w1")
        await asyncio.sleep(2)
        await shop.jobs.reload_worker_tokens()
        assert (await shop.jobs.worker_tokens()).fits("w1", "first-token-of-w1")
        await asyncio.sleep(1.01)
        assert (await other.worker_tokens()).owner("first-token-of-w1") == "w1"
        assert b"first-token-of-w1" not in b"".join(shop.journal.documents["worker_tokens"].values())
        path.write_text("[w1\n")
        with pytest.raises(Invalid, match=r"workers\.toml"):
            await shop.jobs.reload_worker_tokens()
        assert (await shop.jobs.worker_tokens()).has("w1")

    play(story, workers_path=str(path))


def test_a_server_that_starts_later_than_a_reload_knows_better(tmp_path: Path) -> None:
    path = tmp_path / "workers.toml"
    path.write_text('[w1]\ntoken = "first-token-of-w1"\n')

    async def story(shop: Shop) -> None:
        await shop.jobs.reload_worker_tokens()
        shop.tokens = KeptTokens(round(START.timestamp() * 1000) + 60_000, {})
        restarted = shop.replica()
        await asyncio.sleep(2)
        assert not (await restarted.worker_tokens()).has("w1")

    play(story, workers_path=str(path))


def test_while_the_journal_is_away_the_tokens_known_last_count() -> None:
    async def story(shop: Shop) -> None:
        await asyncio.sleep(2)
        shop.journal.failing = [False] * 3
        assert (await shop.jobs.worker_tokens()).has("w1")

    play(story, tokens=KeptTokens(1, {"w1": "00" * 32}))
