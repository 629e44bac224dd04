"""The clients of a world: they trigger, cancel, retry, skip and pause at random, insist until there is an
answer, and read along.

What they are told is compared with the journal in the moment in which they are told it (I13); what a subscriber sees
over all its reconnects is every event once, in order (I11).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar, get_args

import msgspec

from orchestrator import events as e
from orchestrator.command import Ballot
from orchestrator.definition import HIDDEN, WAITING_TYPES, Definition, Dimension, TaskSpec, TriggerRule
from orchestrator.errors import Refused, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.ids import INSTANCE_PREFIX
from orchestrator.instance_views import Acknowledged, InstanceView, InstanceWanted
from orchestrator.live_run_views import CheckpointView, LiveRunWanted
from orchestrator.messages import NO_JSON
from orchestrator.starts import Trigger, Widening
from orchestrator.views import Frame, RunChanged
from serve_app.gateway import Gateway
from tests.fakes_journal import MemoryJournal
from tests.history_rules import RUN_TERMINAL
from tests.invariants import check_instance_frames, check_sequence, check_versions

T = TypeVar("T")
TENANT = "default"


class Clients:
    """Everybody outside, with two API replicas to ask."""

    def __init__(
        self,
        rng: Random,
        journal: MemoryJournal,
        gateways: list[Gateway],
        definitions: dict[str, Definition],
        folder: Path,
    ) -> None:
        self.rng = rng
        self.journal = journal
        self.gateways = gateways
        self.definitions = definitions
        self.folder = folder
        #: no more events will come
        self.over = False

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """As a client does: the same again, until there is an answer."""
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.3)

    async def define_dags(self) -> None:
        """Two DAGs of chance and one with a schedule."""
        rng = self.rng
        for name in ("a", "b", "cron"):
            tasks = (
                _with_deadlines(_with_maps(rng, _with_rules(rng, _random_tasks(rng))))
                if name != "cron"
                else (TaskSpec(id="tick", retry_delay_s=0.2),)
            )
            definition = Definition(
                dag_id=name,
                owner="team",
                tasks=tasks,
                max_active_runs=rng.choice((1, 2, 16)),
                schedule="* * * * *" if name == "cron" else None,
                run_timeout_s=rng.choice((None, None, 20.0)),
                sla_s=rng.choice((None, 5)),
                queue_timeout_s=(None, None, 8.0)[len(tasks) % 3],
                callback_url=None if name == "cron" else "https://example.org/hook",
            )
            await self.insist(partial(self.define, definition))

    async def define(self, definition: Definition) -> None:
        """Store a version of a DAG."""
        self.definitions[definition.dag_id] = definition
        await self.gateways[0].define_dag(TENANT, definition, keep_tasks=False, expect=None, idem=None)

    async def visit(self, after_s: float) -> None:
        """One thing that one client wants."""
        await asyncio.sleep(after_s)
        creations = (self._trigger, self._trigger, self._backfill, self._live_run, self._instance)
        commands = (self._command, self._command, self._change_mind, self._pause_dag, self._signal, self._vote)
        commands += (self._reshape, self._reshape)
        visit = self.rng.choice((*creations, *commands) if self._runs_of_dags() else creations)
        with suppress(Refused):
            await visit()

    async def _twice(self, call: Callable[[Gateway, Idempotency], Awaitable[T]]) -> T:
        """The same request, sometimes sent a second time, at another replica: there is one effect and one answer."""
        key = Idempotency(f"key-{self.rng.getrandbits(64):x}", "f")
        asked = self.gateways[: self.rng.choice((1, 2))]
        answers: list[Any] = await asyncio.gather(
            *(self.insist(partial(call, gateway, key)) for gateway in asked), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        first, *more = (msgspec.structs.replace(answer, replayed=False) for answer in answers)
        assert all(answer == first for answer in more), f"I13 two answers to one request: {first}, {more}"
        return first  # type: ignore[no-any-return]  # of whatever kind the call answers

    async def _trigger(self) -> None:
        rng = self.rng
        dag_id = rng.choice(("a", "a", "b"))
        trigger = Trigger(dag_id=dag_id, params={"n": rng.randint(0, 9)})
        if rng.random() < 0.4:
            day = _day(rng.randint(0, 4))
            trigger = msgspec.structs.replace(trigger, start=day, end=day, reprocess=rng.choice(_REPROCESS))
        elif rng.random() < 0.2:
            trigger = msgspec.structs.replace(trigger, event_id=f"order-{rng.randint(0, 2)}")
        made = await self._twice(lambda gateway, key: gateway.trigger(TENANT, trigger, key))
        assert made.run_id in self.journal.runs, f"I13 {made.run_id} was accepted and is not there"
        keys = [(run.dag_id, run.window_key) for run in self.journal.runs.values() if run.window_key.startswith("!")]
        assert len(keys) == len(set(keys)), f"an event started two runs: {keys}"

    async def _live_run(self) -> None:
        """A run of the runs surface: with tasks, or driven by this client, who may change its mind or forget it."""
        rng = self.rng
        wanted = LiveRunWanted(tasks=rng.choice((None, None, _random_tasks(rng))))
        made = await self._twice(lambda gateway, key: gateway.live_runs.create(TENANT, wanted, key))
        posted = []
        for n in range(rng.randint(0, 6)):
            await asyncio.sleep(rng.choice((0.0, 0.0, 0.5)))
            posted.append((await self._post(made.run_id, f"s{n}")).id)
        found = [each.id for each in await self._checkpoints(made.run_id)]
        assert [each for each in found if each in posted] == posted, f"I13 {posted} were accepted, {found} are there"
        match rng.choice(("end", "end", "cancel", "forget")):
            case "end":
                await self._post(made.run_id, rng.choice(("run.completed", "run.failed")))
            case "cancel":
                with suppress(Refused):
                    await self.insist(lambda: rng.choice(self.gateways).live_runs.cancel(TENANT, made.run_id))
                assert self.journal.runs[made.run_id].state in RUN_TERMINAL, f"I13 cancel of {made.run_id}"

    async def _post(self, run_id: str, kind: str) -> CheckpointView:
        return await self.insist(
            lambda: self.rng.choice(self.gateways).live_runs.post_checkpoint(TENANT, run_id, kind, NO_JSON)
        )

    async def _checkpoints(self, run_id: str) -> list[CheckpointView]:
        return await self.insist(lambda: self.gateways[0].live_runs.checkpoints(TENANT, run_id, None, None))

    async def _instance(self) -> None:
        """An instance that works through a plan, and a client that interferes; a second one comes too late."""
        rng = self.rng
        name = f"p{rng.randint(0, 2)}"
        self.write_plan(name, random_plan(rng))
        wanted = InstanceWanted(
            plan=name,
            batch_size=rng.choice((1, 2, 5)),
            max_iterations=rng.choice((0, 0, 2, 50)),
            max_retries=rng.choice((0, 2)),
        )
        asked = [self.insist(lambda g=g: g.instances.start(TENANT, wanted)) for g in self.gateways]  # type: ignore[misc]  # a default binds the loop's variable
        answers = await asyncio.gather(*asked, return_exceptions=True)
        made = [answer for answer in answers if isinstance(answer, InstanceView)]
        for view in made:
            assert view.instance_id in self.journal.runs, f"I13 {view.instance_id} was accepted and is not there"
        if not made:
            return
        for _ in range(rng.randint(0, 4)):
            await asyncio.sleep(rng.choice((0.0, 0.0, 0.1, 1.0)))
            with suppress(Refused, Unavailable):
                await self._interfere(made[0].instance_id)

    def write_plan(self, name: str, text: str) -> None:
        """The plan file of that name."""
        path = self.folder / "docs" / "plans" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    async def _interfere(self, instance_id: str) -> None:
        rng, instances = self.rng, self.rng.choice(self.gateways).instances
        task = f"{rng.randint(1, 2)}.{rng.randint(1, 4)}"
        version = self.journal.runs[instance_id].version
        match rng.choice(("pause", "pause", "resume", "skip", "retry", "shut_down", "force")):
            case "pause":
                answer, wanted = await instances.pause(TENANT, instance_id), "paused"
                await self._stays_paused(instance_id, version, answer)
            case "resume":
                answer, wanted = await instances.resume(TENANT, instance_id), ""
            case "skip":
                answer, wanted = await instances.skip_task(TENANT, instance_id, task, "later"), ""
                assert not answer.success or self._has(instance_id, e.TaskSkipped, task), f"I13 skip of {task}"
            case "retry":
                answer, wanted = await instances.retry_task(TENANT, instance_id, task), ""
                assert not answer.success or self._has(instance_id, e.TaskReset, task), f"I13 retry of {task}"
            case _ as how:
                answer, wanted = await instances.shut_down(TENANT, instance_id, how == "force"), "cancelling cancelled"
        if answer.success and "cancel" in wanted:
            assert self.journal.runs[instance_id].state in RUN_TERMINAL | {"cancelling"}, f"I13 {wanted}"

    async def _stays_paused(self, instance_id: str, version: int, answer: Acknowledged) -> None:
        """Nothing starts from the answer on, until somebody resumes it."""
        told = self._events(instance_id)
        assert not answer.success or any(isinstance(event, e.RunPaused) for event in told), "I13 pause"
        await asyncio.sleep(self.rng.uniform(0.0, 3.0))
        paused = False
        for event in self._events(instance_id)[version:]:
            paused = isinstance(event, e.RunPaused) or (paused and not isinstance(event, e.RunResumed))
            assert not (paused and isinstance(event, e.TaskStarted)), f"I3 {instance_id}: {event} while paused"

    def _has(self, run_id: str, kind: type[e.Event], task: str) -> bool:
        return any(isinstance(x, kind) and getattr(x, "task", "") == task for x in self._events(run_id))

    def _events(self, run_id: str) -> list[e.Event]:
        return check_versions(self.journal.runs[run_id].events)

    def _runs_of_dags(self) -> list[str]:
        return [run_id for run_id, run in self.journal.runs.items() if not run.dag_id.startswith(HIDDEN)]

    async def _change_mind(self) -> None:
        """A run that is cancelled or skipped in the very moment in which it starts."""
        made = await self.insist(lambda: self.gateways[0].trigger(TENANT, Trigger(dag_id="a"), None))
        await asyncio.sleep(self.rng.choice((0.0, 0.001, 0.002, 0.003, 0.005)))
        await self._command(made.run_id)

    async def _backfill(self) -> None:
        rng = self.rng
        first = rng.randint(0, 3)
        trigger = Trigger(
            dag_id=rng.choice(("a", "b")),
            run_type="backfill",
            start=_day(first),
            end=_day(first + rng.randint(0, 3)),
            reprocess=rng.choice(_REPROCESS),
            max_active_runs=rng.choice((None, 1, 2)),
            run_backwards=rng.random() < 0.3,
        )
        if rng.random() < 0.2:
            trigger = msgspec.structs.replace(trigger, start=None, end=None, partitions=_regions(rng))
        made = await self._twice(lambda gateway, key: gateway.trigger(TENANT, trigger, key))
        assert made.run_id in self.journal.runs, f"I13 {made.run_id} was accepted and is not there"

    async def _signal(self) -> None:
        """Early, late, or twice under one id: there is one signal."""
        run_id = self.rng.choice(self._runs_of_dags())
        sent = f"s{self.rng.getrandbits(32):x}"
        name = self.rng.choice(("go", "stop"))
        data = msgspec.Raw(msgspec.json.encode(sent))
        asked = self.gateways[: self.rng.choice((1, 2))]
        call = [partial(g.waiting.signal, TENANT, run_id, name, data, sent, None) for g in asked]
        answers: list[Any] = await asyncio.gather(*map(self.insist, call), return_exceptions=True)
        if accepted := [each for each in answers if not isinstance(each, BaseException)]:
            found = [x for x in self._events(run_id) if isinstance(x, e.SignalReceived) and x.signal_id == sent]
            assert len(found) == 1, f"I13 signal {sent} of {run_id} was answered {accepted}, and is there {len(found)}"
        for each in answers:
            if isinstance(each, BaseException):
                raise each

    async def _vote(self) -> None:
        """On something that is open, if anything is; what is listed as open was so a moment ago."""
        waiting = self.rng.choice(self.gateways).waiting
        open_ = await self.insist(lambda: waiting.approvals(TENANT, dag_id=None, run_id=None))
        for view in open_:
            asked = [x for x in self._events(view.run_id) if isinstance(x, e.TaskWaiting) and x.task == view.task]
            assert view.attempt in [x.attempt for x in asked], f"{view} is listed, and nobody asked"
        if not open_:
            return
        view = self.rng.choice(open_)
        by = self.rng.choice(("ada", "bob", "cid"))
        ballot = Ballot(self.rng.choice(view.choices), by, ("client", by), None, self.rng.choice((None, view.attempt)))
        await self.insist(lambda: waiting.decide(TENANT, view.run_id, view.task, ballot, None))
        cast = [x for x in self._events(view.run_id) if isinstance(x, e.VoteCast) and (x.task, x.by) == (view.task, by)]
        assert cast, f"I13 a vote of {by} on {view.run_id}/{view.task} was accepted and is not in the journal"

    async def _reshape(self) -> None:
        """A backfill that is paused for a while, capped anew, or made wider."""
        rng = self.rng
        backfills = [run_id for run_id, run in self.journal.runs.items() if run.run_type == "backfill"]
        if not backfills:
            return
        run_id = rng.choice(backfills)
        match rng.choice(("pause", "cap", "widen", "widen")):
            case "pause":
                await self._twice(lambda gateway, key: gateway.pause_run(TENANT, run_id, key))
                assert self._told(run_id, e.RunPaused), f"I13 pause of {run_id}"
                await asyncio.sleep(rng.uniform(0.0, 6.0))
                await self._twice(lambda gateway, key: gateway.resume_run(TENANT, run_id, key))
            case "cap":
                cap, before = rng.choice((None, 1, 2, 3)), self.journal.runs[run_id].max_active_runs
                await self._twice(lambda gateway, key: gateway.cap_run(TENANT, run_id, cap, key))
                assert cap == before or self._told(run_id, e.BackfillCapped), f"I13 cap of {run_id}"
            case _:
                await self._widen(run_id)

    async def _widen(self, run_id: str) -> None:
        rng, window = self.rng, self.journal.runs[run_id].row().window
        if window is None:
            widening = Widening(partitions=_regions(rng))
        else:
            later = date.fromisoformat(window.end) + timedelta(days=rng.randint(0, 2))
            earlier = date.fromisoformat(window.start) - timedelta(days=rng.randint(0, 2))
            widening = Widening(start=earlier.isoformat(), end=later.isoformat(), reprocess=rng.choice(_REPROCESS))
        done = await self._twice(lambda gateway, key: gateway.widen_run(TENANT, run_id, widening, key))
        children = self.journal.runs[run_id].children
        keys = [self.journal.runs[child].window_key for child in children]
        assert len(set(keys)) == len(keys) >= done.counts.total, f"I13 {run_id} has {keys}, {done.counts} were told"
        if window is not None:
            assert keys == sorted(keys), f"{run_id}: not by date: {keys}"

    def _told(self, run_id: str, kind: type[e.Event]) -> bool:
        return any(isinstance(event, kind) for event in self._events(run_id))

    async def _pause_dag(self) -> None:
        gateway, dag_id = self.gateways[0], self.rng.choice(("a", "b"))
        await self.insist(lambda: gateway.pause_dag(TENANT, dag_id, None, None))
        await asyncio.sleep(self.rng.uniform(0.0, 3.0))
        await self.insist(lambda: gateway.resume_dag(TENANT, dag_id, None, None))

    async def _command(self, run_id: str = "") -> None:
        rng = self.rng
        run_id = run_id or rng.choice(self._runs_of_dags())
        row = self.journal.runs[run_id]
        names = [task.id for task in self.definitions[row.dag_id].tasks]
        kind = rng.choice(("cancel", "cancel", "pause", "retry_task", "retry_task", "skip_task", "retry_run"))
        task = rng.choice(names) if names else "none"
        if any(spec.id == task and spec.expand for spec in self.definitions[row.dag_id].tasks) and rng.random() < 0.5:
            task = f"{task}[{rng.randint(0, 3)}]"

        def call(gateway: Gateway, key: Idempotency) -> Awaitable[RunChanged]:
            match kind:
                case "cancel":
                    return gateway.cancel_run(TENANT, run_id, key)
                case "pause":
                    return gateway.pause_run(TENANT, run_id, key)
                case "retry_run":
                    return gateway.retry_run(TENANT, run_id, key)
                case "retry_task":
                    return gateway.retry_task(TENANT, run_id, task, key)
                case _:
                    return gateway.skip_task(TENANT, run_id, task, key)

        await self._twice(call)
        self._check_obeyed(kind, run_id, task)
        if kind == "pause":
            await asyncio.sleep(rng.uniform(0.0, 6.0))
            with suppress(Refused):
                await self._twice(lambda gateway, key: gateway.resume_run(TENANT, run_id, key))

    def _check_obeyed(self, kind: str, run_id: str, task: str) -> None:
        """What was answered is in the journal (I13)."""
        events = check_versions(self.journal.runs[run_id].events)
        if self.journal.runs[run_id].run_type == "backfill" and kind not in ("cancel", "pause"):
            return
        wanted: tuple[type[e.Event], ...] = {
            "cancel": (e.RunCancelled, e.RunCancelling),
            "pause": (e.RunPaused,),
            "retry_run": (e.TaskReset,),
            "retry_task": (e.TaskReset,),
            "skip_task": (e.TaskSkipped,),
        }[kind]
        found = [event for event in events if isinstance(event, wanted) and getattr(event, "task", task) in (task, "")]
        if kind == "retry_run":
            found = [event for event in events if isinstance(event, wanted)]
        assert found, f"I13 {kind} of {run_id}/{task} was accepted and is not in the journal"

    async def read_along(self, lasts_s: float) -> None:
        """A subscriber that loses its connection now and then (I11)."""
        await asyncio.sleep(self.rng.uniform(0.0, lasts_s))
        while not self.journal.runs:  # noqa: ASYNC110 (nobody could set an event)
            await asyncio.sleep(0.5)
        run_id = self.rng.choice(list(self.journal.runs))
        if run_id.startswith(INSTANCE_PREFIX):
            await self._read_instance(run_id)
            return
        if not run_id.startswith("run_"):
            await self._read_live(run_id)
            return
        seen: list[int] = []
        while not (self.over and len(seen) >= self.journal.runs[run_id].version):
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(self.rng.uniform(0.5, 20.0)):
                    await self._read_once(run_id, seen)
            check_sequence(seen)
            await asyncio.sleep(self.rng.uniform(0.0, 1.0))
        assert len(seen) == self.journal.runs[run_id].version, f"I11 {run_id}: {seen}"

    async def _read_instance(self, run_id: str) -> None:
        """The same of an instance: numbers without a gap over all reconnects, and what they tell is one story."""
        seen: list[Frame] = []
        last = 0
        while not (self.over and last and len(seen) >= last):
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(self.rng.uniform(0.5, 20.0)):
                    instances = self.rng.choice(self.gateways).instances
                    snapshot, last, frames = await instances.open_events(TENANT, run_id, len(seen))
                    assert snapshot.instance_id == run_id
                    async for chunk in frames:
                        seen += [frame for frame in chunk if frame.seq is not None]
            await asyncio.sleep(self.rng.uniform(0.0, 1.0))
        check_sequence([frame.seq or 0 for frame in seen])
        check_instance_frames(seen)

    async def _read_live(self, run_id: str) -> None:
        """The same of a run of the runs surface, whose stream resumes by instants and does not end."""
        seen: list[CheckpointView] = []
        every: list[CheckpointView] = []
        while not (self.over and every and len(seen) >= len(every)):
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(self.rng.uniform(0.5, 20.0)):
                    await self._read_live_once(run_id, seen)
            await asyncio.sleep(self.rng.uniform(0.0, 1.0))
            every = await self._checkpoints(run_id) if self.over else []
        assert [each.id for each in seen] == [each.id for each in every], f"I11 {run_id}"

    async def _read_live_once(self, run_id: str, seen: list[CheckpointView]) -> None:
        live = self.rng.choice(self.gateways).live_runs
        since = seen[-1].at if seen else datetime.fromtimestamp(0, UTC)
        async for chunk in await live.open_events(TENANT, run_id, since, 10):
            told = [frame.data for frame in chunk if frame.kind == "checkpoint" and frame.data]
            seen += [CheckpointView(d["id"], run_id, datetime.fromisoformat(d["ts"]), d["type"]) for d in told]

    async def _read_once(self, run_id: str, seen: list[int]) -> None:
        gateway = self.rng.choice(self.gateways)
        frames = await gateway.open_events(TENANT, run_id, seen[-1] if seen else None)
        if frames is None:
            return
        async for chunk in frames:
            seen += [frame.seq for frame in chunk if frame.seq is not None]
            if chunk[-1].kind == "end":
                return


_REPROCESS = ("none", "none", "failed", "completed")


def _regions(rng: Random) -> tuple[Dimension, ...]:
    return (Dimension("", tuple(rng.sample(("ap", "eu", "sa", "us"), rng.randint(1, 4)))),)


def _day(number: int) -> str:
    return str(date(2026, 2, 1) + timedelta(days=number))


def random_plan(rng: Random) -> str:
    """Two phases of a few tasks, some with dependencies, some in a sequence."""
    lines = ["# Implementation Plan: Chance"]
    for phase in (1, 2):
        lines.append(f"## Phase {phase}: P{phase}")
        count = rng.randint(1, 4)
        if rng.random() < 0.4:
            lines.append(f"**Execution Note:** Tasks {phase}.1-{phase}.{count} are [SEQUENTIAL] - one file")
        for n in range(1, count + 1):
            needs = f" (depends: {phase}.{rng.randint(1, n - 1)})" if n > 1 and rng.random() < 0.4 else ""
            lines.append(f"- [{'x' if rng.random() < 0.1 else ' '}] {phase}.{n} Do it{needs}")
        if rng.random() < 0.3:
            lines.append(f"**VERIFY Phase {phase}:** looks good (non-blocking)")
    return "\n".join(lines)


def _random_tasks(rng: Random) -> tuple[TaskSpec, ...]:
    tasks: list[TaskSpec] = []
    for n in range(rng.randint(0 if rng.random() < 0.1 else 1, 5)):
        above = [f"t{i}" for i in range(n) if rng.random() < 0.4]
        inputs = {f"from_{name}": name for name in above if rng.random() < 0.5}
        if rng.random() < 0.2:
            tasks.append(_waiting_task(rng, f"t{n}", tuple(above)))
            continue
        tasks.append(
            TaskSpec(
                id=f"t{n}",
                type=rng.choice(("core.noop", "core.sleep")),
                depends_on=tuple(above),
                inputs=inputs,
                retries=rng.choice((0, 1, 3)),
                retry_delay_s=rng.choice((0.0, 0.2, 4.0)),
                timeout_s=rng.choice((2.0, 3600.0)),
                priority=rng.choice((0, 0, 5)),
            )
        )
    return tuple(tasks)


def _with_maps(rng: Random, tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
    """The same, in every other DAG with some of them mapped. What tasks return has three elements."""
    if rng.random() < 0.5:
        return tasks
    out = []
    for task in tasks:
        plain = not (task.branch or task.teardown_of or task.compensates or task.type in WAITING_TYPES)
        if plain and rng.random() < 0.5:
            source: object = rng.choice([*task.depends_on, *task.depends_on, ["x", "y"], [], {"$param": "none"}])
            if any(other.id == source and other.branch for other in tasks):
                source = ["x"]
            limit, tolerated = rng.choice((None, 1, 2)), rng.choice((0, 1, "100%"))
            task = msgspec.structs.replace(
                task, expand={"item": source}, max_active=limit, tolerated_failures=tolerated
            )
        out.append(task)
    return tuple(out)


def _waiting_task(rng: Random, name: str, above: tuple[str, ...]) -> TaskSpec:
    """A task that waits for time, a signal or people, for a few seconds at most."""
    match rng.choice(("core.wait", "core.signal", "core.approval")):
        case "core.wait":
            params: dict[str, Any] = {"seconds": rng.choice((0, 0.3, 3, 9))}
        case "core.signal":
            params = {"name": rng.choice(("go", "stop")), "timeout_s": rng.choice((2, 12))}
            params["on_timeout"] = rng.choice(("fail", "skip", {"value": None}))
        case _:
            params = {"prompt": "?", "quorum": rng.choice((1, 2)), "expires_s": rng.choice((2, 12))}
            params["on_expiry"] = rng.choice(("fail", "skip", "approve", "expired"))
    kind = "core.wait" if "seconds" in params else "core.signal" if "name" in params else "core.approval"
    return TaskSpec(id=name, type=kind, depends_on=above, params=params, priority=rng.choice((0, 5)))


def _with_deadlines(tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
    """The same, in every other DAG with SLAs and limits on waiting."""
    rng = Random(repr(tasks))
    if rng.random() < 0.5:
        return tasks
    actions = (("mark",), ("webhook",), ("mark", "webhook"), ("mark", "cancel", "webhook"))
    return tuple(
        msgspec.structs.replace(
            task,
            sla_s=rng.choice((None, 1, 4)),
            on_sla_miss=rng.choice(actions[:3] if task.expand else actions),
            queue_timeout_s=None if task.expand or task.type in WAITING_TYPES else rng.choice((None, None, 1.5)),
        )
        for task in tasks
    )


def _with_rules(rng: Random, tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
    """The same, in every other DAG with rules, branches, a teardown and compensations."""
    if not tasks or rng.random() < 0.5:
        return tasks
    out = []
    for task in tasks:
        below = [other.id for other in tasks if task.id in other.depends_on]
        task = msgspec.structs.replace(task, trigger_rule=rng.choice(get_args(TriggerRule)))
        if below and task.type not in WAITING_TYPES and rng.random() < 0.3:
            task = msgspec.structs.replace(task, branch=True, params={"ways": below})
        out.append(task)
    if setups := [task.id for task in out if not task.branch]:
        above = tuple(task.id for task in out if rng.random() < 0.4)
        out.append(TaskSpec(id="down", depends_on=above, teardown_of=(rng.choice(setups),), retry_delay_s=0.2))
    out += [TaskSpec(id=f"undo_{task.id}", compensates=task.id, retry_delay_s=0.2) for task in tasks[::3]]
    return tuple(out)
