"""Jobs of blueprints: `serve_app.outside_ports.Jobs` over the journal and the gateway.

    create              one journal step, with its idempotency record and its quota; the gateway is told by it
    job, jobs, counts   folds of the jobs' own events (`orchestrator/job_fold.py`); nothing is stored for them
    cancel, approve, release, what workers say      requests to the gateway, which alone decides about jobs
    webhooks            requests to its outbox
    polls, sockets      `gateway_line.py`

Reads need no actor: they go on while the gateway is away. Commands then wait for it for up to 5 s. Those that can be
carried out twice are asked again meanwhile: of an approval, or a release, nobody could tell whose it was.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from actors.clock import Clock
from actors.hosted import milliseconds
from actors.names import JOBS
from actors.token_files import read_worker_tokens
from orchestrator import actor_codec, codec, job_fold, outside_codec
from orchestrator import job_events as e
from orchestrator import remote as r
from orchestrator import webhook_messages as wm
from orchestrator.blueprint import Blueprint
from orchestrator.errors import ActorUnreachable, Conflict, Invalid, JournalUnavailable, NotFound, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.job_birth import KIND, Birth, new_job
from orchestrator.job_state import CORE_STATES, Status
from orchestrator.job_views import HistoryEvent, JobView
from orchestrator.ports import ControlPlane, Journal
from orchestrator.rows import History, RunFilter, RunRow
from orchestrator.steps import Creation, Quota, StoredReply
from orchestrator.webhook import Delivery
from serve_app.creations import Creations
from serve_app.deadlines import DEADLINE_S, LONG_DEADLINE_S, within
from serve_app.gateway_line import GatewayLine, OpenPoll, OpenSocket
from serve_app.outside_ports import JobWanted
from serve_app.problems import QuotaExhausted
from serve_app.worker_tokens import KeptTokens, WorkerTokens

T = TypeVar("T")
#: part of the gateway that tells receivers of jobs' ends
OUTBOX = "webhooks"
#: kind and key of the record in which a reload leaves the workers' tokens for every replica
TOKENS_KIND, TOKENS_KEY = "worker_tokens", "all"
#: how old this replica's copy of it may be, and how long a newer one is waited for, seconds
TOKENS_AGE_S, TOKENS_WAIT_S = 1.0, 0.5
#: seconds between two tries to reach the gateway
PAUSE_S = 0.05
#: seconds for which a reader waits for the gateway to say why a job waits
REASON_S = 0.5
#: requests of one worker to one path in any span of so long
RATE, RATE_WINDOW_MS = 50, 1_000
#: rows, or histories, read at once
ROWS, HISTORIES = 500, 250
#: statuses kept of jobs that go on, so that only what changed is folded again
STATUSES_MAX = 100_000

#: core run state -> job status, where there is but one
_ONLY = {"queued": "pending", "succeeded": "finished", "quarantined": "quarantined", "cancelled": "cancelled"}
#: statuses that are counted as `queued`
_QUEUED = ("pending", "waiting_for_worker")
#: statuses in which a task may be without a worker
_WAITING = (Status.WAITING_FOR_WORKER, Status.WAITING_FOR_PARALLEL_TASKS)


class Jobs:
    """Creates, reads, and speaks with the gateway."""

    def __init__(
        self,
        journal: Journal,
        control: ControlPlane,
        creations: Creations,
        clock: Clock,
        draining: asyncio.Event,
        blueprints: Sequence[tuple[Blueprint, int]],
        tokens: KeptTokens,
        workers_path: str,
    ) -> None:
        self._journal = journal
        self._control = control
        self._creations = creations
        self._clock = clock
        self._blueprints = sorted(blueprints, key=lambda each: each[0].name)
        self._by_name = {blueprint.name: (blueprint, version) for blueprint, version in blueprints}
        self._workers_path = workers_path
        self._line = GatewayLine(control, clock, draining)
        self._kept = tokens
        self._tokens = WorkerTokens(tokens.digests)
        self._tokens_s = clock.monotonic()
        self._statuses: OrderedDict[str, tuple[int, str]] = OrderedDict()

    # ── creation ──────────────────────────────────────────────────────────────────────────────────

    def blueprints(self) -> Sequence[tuple[Blueprint, int]]:
        """Loaded ones with their versions, by name."""
        return self._blueprints

    @within(DEADLINE_S)
    async def create(self, tenant: str, wanted: JobWanted, idem: Idempotency | None) -> tuple[str, bool]:
        """Id of a job that exists, durably, and whether the answer was stored before."""
        if wanted.blueprint not in self._by_name:
            raise NotFound("blueprint", wanted.blueprint)
        now = self._clock.now()
        stored = None if idem is None else StoredReply(idem.key, idem.fingerprint)
        run = new_job(self._birth(tenant, wanted), *self._by_name[wanted.blueprint], JOBS, now)
        creation = Creation((run,), stored, _quota(tenant, wanted, now))
        result = await self._creations.create(creation)
        if result.status == "conflict":
            raise Conflict("Idempotency key reused")
        if result.status == "exhausted":
            raise QuotaExhausted(f"{wanted.monthly_attempts} jobs in a month", _to_next_month_s(now))
        return result.runs[0].run_id, result.status == "replayed"

    def _birth(self, tenant: str, wanted: JobWanted) -> Birth:
        return Birth(
            job_id=self._clock.uuid(),
            tenant=tenant,
            initial_data=wanted.initial_data,
            client={"name": wanted.client, "plan": wanted.plan},
            webhook_url=wanted.webhook_url,
        )

    # ── reading ───────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def job(self, tenant: str, job_id: str) -> JobView:
        """One job; of one that waits for a worker also why, if the gateway says so soon enough."""
        view = job_fold.view(await self._events(tenant, job_id))
        if view.status not in _WAITING or view.task_worker_id is not None:
            return view
        return msgspec.structs.replace(view, waiting_reason=await self._waiting_reason(tenant, job_id))

    async def _waiting_reason(self, tenant: str, job_id: str) -> str | None:
        try:
            async with asyncio.timeout(REASON_S):
                answer = await self._line.ask(r.Why(tenant, job_id))
        except (Unavailable, TimeoutError):
            return None
        return None if answer.refused is not None else answer.body["reason"]

    @within(DEADLINE_S)
    async def history(self, tenant: str, job_id: str) -> list[HistoryEvent]:
        """Oldest first."""
        return job_fold.history(await self._events(tenant, job_id))

    @within(LONG_DEADLINE_S)
    async def jobs(self, tenant: str, status: str | None, limit: int, offset: int) -> list[JobView]:
        """Newest first."""
        state = None if status is None else CORE_STATES[Status(status)]
        needed = offset + limit
        found: list[str] = []
        cursor: str | None = None
        while len(found) < needed:
            page = await self._journal.summaries(RunFilter(tenant=tenant, kind=KIND, state=state), cursor, ROWS)
            if status is None or _ONLY.get(str(state)) == status:
                found += [row.run_id for row in page.rows]
            else:
                known = await self._known_statuses(page.rows)
                found += [row.run_id for row in page.rows if known.get(row.run_id) == status]
            cursor = page.next_cursor
            if cursor is None:
                break
        return await self._views(found[offset:needed])

    @within(LONG_DEADLINE_S)
    async def counts(self, tenant: str) -> dict[str, int]:
        """Job status -> jobs, zeros left out; `queued` always there."""
        by_state = await self._journal.state_counts(tenant, KIND)
        counts: Counter[str] = Counter()
        for state, number in by_state.items():
            if state in ("running", "waiting"):
                counts.update(await self._statuses_in(tenant, state))
            else:
                counts[_ONLY.get(state, state)] += number
        queued = sum(counts.pop(status, 0) for status in _QUEUED)
        return {"queued": queued, **counts}

    async def _statuses_in(self, tenant: str, state: str) -> Counter[str]:
        """Statuses of the jobs that are in a core state, which go on."""
        counts: Counter[str] = Counter()
        cursor: str | None = None
        while True:
            page = await self._journal.summaries(RunFilter(tenant=tenant, kind=KIND, state=state), cursor, ROWS)
            counts.update((await self._known_statuses(page.rows)).values())
            cursor = page.next_cursor
            if cursor is None:
                return counts

    async def _known_statuses(self, rows: Sequence[RunRow]) -> dict[str, str]:
        """Job id -> status; what was folded at this version before is not folded again."""
        new = [row.run_id for row in rows if self._statuses.get(row.run_id, (0, ""))[0] != row.version]
        for start in range(0, len(new), HISTORIES):
            for history in await self._journal.load(new[start : start + HISTORIES]):
                self._statuses[history.row.run_id] = (history.row.version, job_fold.view(_events_of(history)).status)
                self._statuses.move_to_end(history.row.run_id)
        known = {row.run_id: self._statuses[row.run_id][1] for row in rows if row.run_id in self._statuses}
        while len(self._statuses) > STATUSES_MAX:
            self._statuses.popitem(last=False)
        return known

    async def _views(self, job_ids: Sequence[str]) -> list[JobView]:
        found: dict[str, JobView] = {}
        for start in range(0, len(job_ids), HISTORIES):
            for history in await self._journal.load(job_ids[start : start + HISTORIES]):
                found[history.row.run_id] = job_fold.view(_events_of(history))
        return [found[job_id] for job_id in job_ids if job_id in found]

    async def _events(self, tenant: str, job_id: str) -> list[e.AnyJobEvent]:
        histories = await self._journal.load([job_id])
        if not histories or histories[0].row.tenant != tenant or not _is_job(histories[0].row):
            raise NotFound("job", job_id)
        return _events_of(histories[0])

    # ── commands ──────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def cancel(self, tenant: str, job_id: str) -> str:
        """`cancellation_request_sent` or `cancellation_request_accepted`."""
        answer = await self._ask_again(r.Cancel(tenant, job_id))
        if answer.refused == "not_found":
            raise NotFound("job", job_id)
        if answer.refused == "conflict":
            raise Conflict(answer.message)
        status: str = answer.body["status"]
        return status

    @within(DEADLINE_S)
    async def release(self, tenant: str, job_id: str) -> None:
        """The quarantined job goes on where it stopped."""
        answer = await self._line.ask(r.Release(tenant, job_id))
        if answer.refused == "not_found":
            raise NotFound("job", job_id)
        if answer.refused is not None:
            raise Conflict(answer.message)

    @within(DEADLINE_S)
    async def approve(self, job_id: str, decision: str) -> None:
        """The job goes on as somebody has decided."""
        answer = await self._line.ask(r.Approve(job_id, decision))
        if answer.refused == "not_found":
            raise NotFound("job", job_id)
        if answer.refused == "invalid_decision":
            raise Invalid(answer.message)
        if answer.refused is not None:
            raise Conflict(answer.message)

    @within(DEADLINE_S)
    async def workers(self, tenant: str) -> list[dict[str, Any]]:
        """Live workers, those of the cluster among them, by id."""
        answer, slots = await asyncio.gather(self._ask_again(r.Workers(tenant)), self._control.workers())
        ours = [
            {
                "worker_id": each.worker_id,
                "worker_type": "ray",
                "status": each.state,
                "pool": each.pool,
                "reputation": 1.0,
            }
            for each in actor_codec.decode_workers(slots)
            if each.state != "lost"
        ]
        return sorted([*answer.body, *ours], key=lambda worker: str(worker["worker_id"]))

    async def figures(self) -> dict[str, int]:
        """What waits, and who works, as the gateway sees it; nothing before it was needed. Raises ActorUnreachable."""
        if not await self._control.gateway_exists():
            return {}
        figures: dict[str, int] = (await self._line.ask(r.Figures())).body
        return figures

    @within(LONG_DEADLINE_S)
    async def flush(self) -> None:
        """Every job, remote worker and webhook is gone."""
        await self._ask_again(r.Flush())
        await _insist(lambda: self._ask_outbox(wm.Flush()))
        self._statuses.clear()

    # ── webhooks ──────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def webhooks(self, tenant: str, status: str | None, limit: int) -> Sequence[Delivery]:
        """Webhooks of the tenant's jobs with the log of their attempts, newest first."""
        return (await _insist(lambda: self._ask_outbox(wm.Deliveries(tenant, limit, status)))).deliveries

    @within(DEADLINE_S)
    async def retry_webhook(self, tenant: str, webhook_id: str) -> Delivery:
        """A dead letter is tried from the start."""
        answer = await self._ask_outbox(wm.Again(tenant, webhook_id))
        if answer.refused == "not_found":
            raise NotFound("webhook", webhook_id)
        if answer.refused is not None:
            raise Conflict(answer.message)
        return answer.deliveries[0]

    async def _ask_outbox(self, request: wm.Request) -> wm.Answer:
        return outside_codec.decode_webhook_answer(
            await self._control.gateway(OUTBOX, outside_codec.encode_webhook_request(request))
        )

    # ── workers ───────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def ask(self, request: r.Request) -> r.Answer:
        """What workers say: Register, Heartbeat, Result, Progress."""
        answer = await self._ask_again(request)
        if answer.refused == "not_found" and isinstance(request, r.Result):
            raise NotFound("job", request.job_id)
        if answer.refused is not None:
            raise Unavailable(answer.message or answer.refused)
        return answer

    async def ask_leave(self, worker: str, path: str) -> int:
        """Whole seconds until a worker may ask at that path again; 0 = this request may pass, and counts.

        When the journal does not answer it passes: it fails of itself, with what there is to say about that.
        """
        try:
            wait_ms = await self._journal.ask_leave(f"worker:{worker}:{path}", RATE, RATE_WINDOW_MS)
        except JournalUnavailable:
            return 0
        return math.ceil(wait_ms / 1000)

    def poll(
        self, tenant: str, worker_id: str, timeout_s: float, available_skills: Sequence[str], hot_skills: Sequence[str]
    ) -> OpenPoll:
        """A worker waits for a task, from now on, for so long."""
        return self._line.poll(tenant, worker_id, timeout_s, available_skills, hot_skills)

    @within(DEADLINE_S)
    async def socket(self, tenant: str, worker_id: str) -> OpenSocket:
        """What is to be told to a worker's socket, until it is closed."""
        return await self._line.socket(tenant, worker_id)

    async def worker_tokens(self) -> WorkerTokens:
        """Individual tokens of workers, at most a second old; while the journal is away, those known last."""
        now_s = self._clock.monotonic()
        if now_s - self._tokens_s >= TOKENS_AGE_S:
            self._tokens_s = now_s
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(TOKENS_WAIT_S):
                    found = await self._journal.record(TOKENS_KIND, TOKENS_KEY)
                if found is not None:
                    self._know(msgspec.json.decode(found, type=KeptTokens))
        return self._tokens

    @within(DEADLINE_S)
    async def reload_worker_tokens(self) -> None:
        """The file is read again, for every replica."""
        digests = await asyncio.to_thread(read_worker_tokens, self._workers_path)
        kept = KeptTokens(milliseconds(self._clock.now()), digests)
        await self._journal.put_records(TOKENS_KIND, {TOKENS_KEY: msgspec.json.encode(kept)})
        self._know(kept)

    def _know(self, kept: KeptTokens) -> None:
        """Of the tokens that this server started with and those of a reload the later ones count."""
        if kept.read_ms > self._kept.read_ms:
            self._kept, self._tokens = kept, WorkerTokens(kept.digests)

    async def _ask_again(self, request: r.Request) -> r.Answer:
        return await _insist(lambda: self._line.ask(request))


async def _insist(ask: Callable[[], Awaitable[T]]) -> T:
    """The gateway's answer, once it gives one; the caller keeps the deadline. For what may be done twice."""
    while True:
        try:
            return await ask()
        except ActorUnreachable:
            await asyncio.sleep(PAUSE_S)


def _is_job(row: RunRow) -> bool:
    return row.dag_id.startswith(f"{KIND}/")


def _events_of(history: History) -> list[e.AnyJobEvent]:
    return [event for batch in history.batches for event in codec.decode_job_events(batch.events, batch.schema)]


def _quota(tenant: str, wanted: JobWanted, now: datetime) -> Quota | None:
    if wanted.monthly_attempts is None:
        return None
    return Quota(f"jobs:{tenant}:{wanted.client}:{now.astimezone(UTC):%Y-%m}", wanted.monthly_attempts)


def _to_next_month_s(now: datetime) -> int:
    """Whole seconds until the month is over, UTC."""
    now = now.astimezone(UTC)
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return max(1, round((datetime(year, month, 1, tzinfo=UTC) - now).total_seconds()))
