"""The pipelines surface without HTTP, Ray and a server: port, gateway and journal in one loop on virtual time.

    stage.port ─▶ Gate (may be shut, may lose answers) ─▶ PipelinesHolder ─▶ MemoryJournal ─▶ Hub ─▶ streams

A gateway is killed with all that it was about to do, or left behind as a zombie that still writes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from random import Random
from typing import Any, TypeVar

import msgspec

from actors.clock import Clock
from actors.pipelines_holder import PipelinesHolder
from actors.settings import Settings
from actors.vault import Vault
from orchestrator.errors import ActorUnreachable, Invalid
from orchestrator.pipeline import Input, PipelineDefinition
from orchestrator.pipeline import Stage as PipelineStage
from orchestrator.pipeline_views import (
    CompletionWanted,
    JobResult,
    LogEntry,
    PipelineConfig,
    PipelineJobView,
    PipelineView,
    PipelineWanted,
)
from orchestrator.ports import Journal
from serve_app.creations import Creations
from serve_app.hub import Hub
from serve_app.pipelines import Pipelines
from tests.fakes_journal import MemoryJournal
from tests.virtual_time import WorldClock, virtually

T = TypeVar("T")

TENANT = "default"
KEY = "a key of a server, 32 characters."
GOOD = CompletionWanted(JobResult(True, 0))
BAD = CompletionWanted(JobResult(False, 2))


async def validate(script: str) -> PipelineDefinition:
    """Instead of the sandbox: a script is JSON, {"name", "inputs", "requires", "tags"}."""
    try:
        made = json.loads(script)
    except ValueError as error:
        raise Invalid(f"Invalid Lua script: {error}") from None
    return PipelineDefinition(
        name=made.get("name", "Example"),
        description="d",
        required_modules=tuple(made.get("requires", ())),
        tags=tuple(made.get("tags", ())),
        inputs=tuple(Input(name, **rest) for name, rest in made.get("inputs", {}).items()),
        stages=(PipelineStage("build"),),
    )


def script(**made: Any) -> str:
    """A script that defines that."""
    return json.dumps({"name": "Example", "requires": ["log"]} | made)


def entry(message: str, at: str = "2026-01-02T03:04:05.123456789Z", level: str = "Info") -> LogEntry:
    """A line."""
    return LogEntry(at, level, message)


class Gate:
    """`ControlPlane.gateway`. Nobody answers while it is shut."""

    def __init__(self) -> None:
        self.holder: PipelinesHolder | None = None
        #: whether the answer of this request gets lost
        self.loses: Callable[[], bool] = lambda: False

    async def gateway(self, ward: str, request: bytes, patience_s: float = 5.0) -> bytes:
        assert ward == "pipelines"
        holder = self.holder
        if holder is None:
            raise ActorUnreachable("gateway-0", "nobody has that name")
        call = asyncio.ensure_future(holder.ask(request))
        deadline_s = asyncio.get_running_loop().time() + patience_s
        while not call.done():
            if self.holder is not holder or asyncio.get_running_loop().time() > deadline_s:
                call.add_done_callback(lambda call: call.cancelled() or call.exception())
                raise ActorUnreachable("gateway-0", "it went away")
            await asyncio.wait([call], timeout=0.05)
        if self.loses():
            raise ActorUnreachable("gateway-0", "the answer got lost")
        return call.result()


class Stage:
    """All of it, and shorthands for what tests do most."""

    def __init__(self, seed: int = 1, real: Journal | None = None, **settings: Any) -> None:
        """On virtual time, and a journal in memory; or with a `real` journal in real time."""
        loop: Any = asyncio.get_running_loop()
        self.rng = Random(seed)
        self.clock = WorldClock(loop, self.rng) if real is None else Clock()
        self.settings = Settings(**({"secret_key": KEY} | settings))
        self.journal: Any = MemoryJournal() if real is None else real
        self.gate = Gate()
        self.hub = Hub(self.journal)
        self.crashes = 0
        self.port = self.replica()

    def replica(self) -> Pipelines:
        """Another API replica."""
        control: Any = self.gate
        vault = Vault(self.settings.secret_key, self.clock)
        return Pipelines(self.journal, control, Creations(self.journal), self.hub, self.clock, vault, validate)

    def start(self, **settings: Any) -> PipelinesHolder:
        """A gateway, instead of the one that may be there."""
        self.settings = dataclasses.replace(self.settings, **settings)
        holder = PipelinesHolder(self.journal, self.clock, self.settings)
        holder.on_crash = self._crashed  # type: ignore[method-assign]  # a stand-in, in this one object
        self.gate.holder = holder
        holder.start()
        return holder

    def kill(self) -> None:
        """The gateway is gone, with all that it was about to do."""
        holder, self.gate.holder = self.gate.holder, None
        if holder is not None:
            stop(holder)

    def restart(self, **settings: Any) -> PipelinesHolder:
        """Killed and started again."""
        self.kill()
        return self.start(**settings)

    def _crashed(self) -> None:
        self.crashes += 1

    # ── shorthands

    async def create(self, text: str | None = None, tenant: str = TENANT, **wanted: Any) -> PipelineView:
        await asyncio.sleep(0.001)  # no two at one instant
        config = PipelineConfig(**wanted.pop("config", {}))
        made = PipelineWanted(script() if text is None else text, config=config, **wanted)
        return await self.port.create(tenant, made, None)

    async def launch(self, pipeline: PipelineView, tenant: str = TENANT, **parameters: Any) -> str:
        return (await self.port.launch(tenant, pipeline.id, parameters, None)).id

    async def job(self, job_id: str, tenant: str = TENANT) -> PipelineJobView:
        return await self.port.job(tenant, job_id)

    async def claimed(self, pipeline: PipelineView, runner: str = "r1", **parameters: Any) -> str:
        job_id = await self.launch(pipeline, **parameters)
        await self.port.claim(TENANT, job_id, runner, None)
        return job_id

    async def messages(self, job_id: str) -> list[str]:
        return [each.message for each in await self.port.logs(TENANT, job_id)]

    def written(self) -> bytes:
        """Every byte that the journal holds, whatever it is about."""
        return b"\n".join(_bytes_of(vars(self.journal)))


def _bytes_of(value: Any) -> Iterator[bytes]:
    match value:
        case bytes():
            yield value
        case str():
            yield value.encode()
        case Mapping():
            yield from _bytes_of([*value.keys(), *value.values()])
        case list() | tuple() | set() | frozenset() | deque():
            for each in value:
                yield from _bytes_of(each)
        case msgspec.Struct():
            yield from _bytes_of([getattr(value, name) for name in value.__struct_fields__])
        case _ if dataclasses.is_dataclass(value):
            yield from _bytes_of([getattr(value, each.name) for each in dataclasses.fields(value)])


def stop(holder: PipelinesHolder) -> None:
    """The process ends."""
    for task in list(holder._tasks):
        task.cancel()
    holder._acts.clear()
    holder.start = holder._spawn = lambda *_: None  # type: ignore[method-assign, assignment]  # a stand-in, in this one object
    for _, handle in holder._timers.values():
        handle.cancel()
    for handle in (holder._silence, holder._runners_later):
        if handle is not None:
            handle.cancel()


def on_stage(story: Callable[[Stage], Awaitable[T]], seed: int = 1, **settings: Any) -> T:
    """The story's result, on virtual time, with a gateway that runs."""

    async def told() -> T:
        stage = Stage(seed, **settings)
        stage.start()
        result = await story(stage)
        assert stage.crashes == 0
        stage.kill()
        stage.hub.close()
        return result

    play: Coroutine[Any, Any, T] = told()
    return virtually(play)
