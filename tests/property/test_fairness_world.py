"""A large backfill beside a cron and three tenants, in virtual time with the real shells.

Tasks take 25 to 35 ms on 64 worker slots, or 24, or 4; messages and the journal take their time, too
(`world_wire.py`). Tenant `a` weighs 1 and has the backfill, a cron of every minute, and ten runs by hand a second;
`b` weighs 2 and `c` weighs 1, and both have more ready tasks than they can ever get done: of runs by hand, or of
backfills where those leave slots free.

What is measured: of each run of the cron and by hand, the seconds from when it was due (its minute; the request) to the
start of its task's code, before there is any load and beside it. Runs by hand are nearly all of them: a cron fires once
or twice in a course, and both classes are treated alike (`WAKES`). Shares are of seconds for which tasks ran.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from statistics import quantiles

import msgspec
import pytest

from orchestrator import codec
from orchestrator.definition import Definition, TaskSpec
from orchestrator.headroom import spares
from orchestrator.messages import Assignment, RunContext
from orchestrator.records import TENANT_SHARES
from orchestrator.starts import Trigger
from serve_app.gateway import Gateway
from tests.property.test_shares_laws import bound
from tests.virtual_time import START
from tests.world import World
from tests.world_cast import Behaviour, Mischief

TAKES_S = (0.025, 0.0275, 0.03, 0.0325, 0.035)
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 1.0}


@dataclass(frozen=True)
class Course:
    """How much of everything, and for how many seconds."""

    windows: int
    workers: int
    idle_s: float
    settle_s: float
    loaded_s: float
    #: the backfill and the other tenants have tasks with limits: slots that are leased for them do nothing else
    limited: bool = False
    #: what the other tenants have to do are backfills, too; else runs by hand
    others_backfill: bool = False
    #: slots that backfills leave free
    headroom: int = 0


SMALL = Course(windows=4_000, workers=64, idle_s=6.0, settle_s=2.0, loaded_s=5.0)
LIMITED = Course(windows=2_000, workers=24, idle_s=6.0, settle_s=2.0, loaded_s=8.0, limited=True)
LARGE = Course(windows=10_000, workers=64, idle_s=70.0, settle_s=5.0, loaded_s=12.0)
#: with headroom
FEW = Course(windows=1_000, workers=4, idle_s=6.0, settle_s=2.0, loaded_s=10.0, others_backfill=True, headroom=1)
SOME = replace(FEW, windows=4_000, workers=24)
MANY = replace(LARGE, others_backfill=True, headroom=1)
KEPT_LIMITED = replace(LIMITED, others_backfill=True, headroom=1)


def _dag(
    dag_id: str, tasks: int = 1, schedule: str | None = None, limit: int = 16, max_active_tasks: int | None = None
) -> Definition:
    specs = tuple(TaskSpec(id=f"t{n}", type="core.sleep") for n in range(tasks))
    made = Definition(dag_id=dag_id, owner="team", tasks=specs, schedule=schedule, max_active_runs=limit)
    return msgspec.structs.replace(made, max_active_tasks=max_active_tasks)


@dataclass
class Story:
    """What was measured."""

    #: seconds from being due to the start of the first task
    idle_s: list[float] = field(default_factory=list)
    loaded_s: list[float] = field(default_factory=list)
    #: (tenant, run type) -> seconds for which its tasks ran
    used_s: dict[tuple[str, str], float] = field(default_factory=dict)
    windows_done: int = 0
    #: most tasks of backfills at a time
    backfills: int = 0

    def part(self, *names: str) -> float:
        """Of all seconds, those of the tenant, or of its runs of that type."""
        mine = sum(seconds for key, seconds in self.used_s.items() if key[: len(names)] == names)
        return mine / sum(self.used_s.values())


@dataclass
class Meter(Mischief):
    """User code that only takes its time, and whose time that was."""

    used_s: Counter[tuple[str, str]] = field(default_factory=Counter)
    now: tuple[str, str] = ("", "")
    run_types: Callable[[str], str] = str
    clock: Callable[[], float] = float
    #: run -> when the code of its first task began
    began_s: dict[str, float] = field(default_factory=dict)
    #: when tasks of backfills end that are under way, and the most there were
    ends_s: list[float] = field(default_factory=list)
    backfills: int = 0

    def began(self, _worker: str, task: Assignment, run: RunContext | None) -> None:
        """It is drawn for this attempt next."""
        assert run is not None
        self.now = run.tenant, self.run_types(task.run_id)
        self.began_s.setdefault(task.run_id, self.clock())

    def draw(self, rng: Random) -> Behaviour:
        takes_s = rng.choice(TAKES_S)
        self.used_s[self.now] += takes_s  # type: ignore[assignment]  # a Counter of seconds
        if self.now[1] == "backfill":
            now_s = self.clock()
            self.ends_s = [*(each for each in self.ends_s if each > now_s), now_s + takes_s]
            self.backfills = max(self.backfills, len(self.ends_s))
        return Behaviour(takes_s)


def p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]


class Fair:
    """One course of the world."""

    def __init__(self, world: World, course: Course) -> None:
        self.world = world
        self.course = course
        self.gateway: Gateway = world._gateway()
        self.journal = world.journal
        self.meter = Meter(run_types=self._run_type, clock=world.loop.time)
        self.story = Story()
        self.triggered: dict[str, float] = {}
        self.since_s = 0.0

    def _run_type(self, run_id: str) -> str:
        run = self.journal.runs[run_id]
        return "backfill" if run.parent else run.run_type

    async def play(self, world: World) -> Story:
        await self._define()
        await self._wait(self.course.idle_s)
        self.story.idle_s = self._start_delays()
        self.triggered.clear()
        await self._load()
        await self._wait(self.course.settle_s)
        self.triggered.clear()
        self.meter.used_s.clear()
        self.since_s = world.loop.time()
        await self._wait(self.course.loaded_s)
        self.story.loaded_s = self._start_delays()
        self.story.used_s = dict(self.meter.used_s)
        done = [run for run in self.journal.runs.values() if run.parent and run.state == "succeeded"]
        self.story.windows_done, self.story.backfills = len(done), self.meter.backfills
        return self.story

    async def _define(self) -> None:
        await self.world.journal.put_records(TENANT_SHARES, {t: codec.encode_share(w) for t, w in WEIGHTS.items()})
        self.world.kill("scheduler")
        await asyncio.sleep(20.0)
        most = 1000 if self.course.limited else None
        for tenant, dag in (
            ("a", _dag("cron", schedule="* * * * *")),
            ("a", _dag("hand")),
            ("a", _dag("filled", limit=64, max_active_tasks=most)),
            ("b", _dag("wide", 2500, max_active_tasks=most)),
            ("c", _dag("wide", 2500, max_active_tasks=most)),
        ):
            await self.gateway.define_dag(tenant, dag, keep_tasks=False, expect=None, idem=None)

    async def _wait(self, seconds: float) -> None:
        """Trigger by hand now and then; the loop may go on for as long as it takes."""
        until = self.world.loop.time() + seconds
        while self.world.loop.time() < until:
            self.world.loop.rounds = 0
            asked_s = self.world.loop.time()
            made = await self.gateway.trigger("a", Trigger(dag_id="hand"), None)
            self.triggered[made.run_id] = asked_s
            await asyncio.sleep(0.1)

    async def _load(self) -> None:
        for tenant, runs in (("b", 10), ("c", 6)):
            if self.course.others_backfill:
                wide = Trigger(dag_id="wide", run_type="backfill", start="1990-01-01", end=_day(runs))
                await self.gateway.trigger(tenant, wide, None)
                continue
            for _ in range(runs):
                await self.gateway.trigger(tenant, Trigger(dag_id="wide"), None)
        wanted = Trigger(dag_id="filled", run_type="backfill", start="1990-01-01", end=_day(self.course.windows))
        await self.gateway.trigger("a", wanted, None)

    def _start_delays(self) -> list[float]:
        """Of runs by hand since they were asked for, of the cron since its minute."""
        due_s = dict(self.triggered)
        for run_id, run in self.journal.runs.items():
            if run.run_type == "scheduled" and self.meter.began_s.get(run_id, 0.0) >= self.since_s:
                due_s[run_id] = run.created_ms // 60_000 * 60 - START.timestamp()
        return [self.meter.began_s[run_id] - due for run_id, due in due_s.items() if run_id in self.meter.began_s]


def _day(number: int) -> str:
    from datetime import date, timedelta

    return str(date(1990, 1, 1) + timedelta(days=number - 1))


def story(course: Course, seed: int = 0) -> Story:
    world = World(seed)
    world.settings = replace(world.settings, backfill_headroom=str(course.headroom))
    world.workers += [f"worker-default-{n}" for n in range(len(world.workers), course.workers)]
    world.watcher.written = lambda: None  # type: ignore[method-assign]  # it reads every event again; not our subject
    fair = Fair(world, course)
    world.watcher.began = fair.meter.began  # type: ignore[method-assign]  # a stand-in, in this one object

    async def play(world: World) -> Story:
        world.workers += [f"worker-default-{n}" for n in range(1, course.workers)]
        for name in world.workers[1:]:
            world.start(name)
        return await fair.play(world)

    return world.play_with(play, fair.meter)


def longest_wait_s(course: Course) -> float:
    """What a run by hand waits for a slot at most, as docs/fairness.md says, beside all that goes on here.

    That is for an open slot, among all, or for a kept one, among those that are not of backfills.
    """
    leaves = [
        (t, c, d) for t, c, d in (("a", "scheduled", "cron"), ("a", "manual", "hand"), ("a", "backfill", "filled"))
    ]
    kind = "backfill" if course.others_backfill else "manual"
    leaves += [("b", kind, "wide"), ("c", kind, "wide")]
    weights = {("b",): 2.0, ("a", "scheduled"): 4.0, ("a", "manual"): 4.0}
    hand, takes_s = ("a", "manual", "hand"), max(TAKES_S)
    longest_s = bound(weights, leaves, hand, course.workers - course.headroom, takes_s)
    if not course.headroom:
        return longest_s
    return min(longest_s, bound(weights, [leaf for leaf in leaves if not spares(leaf)], hand, course.headroom, takes_s))


def measured(course: Course) -> Story:
    """What happened, printed, and held to what holds in every course."""
    told = story(course)
    print(
        f"{len(told.loaded_s)} starts, p95 {p95(told.idle_s) * 1e3:.1f} ms idle, {p95(told.loaded_s) * 1e3:.1f} ms "
        f"loaded, longest {max(told.loaded_s) * 1e3:.1f} ms (bound {longest_wait_s(course) * 1e3:.1f} ms + idle); "
        f"parts { {tenant: round(told.part(tenant), 4) for tenant in WEIGHTS} }; windows done {told.windows_done}; "
        f"slots used {sum(told.used_s.values()) / course.loaded_s:.2f} of {course.workers}"
    )
    assert told.windows_done < course.windows, "nothing was left to compete with"
    assert max(told.loaded_s) <= longest_wait_s(course) + max(told.idle_s)
    return told


@pytest.mark.parametrize("course", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"])
def test_a_large_backfill_starves_nobody_and_is_not_starved(course: Course) -> None:
    told = measured(course)
    for tenant, weight in WEIGHTS.items():
        assert told.part(tenant) == pytest.approx(weight / 4, rel=0.05), tenant
    assert p95(told.loaded_s) < 2 * p95(told.idle_s)
    assert told.part("a", "backfill") > 0.2, "it has all that its tenant's other runs leave"


@pytest.mark.parametrize(
    "course",
    [FEW, *(pytest.param(each, marks=pytest.mark.slow) for each in (SOME, MANY, KEPT_LIMITED))],
    ids=["few", "some", "many", "limited"],
)
def test_a_run_finds_a_slot_that_backfills_left_free_and_those_have_the_others_by_weight(course: Course) -> None:
    told = measured(course)
    assert p95(told.loaded_s) < 2 * p95(told.idle_s)
    assert told.backfills == course.workers - course.headroom, "all but the headroom, and never more"
    backfills_s = {tenant: told.used_s[tenant, "backfill"] for tenant in WEIGHTS}
    print(f"backfills {backfills_s}")
    for tenant, weight in WEIGHTS.items():
        due = pytest.approx(weight / 4, rel=0.1 if course.limited else 0.05)
        assert backfills_s[tenant] / sum(backfills_s.values()) == due, tenant


@pytest.mark.slow
def test_beside_slots_that_are_leased_for_tasks_with_limits_nobody_waits_longer_than_the_bound() -> None:
    told = measured(LIMITED)
    for tenant, weight in WEIGHTS.items():
        assert told.part(tenant) == pytest.approx(weight / 4, rel=0.1), tenant
