"""A small world of CI pipelines from one seed.

Clients launch, cancel and delete; runners work, fail, die, or fall silent and come back; the gateway is killed, or
replaced while it still writes; the journal goes away. Then peace, and an account.

What must hold at the end: whatever was acknowledged is there; every job has ended, by a legal history; nobody got a job
that somebody else had been given for the same attempt; a job succeeded only if one of its runners said so; lines stand
in the order in which they were accepted; and no secret is in any stored byte.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from orchestrator import codec
from orchestrator import pipeline_events as e
from orchestrator.errors import Invalid, NotFound, Unavailable
from orchestrator.pipeline_fold import fold, view
from orchestrator.pipeline_job import TERMINAL
from orchestrator.pipeline_views import Claimed, CompletionWanted, JobResult, LogEntry, PipelineView
from tests.pipelines_stage import TENANT, Stage, on_stage, script, stop

T = TypeVar("T")

RUNNERS, PIPELINES, LAUNCHES = 6, 3, 25
#: seconds of unrest
UNREST_S = 120.0
TIMEOUT_S = 10.0


class World:
    """Who lives in it, and what they were told."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.rng = stage.rng
        self.pipelines: list[PipelineView] = []
        self.deleted: set[str] = set()
        self.jobs: dict[str, str] = {}
        self.cancelled: set[str] = set()
        #: job -> runners that were told that they have it, one entry an answer
        self.granted: dict[str, list[str]] = defaultdict(list)
        #: job -> what its runners said and was not refused, or may have arrived
        self.said: dict[str, set[bool]] = defaultdict(set)
        #: job -> messages of batches that were accepted, in order per runner
        self.told: dict[str, list[list[str]]] = defaultdict(list)
        self.peace = False
        self.secrets = [f"secret-{self.rng.getrandbits(64):016x}" for _ in range(PIPELINES)]

    @property
    def port(self) -> Any:
        return self.stage.port

    async def pause(self, most_s: float) -> None:
        await asyncio.sleep(self.rng.random() * most_s)

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """As a client does: again, until there is an answer."""
        while True:
            try:
                return await attempt()
            except Unavailable:
                await self.pause(1.0)

    # ── clients

    async def set_up(self) -> None:
        for n, secret in enumerate(self.secrets):
            text = script(inputs={"token": {"secret": True}}, requires=["docker"] if n == 1 else [])
            config = {
                "max_retries": n,
                "timeout_seconds": 12 if n == 2 else 120,
                "secret_env_vars": {"S": f"env-{secret}"},
            }
            self.pipelines.append(await self.stage.create(text, config=config))

    async def client(self) -> None:
        for _ in range(LAUNCHES):
            await self.pause(2 * UNREST_S / LAUNCHES)
            await self.launch(self.rng.choice(self.pipelines), self.rng.choice(self.secrets))

    async def launch(self, pipeline: PipelineView, token: str) -> None:
        try:
            job = await self.insist(lambda: self.port.launch(TENANT, pipeline.id, {"token": token}, None))
        except NotFound:
            assert pipeline.id in self.deleted
            return
        self.jobs[job.id] = pipeline.id
        if self.rng.random() < 0.1:
            await self.cancel(job.id)

    async def cancel(self, job_id: str) -> None:
        try:
            await self.insist(lambda: self.port.cancel(TENANT, job_id))
        except Invalid:
            return  # it ended first, or an answer got lost
        except NotFound:
            return
        self.cancelled.add(job_id)

    async def deleter(self) -> None:
        await self.pause(2 * UNREST_S)
        victim = self.pipelines[0]
        if self.rng.random() < 0.5:
            self.deleted.add(victim.id)
            try:
                await self.insist(lambda: self.port.delete(TENANT, victim.id))
            except NotFound:
                return  # an answer got lost

    # ── runners

    async def runner(self, name: str) -> None:
        capabilities = self.rng.choice([None, ["docker"], ["log"]])
        await self.insist(lambda: self.port.register(TENANT, name, capabilities))
        while not self.peace:
            try:
                for job in (await self.port.scheduled(TENANT, name))[:3]:
                    await self.work(name, await self.port.claim(TENANT, job.id, name, None))
            except (Invalid, NotFound):
                pass  # somebody else was faster, or it is gone
            except Unavailable:
                await self.pause(1.0)
            await self.pause(2.0)

    async def work(self, name: str, claimed: Claimed) -> None:
        job_id = claimed.job_id
        self.granted[job_id].append(name)
        fate = self.rng.random()
        if fate < 0.15:  # it dies, and another one of that name is started much later
            await asyncio.sleep(4 * TIMEOUT_S)
            return
        if fate < 0.3:  # it is stopped, and goes on as if nothing had happened
            await asyncio.sleep(TIMEOUT_S * (0.5 + 2 * self.rng.random()))
        await self.talk(name, claimed)
        good = self.rng.random() < 0.6
        result = JobResult(good, 0 if good else 1, {"said": list(claimed.parameters.values())}, f"by {name}")
        self.said[job_id].add(good)
        try:
            await self.insist(lambda: self.port.complete(TENANT, job_id, CompletionWanted(result)))
        except (Invalid, NotFound):
            return

    async def talk(self, name: str, claimed: Claimed) -> None:
        mine: list[str] = []
        self.told[claimed.job_id].append(mine)
        for n in range(self.rng.randrange(4)):
            await self.pause(TIMEOUT_S / 3)
            at = self.stage.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            message = f"{name}-{self.rng.getrandbits(32)}-{n}"
            secrets = f"{claimed.parameters['token']} {claimed.env_vars['S']}"
            batch = [LogEntry(at, "Info", message), LogEntry(at, "Debug", f"{message} with {secrets}")]
            try:
                await self.port.add_logs(TENANT, claimed.job_id, batch)
            except (Unavailable, NotFound):
                continue  # it may be there or not
            mine.append(message)

    # ── what goes wrong

    async def unrest(self) -> None:
        end = self.stage.clock.monotonic() + UNREST_S
        self.stage.gate.loses = lambda: not self.peace and self.rng.random() < 0.05
        while self.stage.clock.monotonic() < end:
            await self.pause(8.0)
            match self.rng.randrange(5):
                case 0:
                    self.stage.kill()
                    await self.pause(6.0)
                    self.stage.start()
                case 1:
                    await self.replaced()
                case 2 | 3:
                    self.stage.journal.failing = [self.rng.random() < 0.5 for _ in range(self.rng.randrange(1, 6))]

    async def replaced(self) -> None:
        """A second gateway starts while the first one still goes on: it ends at its next write."""
        zombie = self.stage.gate.holder
        assert zombie is not None
        zombie.on_crash = lambda: stop(zombie)  # type: ignore[method-assign]  # a stand-in, in this one object
        self.stage.start()
        await self.pause(20.0)
        stop(zombie)

    # ── the account

    async def account(self) -> str:
        """Everything that must hold; a digest of what there is."""
        runs = self.stage.journal.runs
        for job_id, pipeline_id in self.jobs.items():
            if pipeline_id in self.deleted:
                assert job_id not in runs
            else:
                assert job_id in runs, "an acknowledged job is there"
        digest = hashlib.sha256()
        for job_id, run in sorted(runs.items()):
            events = [
                event for batch in run.events for event in codec.decode_pipeline_events(batch.events, batch.schema)
            ]
            self.check_job(job_id, events, run.state)
            await self.check_log(job_id, events)
            digest.update(repr(events).encode())
        stored = self.stage.written()
        for secret in self.secrets:
            assert secret.encode() not in stored
        return digest.hexdigest()

    def check_job(self, job_id: str, events: list[Any], state: str) -> None:
        job = fold(events)
        assert job.state in TERMINAL
        assert job.state == state
        claims = Counter(event.runner_id for event in events if isinstance(event, e.JobClaimed))
        assert not Counter(self.granted[job_id]) - claims, "each answer stands for a claim of its own"
        assert job.claims <= job.retry_count + 1
        assert job.retry_count <= max(job.launched.max_retries, 1)
        if job.state == "succeeded":
            assert True in self.said[job_id]
        if job_id in self.cancelled:
            assert job.state == "cancelled"
        assert view(job).parameters == {"token": "***"}

    async def check_log(self, job_id: str, events: list[Any]) -> None:
        messages = [each.message for each in await self.port.logs(TENANT, job_id)]
        for mine in self.told[job_id]:
            at = [messages.index(message) for message in mine]
            assert at == sorted(at)
        queued = Counter(message for message in messages if message.endswith(" queued"))
        retried = sum(isinstance(event, e.JobLost | e.JobRetried) for event in events)
        assert all(n == 1 for n in queued.values())
        assert set(queued) <= {f"attempt {n + 2} queued" for n in range(retried)}


def play(seed: int) -> str:
    """The world of that seed has ended well; its digest."""

    async def story(stage: Stage) -> str:
        world = World(stage)
        await world.set_up()
        runners = [asyncio.ensure_future(world.runner(f"r{n}")) for n in range(RUNNERS)]
        await asyncio.gather(world.unrest(), world.client(), world.client(), world.deleter())
        stage.journal.failing = []
        await asyncio.sleep(400)
        world.peace = True
        await asyncio.gather(*runners)
        await asyncio.sleep(400)
        return await world.account()

    rules: dict[str, Any] = {"pipelines_runner_timeout_s": TIMEOUT_S, "pipelines_queue_timeout_s": 200.0}
    return on_stage(story, seed, **rules)
