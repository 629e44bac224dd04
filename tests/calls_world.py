"""A world whose tasks call other DAGs: whatever is killed, lost, late or twice, each call starts one run, and ends as
that does.

Three DAGs call downwards, some calls have a limit of their own, one of what does not end by itself, and one DAG calls
whatever its params say, itself among it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from random import Random
from typing import Any

from orchestrator import codec
from orchestrator import events as e
from orchestrator.calls import CALL
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import Refused
from orchestrator.rows import TERMINAL
from orchestrator.starts import Trigger
from tests.memory_ledger import KeptRun
from tests.world import World
from tests.world_clients import TENANT

LONG_S = 400.0


def a_call(rng: Random, name: str, dag_id: Any, *needs: str, **params: Any) -> TaskSpec:
    """A task that calls, perhaps not for longer than a while."""
    limit: dict[str, Any] = {"timeout_s": rng.choice((0.0, 0.5, 3.0))} if rng.random() < 0.2 else {}
    return TaskSpec(id=name, type=CALL, depends_on=needs, params={"dag_id": dag_id, **params, **limit})


def definitions(rng: Random) -> list[Definition]:
    """The DAGs of one world."""
    work = partial(TaskSpec, type="core.sleep", retries=1, retry_delay_s=0.2, timeout_s=60.0)
    low = (work(id="a"), work(id="b", depends_on=("a",)), work(id="c", depends_on=("a",)))
    middle = (work(id="first"), a_call(rng, "call", "low", "first"), work(id="last", depends_on=("call",)))
    high = (
        a_call(rng, "one", "middle"),
        a_call(rng, "two", "low", "one"),
        a_call(rng, "three", "middle", "one", window=None),
        TaskSpec(id="stuck", type=CALL, params={"dag_id": "stuck", "timeout_s": rng.choice((0.5, 3.0))}),
        work(id="take", depends_on=("two", "three"), inputs={"n": "two"}),
    )
    itself = (a_call(rng, "again", {"$param": "next", "default": "nobody"}, params={"next": {"$param": "next"}}),)
    return [
        Definition("low", "team", tasks=low, max_active_runs=rng.choice((2, 16))),
        Definition("middle", "team", tasks=middle),
        Definition("high", "team", tasks=high),
        Definition("stuck", "team", tasks=(TaskSpec(id="a", type="core.wait", params={"seconds": 1e6}),)),
        Definition("any", "team", tasks=itself),
    ]


class CallsWorld(World):
    """Plays one seed of it."""

    async def course(self, _world: World) -> None:
        """Runs that call, people who interfere, deaths."""
        rng = self.rng
        self.workers += [f"worker-default-{n}" for n in range(1, rng.randint(1, 4))]
        for name in self.workers[1:]:
            self.start(name)
        self.character.mischief.takes_s = (0.0, 0.001, 0.02, 0.1, 0.3, 1.0)
        self.character.mischief.error = 0.1
        for definition in definitions(rng):
            await self.clients.insist(partial(self.clients.define, definition))
        visits = self._some(self._visit, 8, 8.0)
        troubles = self._some(self._trouble, self.character.kills, 10.0)
        troubles += self._some(self._outage, self.character.outages, 10.0)
        await asyncio.gather(*visits, *troubles)
        self._clear_up()
        async with asyncio.timeout(LONG_S):
            while self.open() and not self.watcher.failures:  # noqa: ASYNC110 # nobody tells
                await asyncio.sleep(1.0)

    async def _visit(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        rng, gateway = self.rng, self.clients.gateways[0]
        dag = rng.choice(("middle", "high", "high", "any"))
        params = {"next": rng.choice(("any", "high", "nobody"))} if dag == "any" else {}
        window = ("2026-01-01", "2026-01-01") if rng.random() < 0.5 else (None, None)
        trigger = Trigger(dag_id=dag, params=params, start=window[0], end=window[1])
        made = await self.clients.insist(lambda: gateway.trigger(TENANT, trigger, None))
        if rng.random() < 0.7:
            await asyncio.sleep(rng.uniform(0.0, 4.0))
            others = [i for i, run in self.journal.runs.items() if run.dag_id != "stuck"]  # a retry would revive it
            await self._interfere(rng.choice(others) if rng.random() < 0.5 else made.run_id)

    async def _interfere(self, run_id: str) -> None:
        rng, gateway = self.rng, self.clients.gateways[0]
        run = self.journal.runs[run_id]
        task = rng.choice(list(run.tasks) or ["first"])
        commands: list[Any] = [
            partial(gateway.cancel_run, TENANT, run_id, None),
            partial(gateway.cancel_run, TENANT, run_id, None),
            partial(gateway.skip_task, TENANT, run_id, task, None),
            partial(gateway.retry_task, TENANT, run_id, task, None),
            partial(gateway.retry_run, TENANT, run_id, None),
        ]
        try:
            await self.clients.insist(rng.choice(commands))
        except Refused:
            return

    # ── what must hold at the end ──

    def check(self) -> Counter[str]:
        """Each call started at most one run, and ended as that did; how often what happened."""
        seen: Counter[str] = Counter()
        known = {run.run_id for run in self.journal.runs.values()}
        called: set[str] = set()
        for run in self.journal.runs.values():
            for task, call, end in self._calls(run):
                assert call.run_id not in called, f"{call.run_id} is called twice"
                called.add(call.run_id)
                seen[self._judge(run, task, call, end, call.run_id in known)] += 1
        children = {run_id for run_id, run in self.journal.runs.items() if run.caller}
        assert children <= called, f"nobody calls {children - called}"
        return seen

    def _judge(self, run: KeptRun, task: str, call: e.Call, end: e.Event, exists: bool) -> str:
        where = f"{run.run_id}/{task} calls {call.run_id}, and then {end}"
        assert call.chain[-1] == run.dag_id, where
        if not exists:
            told = getattr(end, "error", "")
            assert not isinstance(end, e.TaskSucceeded), where
            assert "RunFailed" not in told, where
            return "unknown" if "NotFound" in told else "not started"
        child = self.journal.runs[call.run_id]
        created = self._events(child)[0]
        assert isinstance(created, e.RunCreated)
        assert created.called_by is not None
        assert (created.called_by.run_id, created.called_by.task) == (run.run_id, task), where
        assert created.called_by.chain == call.chain, where
        assert child.state in TERMINAL, where
        assert not self.journal.replaced_runs, "somebody is still to be cancelled"
        states = {type(event) for event in self._events(child)}
        if isinstance(end, e.TaskSucceeded):
            assert e.RunSucceeded in states, where
            return "succeeded"
        if isinstance(end, e.TaskFailed) and "RunFailed" in end.error:
            assert states & {e.RunFailed, e.RunCancelled}, where
            return "failed"
        return "timed out" if isinstance(end, e.TaskFailed) else "given up"

    def _calls(self, run: KeptRun) -> list[tuple[str, e.Call, e.Event]]:
        """(task, call, how the wait for it ended)."""
        open_: dict[str, e.Call] = {}
        found = []
        for event in self._events(run):
            if isinstance(event, e.TaskWaiting) and event.wait.call is not None:
                assert event.task not in open_
                open_[event.task] = event.wait.call
            elif getattr(event, "task", None) in open_:
                found.append((event.task, open_.pop(event.task), event))  # type: ignore[attr-defined]  # it has a task
        assert not open_, f"{run.run_id} waits for {open_}"
        return found

    def _events(self, run: KeptRun) -> list[e.Event]:
        return [event for batch in run.events for event in codec.decode_events(batch.events, batch.schema)]


def play(seed: int) -> Counter[str]:
    """One world, from its seed: how often what became of a call."""
    world = CallsWorld(seed)
    where = f"seed {seed}, kills {world.character.kills}, passivate {world.settings.passivate_after_s}"
    with world._crashes_noticed():
        world.play_with(world.course)
    assert not world.watcher.failures, f"{where}: {world.watcher.failures[0]}"
    return world.check()
