"""A gateway with its jobs, API replicas and remote workers on virtual time, at the level of messages.

async def story(stage: Stage) -> None:
    job = await stage.create("simple", {"clip": "a"})
    task = await stage.poll("w1")
    ...
play(story, blueprints)
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from random import Random
from typing import Any, TypeVar

from actors.blueprint_book import BlueprintBook
from actors.jobs_holder import JobsHolder
from actors.names import JOBS
from actors.settings import Settings
from orchestrator import codec, job_fold, outside_codec
from orchestrator import remote as r
from orchestrator.blueprint import Blueprint, Outcome, Visit
from orchestrator.blueprint_file import from_yaml
from orchestrator.errors import ActorUnreachable, JournalUnavailable
from orchestrator.job import Job
from orchestrator.job_birth import Birth, new_job
from orchestrator.job_events import AnyJobEvent
from orchestrator.job_views import HistoryEvent, JobView
from orchestrator.steps import Creation, Mail
from tests.fakes_journal import MemoryJournal
from tests.virtual_time import VirtualLoop, WorldClock
from tests.world_wire import Process, start_task

T = TypeVar("T")
DEFAULT = "default"
SIMPLE = """
name: simple
api_endpoint: /jobs/simple
api_version: v1
states:
  start:
    start: true
    dispatch_task:
      type: video
      params: {clip: "${initial_data.clip}"}
      transitions: {success: finished, needs_review: review}
  review:
    await_human_approval: {integration: mail, message: "ok?", transitions: {approved: finished, rejected: failed}}
"""


def blueprints_of(*texts: str) -> list[Blueprint]:
    """From YAML."""
    return [from_yaml(f"apiVersion: orchestrator/v1\nkind: Blueprint\n{text}") for text in texts]


async def no_handlers(visit: Visit) -> Outcome:
    """For blueprints without code."""
    raise AssertionError(f"no handler of {visit.state} was expected")


class CalledHandlers:
    """`handler_visits.Handlers` by a function."""

    def __init__(self, call: Callable[[Visit], Awaitable[Outcome]]) -> None:
        self._call = call

    async def visit(self, visit: Visit) -> Outcome:
        """What the function says."""
        return await self._call(visit)


class Stage:
    """One deployment. The gateway can be killed and started again; the journal stays."""

    def __init__(
        self,
        loop: VirtualLoop,
        seed: int,
        settings: Settings,
        handlers: Callable[[Visit], Awaitable[Outcome]],
        road: Callable[[MemoryJournal], Any],
    ) -> None:
        self.loop = loop
        self.rng = Random(seed)
        self.clock = WorldClock(loop, self.rng)
        self.settings = settings
        self.journal = MemoryJournal()
        self.ended: list[str] = []
        self._road = road(self.journal)
        self._handlers = CalledHandlers(handlers)
        self._life: Process | None = None
        self._versions: dict[str, tuple[Blueprint, int]] = {}
        self.replica = Replica(self, "api-1")
        #: how often the gateway ended by itself
        self.crashes = 0
        #: context of what belongs to no process
        self.outside = copy_context()

    # ── the gateway ───────────────────────────────────────────────────────────────────────────────

    async def publish(self, blueprints: Sequence[Blueprint]) -> None:
        """Deploy them."""
        versions = await BlueprintBook(self.journal).publish(blueprints)
        self._versions = {one.name: (one, versions[one.name]) for one in blueprints}

    def start(self) -> None:
        """A gateway lives."""
        life = self._life = Process(self.loop, JOBS)

        def begin() -> JobsHolder:
            holder = JobsHolder(self._road, self.clock, self.settings, self._handlers, self._webhook)
            holder.on_crash = self._crash  # type: ignore[method-assign] # as spawn does
            holder.start()
            return holder

        life.object = life.context.run(begin)

    def _crash(self) -> None:
        self.crashes += 1
        self.kill()
        self.start()

    def _webhook(self, job: Job) -> Mail | None:
        self.ended.append(job.job_id)
        return Mail("webhooks", codec.encode_mail(JOBS, b"{}")) if job.webhook_url else None

    def kill(self) -> None:
        """It ends, wherever it is."""
        if self._life is not None:
            self._life.end()
            self._life = None

    async def restart(self) -> None:
        """Killed and started."""
        self.kill()
        self.start()
        await asyncio.sleep(0.01)

    @property
    def holder(self) -> JobsHolder:
        """The one that lives."""
        assert self._life is not None
        holder: JobsHolder = self._life.object
        return holder

    async def ask(self, request: r.Request) -> r.Answer:
        """What it answers. Raises ActorUnreachable."""
        life = self._life
        if life is None:
            await asyncio.sleep(0.05)
            raise ActorUnreachable(JOBS, "it is not there")
        try:
            return outside_codec.decode_answer(await life.call(life.object.ask(outside_codec.encode_request(request))))
        except Exception as error:
            if life.alive:
                raise
            raise ActorUnreachable(JOBS, "it died") from error

    # ── clients ───────────────────────────────────────────────────────────────────────────────────

    async def create(
        self,
        blueprint: str = "simple",
        data: dict[str, Any] | None = None,
        tenant: str = DEFAULT,
        webhook_url: str | None = None,
    ) -> str:
        """A new job's id."""
        birth = Birth(
            job_id=self.clock.uuid(),
            tenant=tenant,
            initial_data=data or {},
            client={"name": "c", "plan": None},
            webhook_url=webhook_url,
        )
        run = new_job(birth, *self._versions[blueprint], JOBS, self.clock.now())
        while True:
            try:
                await self._road.create_runs([Creation((run,))])
                return birth.job_id
            except JournalUnavailable:
                await asyncio.sleep(0.1)

    def events(self, job_id: str) -> list[AnyJobEvent]:
        """All that happened to it, durably."""
        batches = self.journal.runs[job_id].events
        return [event for batch in batches for event in codec.decode_job_events(batch.events, batch.schema)]

    def view(self, job_id: str) -> JobView:
        """As `GET /api/v1/jobs/{id}` would show it."""
        return job_fold.view(self.events(job_id))

    def history(self, job_id: str) -> list[HistoryEvent]:
        """As `GET …/history` would show it."""
        return job_fold.history(self.events(job_id))

    async def cancel(self, job_id: str, tenant: str = DEFAULT) -> r.Answer:
        """Of the request Cancel."""
        return await self.ask(r.Cancel(tenant, job_id))

    async def approve(self, job_id: str, decision: str) -> r.Answer:
        """Of the request Approve."""
        return await self.ask(r.Approve(job_id, decision))

    # ── workers ───────────────────────────────────────────────────────────────────────────────────

    async def register(self, worker_id: str, tenant: str = DEFAULT, **body: Any) -> None:
        """A worker that can do `video`, unless `body` says otherwise."""
        said = {"worker_id": worker_id, "supported_tasks": ["video"], **body}
        assert await self.ask(r.Register(tenant, worker_id, said)) == r.Answer({"status": "registered"})

    async def heartbeat(self, worker_id: str, body: dict[str, Any] | None = None, tenant: str = DEFAULT) -> Any:
        """What the worker is answered."""
        return (await self.ask(r.Heartbeat(tenant, worker_id, body))).body

    async def poll(self, worker_id: str, timeout_s: float = 30.0, tenant: str = DEFAULT, **skills: Any) -> Any:
        """A task, or None."""
        return await self.replica.poll(worker_id, timeout_s, tenant, **skills).outcome

    async def result(
        self,
        task: dict[str, Any],
        worker_id: str,
        status: str = "success",
        data: Any = None,
        error: Any = None,
        tenant: str = DEFAULT,
    ) -> Any:
        """What the worker is answered; the word of a refusal as text."""
        ask = r.Result(tenant, worker_id, task["job_id"], task["task_id"], status, data, error)
        answer = await self.ask(ask)
        return answer.refused or answer.body


class Poll:
    """One open poll of a replica."""

    def __init__(self, replica: Replica, ask: r.Poll, until_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._replica = replica
        self.ask = ask
        self.until_s = until_s
        self.outcome: asyncio.Future[dict[str, Any] | None] = loop.create_future()

    def withdraw(self) -> None:
        """Its client is gone."""
        self._replica.withdraw(self.ask.poll_id)


class Replica:
    """What an API replica does: polls of its workers over one Listen, over restarts of the gateway."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage = stage
        self.name = name
        self._numbers = itertools.count(1)
        self._polls: dict[int, Poll] = {}
        self._session = 0
        self._after = 0
        self.sockets: dict[int, tuple[str, str]] = {}
        #: what sockets were told: (serial, body); a closed one: (serial, None)
        self.said: list[tuple[int, dict[str, Any] | None]] = []
        self._listening: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Begin to."""
        self._listening = asyncio.get_running_loop().create_task(self._listen_forever())

    def die(self) -> None:
        """It listens no more."""
        if self._listening is not None:
            self._listening.cancel()
        for poll in self._polls.values():
            poll.outcome.cancel()

    def poll(self, worker_id: str, timeout_s: float, tenant: str = DEFAULT, **skills: Any) -> Poll:
        """Open from now on."""
        loop = self._stage.loop
        ask = r.Poll(tenant, self.name, next(self._numbers), worker_id, timeout_s, **skills)
        poll = self._polls[ask.poll_id] = Poll(self, ask, loop.time() + timeout_s, loop)
        self._send(ask)
        loop.call_later(timeout_s + 15, self._give_up, ask.poll_id)
        return poll

    def _give_up(self, poll_id: int) -> None:
        poll = self._polls.get(poll_id)
        if poll is not None and not poll.outcome.done():
            self.withdraw(poll_id)
            poll.outcome.set_result(None)

    def withdraw(self, poll_id: int) -> None:
        """The poll's client is gone, before or after the answer."""
        self._polls.pop(poll_id, None)
        self._send(r.Withdraw(self.name, (poll_id,)))

    async def open_socket(self, worker_id: str = "", tenant: str = DEFAULT) -> int:
        """Its serial."""
        serial = next(self._numbers)
        self.sockets[serial] = (tenant, worker_id)
        await self._stage.ask(r.Sockets(tenant, self.name, opened=((serial, worker_id),)))
        return serial

    async def close_socket(self, serial: int) -> None:
        """It is lost."""
        tenant, _ = self.sockets.pop(serial)
        await self._stage.ask(r.Sockets(tenant, self.name, closed=(serial,)))

    def _send(self, ask: r.Request) -> None:
        self._stage.loop.create_task(self._insist(ask), context=self._stage.outside.copy())

    async def _insist(self, ask: r.Request) -> None:
        for _ in range(40):
            try:
                await self._stage.ask(ask)
                return
            except ActorUnreachable:
                await asyncio.sleep(0.2)

    async def _listen_forever(self) -> None:
        while True:
            try:
                answer = await self._stage.ask(r.Listen(self.name, 5.0, self._after, self._session))
            except ActorUnreachable:
                await asyncio.sleep(0.1)
                continue
            pushes = outside_codec.pushes_of(answer)
            anew = pushes.session != self._session
            self._session, self._after = pushes.session, pushes.last
            for push in pushes.pushes:
                self._take(push)
            if anew:
                self._open_again()

    def _open_again(self) -> None:
        now_s = self._stage.loop.time()
        for poll in self._polls.values():
            left_s = max(0.0, poll.until_s - now_s)
            self._send(r.Poll(poll.ask.tenant, self.name, poll.ask.poll_id, poll.ask.worker_id, left_s))
        for serial, (tenant, worker_id) in self.sockets.items():
            self._send(r.Sockets(tenant, self.name, opened=((serial, worker_id),)))

    def _take(self, push: r.Push) -> None:
        match push:
            case r.Assigned():
                self._answer(push.poll_id, push.task)
            case r.Expired():
                self._answer(push.poll_id, None)
            case r.Say():
                self.said.append((push.serial, push.body))
            case r.Close():
                self.sockets.pop(push.serial, None)
                self.said.append((push.serial, None))

    def _answer(self, poll_id: int, task: dict[str, Any] | None) -> None:
        poll = self._polls.pop(poll_id, None)
        if poll is not None and not poll.outcome.done():
            poll.outcome.set_result(task)


def play(
    story: Callable[[Stage], Awaitable[T]],
    *texts: str,
    seed: int = 1,
    handlers: Callable[[Visit], Awaitable[Outcome]] = no_handlers,
    blueprints: Sequence[Blueprint] = (),
    road: Callable[[MemoryJournal], Any] = lambda journal: journal,
    **settings: Any,
) -> T:
    """The story's result, with these blueprints deployed; `SIMPLE` when there are none."""
    deployed = [*blueprints_of(*texts), *blueprints] or blueprints_of(SIMPLE)
    loop = VirtualLoop()
    loop.set_task_factory(start_task)
    asyncio.set_event_loop(loop)
    try:
        values = {"job_retry_backoff_s": 0.0, "worker_poll_timeout_s": 30.0, **settings}
        stage = Stage(loop, seed, Settings(**values), handlers, road)
        return loop.run_until_complete(_course(stage, deployed, story))
    finally:
        _clear(loop)
        asyncio.set_event_loop(None)
        loop.close()


def _clear(loop: VirtualLoop) -> None:
    """Nothing runs any more. A cancelled `wait_for` whose result has just come goes on, so it takes several rounds."""
    loop.rounds = 0
    while left := asyncio.all_tasks(loop):
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=1))


async def _course(stage: Stage, deployed: Sequence[Blueprint], story: Callable[[Stage], Awaitable[T]]) -> T:
    await stage.publish(deployed)
    stage.start()
    stage.replica.listen()
    result = await story(stage)
    assert stage.crashes == 0
    return result


async def a_task(stage: Stage, worker_id: str = "w1") -> dict[str, Any]:
    """A job of `simple` whose task the worker holds."""
    await stage.register(worker_id)
    await stage.create(data={"clip": "a"})
    task: dict[str, Any] = await stage.poll(worker_id)
    return task


def events_of(stage: Stage, job_id: str) -> list[str]:
    """Types of the events in the job's history, in order."""
    return [line.event_type for line in stage.history(job_id)]
