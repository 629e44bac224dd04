"""Jobs and remote workers in memory: everything that the HTTP layer of the jobs surface can see.

A job waits for a worker from its creation until a test moves it (`settle`). What workers say is noted in `asked`;
`answers` says what the gateway makes of it. `broken` makes every call raise that error, `gate` holds back mutations.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from orchestrator import remote
from orchestrator.blueprint import Approval, Blueprint, Dispatch, State
from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.job_views import HistoryEvent, JobView
from orchestrator.webhook import DEAD, PENDING, Delivery
from serve_app.outside_ports import JobWanted
from serve_app.problems import QuotaExhausted
from serve_app.worker_tokens import WorkerTokens
from tests.fakes_gateway import EPOCH

replace = msgspec.structs.replace

ENDED = ("finished", "failed", "error", "quarantined", "cancelled")
TRANSITIONS = {"success": "finished", "needs_review": "review"}

SIMPLE_FLOW = Blueprint(
    name="simple_flow",
    api_endpoint="/jobs/simple_flow",
    api_version="v1",
    states={
        "start": State("start", start=True, action=Dispatch("video_processing", transitions=TRANSITIONS)),
        "review": State("review", action=Approval("mail", "ok?", {"approved": "finished", "rejected": "failed"})),
    },
)
UNVERSIONED = Blueprint(name="ingest", api_endpoint="/ingest/now", states=SIMPLE_FLOW.states)
INNER = Blueprint(name="inner", states=SIMPLE_FLOW.states)


@dataclass
class FakePolling:
    """One poll; a test answers it."""

    tenant: str
    worker_id: str
    timeout_s: float
    available_skills: tuple[str, ...]
    hot_skills: tuple[str, ...]
    outcome: asyncio.Future[dict[str, Any] | None] = field(default_factory=lambda: asyncio.Future())
    withdrawn: int = 0

    def withdraw(self) -> None:
        self.withdrawn += 1


@dataclass
class FakeSocket:
    """One socket of a worker; a test speaks to it."""

    tenant: str
    worker_id: str
    bodies: asyncio.Queue[dict[str, Any] | None] = field(default_factory=asyncio.Queue)
    closed: bool = False

    def __aiter__(self) -> FakeSocket:
        return self

    async def __anext__(self) -> dict[str, Any]:
        body = await self.bodies.get()
        if body is None:
            raise StopAsyncIteration
        return body

    async def aclose(self) -> None:
        self.closed = True


def job_view(job_id: str, wanted: JobWanted) -> JobView:
    """A job that waits for a worker."""
    return JobView(
        id=job_id,
        blueprint_name=wanted.blueprint,
        current_state="start",
        status="waiting_for_worker",
        initial_data=wanted.initial_data,
        state_history={},
        webhook_url=wanted.webhook_url,
        error_message=None,
        parent_job_id=None,
        child_job_id=None,
        current_task_id=None,
        task_worker_id=None,
        retry_count=0,
        progress=0.0,
        progress_message="",
        current_task_info=None,
        current_task_transitions=TRANSITIONS,
        aggregation_target=None,
        active_branches=(),
        aggregation_results={},
        data_metadata={},
        client_config={"name": wanted.client, "plan": wanted.plan},
        task_dispatched_at=None,
        cancel_requested=False,
        created_at=EPOCH,
        updated_at=EPOCH,
        finished_at=None,
    )


@dataclass
class FakeJobs:
    """`serve_app.outside_ports.Jobs`, in memory."""

    broken: Exception | None = None
    gate: asyncio.Event | None = None
    loaded: Sequence[tuple[Blueprint, int]] = ((UNVERSIONED, 3), (INNER, 1), (SIMPLE_FLOW, 2))
    #: worker id -> digest of its token
    tokens: dict[str, str] = field(default_factory=dict)
    #: what the gateway answers, by the class of the request
    answers: dict[type, Callable[[Any], remote.Answer]] = field(default_factory=dict)
    asked: list[remote.Request] = field(default_factory=list)
    polls: list[FakePolling] = field(default_factory=list)
    #: a poll has come
    polled: asyncio.Event = field(default_factory=asyncio.Event)
    sockets: list[FakeSocket] = field(default_factory=list)
    live: list[dict[str, Any]] = field(default_factory=list)
    #: of all tenants, newest first
    outbox: list[Delivery] = field(default_factory=list)
    #: polls are answered with this at once
    at_once: dict[str, Any] | None = None
    reloads: int = 0
    flushed: int = 0
    sends_cancel: bool = False
    _jobs: dict[tuple[str, str], JobView] = field(default_factory=dict)
    _history: dict[str, list[HistoryEvent]] = field(default_factory=dict)
    _stored: dict[str, tuple[str, str]] = field(default_factory=dict)
    _created: Counter[str] = field(default_factory=Counter)
    _asked_leave: Counter[tuple[str, str]] = field(default_factory=Counter)

    # -- what tests do to it

    def settle(self, job_id: str, status: str, tenant: str = "default", **changes: Any) -> None:
        """The job is now like that."""
        view = self._view(tenant, job_id)
        state = status if status in ENDED else view.current_state
        self._jobs[tenant, job_id] = replace(view, status=status, **({"current_state": state} | changes))

    def tell(self, *lines: HistoryEvent) -> None:
        """Lines of a job's history."""
        for line in lines:
            self._history.setdefault(line.job_id, []).append(line)

    def created(self, tenant: str = "default") -> list[JobView]:
        """The tenant's jobs, oldest first."""
        return [view for (owner, _), view in self._jobs.items() if owner == tenant]

    # -- the port: clients

    def blueprints(self) -> Sequence[tuple[Blueprint, int]]:
        return self.loaded

    async def create(self, tenant: str, wanted: JobWanted, idem: Idempotency | None) -> tuple[str, bool]:
        await self._pass_gate()
        if idem is not None and idem.key in self._stored:
            fingerprint, job_id = self._stored[idem.key]
            if fingerprint != idem.fingerprint:
                raise Conflict("Idempotency key reused")
            return job_id, True
        if wanted.monthly_attempts is not None:
            if self._created[wanted.client] >= wanted.monthly_attempts:
                raise QuotaExhausted("so many", 86_400)
            self._created[wanted.client] += 1
        job_id = f"1c6c2d07-8110-4132-acd7-{len(self._jobs):012x}"
        self._jobs[tenant, job_id] = job_view(job_id, wanted)
        if idem is not None:
            self._stored[idem.key] = (idem.fingerprint, job_id)
        return job_id, False

    async def job(self, tenant: str, job_id: str) -> JobView:
        self._check()
        return self._view(tenant, job_id)

    async def jobs(self, tenant: str, status: str | None, limit: int, offset: int) -> list[JobView]:
        self._check()
        fitting = [each for each in reversed(self.created(tenant)) if status in (None, each.status)]
        return fitting[offset : offset + limit]

    async def history(self, tenant: str, job_id: str) -> list[HistoryEvent]:
        self._check()
        self._view(tenant, job_id)
        return self._history.get(job_id, [])

    async def counts(self, tenant: str) -> dict[str, int]:
        self._check()
        counts = Counter(each.status for each in self.created(tenant))
        queued = counts.pop("pending", 0) + counts.pop("waiting_for_worker", 0)
        return {"queued": queued, **counts}

    async def cancel(self, tenant: str, job_id: str) -> str:
        await self._pass_gate()
        view = self._view(tenant, job_id)
        if view.status in ENDED:
            raise Conflict(view.status)
        self.settle(job_id, view.status, tenant, cancel_requested=True)
        return "cancellation_request_sent" if self.sends_cancel else "cancellation_request_accepted"

    async def release(self, tenant: str, job_id: str) -> None:
        await self._pass_gate()
        view = self._view(tenant, job_id)
        if view.status != "quarantined":
            raise Conflict(view.status)
        self.settle(job_id, "running", tenant, current_state="start", error_message=None, finished_at=None)

    async def approve(self, job_id: str, decision: str) -> None:
        await self._pass_gate()
        tenant = next((owner for owner, each in self._jobs if each == job_id), "nobody")
        view = self._view(tenant, job_id)
        if view.status != "waiting_for_human":
            raise Conflict(view.status)
        if decision not in view.current_task_transitions:
            raise Invalid("no such decision")
        self.settle(job_id, view.current_task_transitions[decision], tenant)

    async def workers(self, tenant: str) -> list[dict[str, Any]]:
        self._check()
        return self.live

    async def webhooks(self, tenant: str, status: str | None, limit: int) -> list[Delivery]:
        self._check()
        return [each for each in self.outbox if each.tenant == tenant and status in (None, each.state)][:limit]

    async def retry_webhook(self, tenant: str, webhook_id: str) -> Delivery:
        await self._pass_gate()
        for place, found in enumerate(self.outbox):
            if (found.tenant, found.id) == (tenant, webhook_id):
                if found.state != DEAD:
                    raise Conflict(found.state)
                self.outbox[place] = replace(found, state=PENDING, attempts=0, next_at=EPOCH, ended_at=None)
                return self.outbox[place]
        raise NotFound("webhook", webhook_id)

    async def flush(self) -> None:
        await self._pass_gate()
        self._jobs.clear()
        self.outbox.clear()
        self.flushed += 1

    # -- the port: workers

    async def ask(self, request: remote.Request) -> remote.Answer:
        await self._pass_gate()
        self.asked.append(request)
        answer = self.answers.get(type(request))
        return remote.Answer({"status": "ttl_refreshed"}) if answer is None else answer(request)

    async def ask_leave(self, worker: str, path: str) -> int:
        self._asked_leave[worker, path] += 1
        return 0 if self._asked_leave[worker, path] <= 50 else 1

    def poll(
        self, tenant: str, worker_id: str, timeout_s: float, available_skills: Sequence[str], hot_skills: Sequence[str]
    ) -> FakePolling:
        self.polls.append(FakePolling(tenant, worker_id, timeout_s, tuple(available_skills), tuple(hot_skills)))
        if self.at_once is not None:
            self.polls[-1].outcome.set_result(self.at_once)
        self.polled.set()
        return self.polls[-1]

    async def socket(self, tenant: str, worker_id: str) -> FakeSocket:
        self._check()
        self.sockets.append(FakeSocket(tenant, worker_id))
        return self.sockets[-1]

    async def worker_tokens(self) -> WorkerTokens:
        return WorkerTokens(self.tokens)

    async def reload_worker_tokens(self) -> None:
        await self._pass_gate()
        self.reloads += 1

    # -- inside

    def _view(self, tenant: str, job_id: str) -> JobView:
        if (tenant, job_id) not in self._jobs:
            raise NotFound("job", job_id)
        return self._jobs[tenant, job_id]

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    async def _pass_gate(self) -> None:
        self._check()
        if self.gate is not None:
            await self.gate.wait()
