"""actors.supervisor: which actors ought to exist, and who may end those that are there for one run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from actors import supervisor as supervision
from actors.names import pool_of
from actors.peers import WorkerGone
from actors.pools import Request
from actors.settings import Settings
from actors.supervisor import Supervisor
from orchestrator import actor_codec, codec
from orchestrator.control import PoolLoad, Roster
from orchestrator.errors import ActorUnreachable, Invalid, JournalUnavailable, NotFound, Unavailable
from orchestrator.pools import PoolSpec
from orchestrator.rows import OwnerRow, RunRow
from orchestrator.streams import inbox

OWN = "orchestrator:orch-1"


class FakeStage:
    """Actors by name."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.specs: dict[str, PoolSpec | None] = {}
        #: actors on nodes that drain, and what Ray's autoscaler was told
        self.departing: set[str] = set()
        self.requests: list[Request] = []

    def present(self) -> set[str]:
        return set(self.names)

    def start(self, name: str, pool: str | None, spec: PoolSpec | None = None) -> None:
        self.names.add(name)
        self.specs[name] = spec

    def end(self, name: str) -> None:
        self.names.discard(name)

    def revive_journal(self) -> None:
        raise AssertionError("it is not ours")

    def leaving(self) -> set[str]:
        return self.departing

    def request(self, room: Request) -> None:
        self.requests.append(room)


class NoPeers:
    """Nobody answers."""

    async def tell(self, actor: str, method: str, blob: bytes) -> None:
        raise ActorUnreachable(actor, "told to fail")

    async def ask(self, actor: str, method: str, blob: bytes) -> bytes:
        raise ActorUnreachable(actor, "asked to fail")

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        raise WorkerGone(worker, "it was never there")


class FakeFacts:
    """The journal: who had which name, and where its inbox is."""

    def __init__(self, epochs: dict[str, int] | None = None, newest: dict[str, str] | None = None) -> None:
        self.epochs, self.newest, self.down = epochs or {}, newest or {}, False
        self.kept: dict[str, bytes] = {}
        self.counts: list[tuple[str, int]] = []
        #: run -> version and state
        self.runs: dict[str, tuple[int, str]] = {}

    async def summary(self, run_id: str) -> RunRow | None:
        self._check()
        if run_id not in self.runs:
            return None
        version, state = self.runs[run_id]
        return RunRow(run_id, version, "", state, "t", "d", 1, *("",) * 3, 0, 0, *(None,) * 3, "", None, False, "", ())

    async def ping(self) -> bool:
        return not self.down

    async def owner(self, owner: str) -> OwnerRow:
        if self.down:
            raise JournalUnavailable("told to fail")
        return OwnerRow(self.epochs.get(owner, 0), 0, "0-0")

    async def position(self, stream: str) -> str:
        return self.newest.get(stream, "0-0")

    async def put_records(self, kind: str, records: Mapping[str, bytes | None]) -> None:
        self._check()
        for key, record in records.items():
            if record is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = record

    async def record(self, kind: str, key: str) -> bytes | None:
        self._check()
        return self.kept.get(key)

    async def records(self, kind: str) -> dict[str, bytes]:
        self._check()
        return dict(self.kept)

    async def count(self, counts: Sequence[tuple[str, int]]) -> None:
        self._check()
        self.counts += counts

    def _check(self) -> None:
        if self.down:
            raise JournalUnavailable("told to fail")


def supervisor(
    stage: FakeStage, journal: FakeFacts | None = None, peers: NoPeers | None = None, **settings: Any
) -> Supervisor:
    known: Any = peers or NoPeers()
    made = Settings(redis_url="redis://x", run_actors_max=2, workers=1, **settings)
    return Supervisor(stage, known, journal or FakeFacts(), made)


def asked(epoch: int, name: str = OWN, number: int = 0) -> bytes:
    return actor_codec.encode_supervision(epoch << 32 | number, name)


async def test_the_cast_is_the_scheduler_the_run_actors_and_the_workers() -> None:
    stage = FakeStage()
    await supervisor(stage).ensure(asked(1))
    assert stage.names == {OWN, "scheduler", "run-actor-0", "run-actor-1", "worker-default-0"}


async def one_round(made: Supervisor) -> None:
    """It looks for work outside the cluster, and then for gaps."""
    await made._find_outside_work()
    await made.ensure(asked(1))


@pytest.mark.parametrize(
    "journal",
    [FakeFacts(epochs={"gateway-0.jobs": 1}), FakeFacts(newest={inbox("gateway-0.pipelines"): "7-0"})],
    ids=["it was there before", "something waits for it"],
)
async def test_the_gateway_is_there_once_the_journal_knows_of_work_for_it(journal: FakeFacts) -> None:
    stage = FakeStage()
    await one_round(supervisor(stage, journal))
    assert "gateway-0" in stage.names


async def test_nothing_but_dags_needs_no_gateway() -> None:
    stage = FakeStage()
    await one_round(supervisor(stage))
    assert "gateway-0" not in stage.names


async def test_the_rest_of_the_cast_comes_while_the_journal_is_down() -> None:
    stage, journal = FakeStage(), FakeFacts()
    journal.down = True
    await one_round(supervisor(stage, journal))
    assert "scheduler" in stage.names
    assert "gateway-0" not in stage.names


async def test_the_gateway_comes_when_asked_for_and_is_kept_from_then_on() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    await made.open_gateway(b"")
    assert "gateway-0" in stage.names
    stage.end("gateway-0")
    await made.ensure(asked(1))
    assert "gateway-0" in stage.names


async def test_a_new_supervisor_keeps_the_gateway_that_lives() -> None:
    stage = FakeStage("gateway-0", "scheduler")
    made = supervisor(stage)
    await made.ensure(asked(1))
    stage.end("gateway-0")
    await made.ensure(asked(1))
    assert "gateway-0" in stage.names


@pytest.mark.parametrize("settings", [{"blueprints_dir": "/b"}, {"pipelines_incluster_runners": 1}])
async def test_blueprints_and_runners_need_the_gateway_from_the_start(settings: dict[str, Any]) -> None:
    stage = FakeStage()
    await supervisor(stage, **settings).ensure(asked(1))
    assert "gateway-0" in stage.names


@pytest.mark.parametrize("there", [True, False])
async def test_the_kubernetes_actor_is_there_when_a_cluster_is(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(supervision, "configured", lambda _: there)
    stage = FakeStage()
    await supervisor(stage).ensure(asked(1))
    assert ("kubernetes" in stage.names) is there


async def test_an_actor_for_one_run_comes_and_goes() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    await made.ensure(asked(1))
    assert {OWN, "scheduler", "run-actor-0", "run-actor-1", "worker-default-0"} <= stage.names
    await made.release(asked(1))
    assert OWN not in stage.names
    await made.ensure(asked(1, "run:x"))
    assert OWN not in stage.names


async def test_a_former_scheduler_neither_starts_nor_ends_one() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    await made.ensure(asked(2))
    await made.release(asked(1))
    assert OWN in stage.names
    await made.tell_roster(asked(3, ""))
    await made.release(asked(2))
    await made.ensure(asked(2, "run:x"))
    assert OWN in stage.names
    assert "run:x" not in stage.names


async def test_an_order_that_was_overtaken_has_no_effect() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    await made.ensure(asked(1, number=1))
    await made.ensure(asked(1, number=3))
    await made.release(asked(1, number=2))
    assert OWN in stage.names


async def test_a_standing_actor_is_never_released() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    await made.ensure(asked(1))
    await made.release(asked(1, "run-actor-0"))
    assert "run-actor-0" in stage.names


@pytest.mark.parametrize("name", [OWN, "run:x"])
async def test_a_new_supervisor_keeps_those_that_live(name: str) -> None:
    stage = FakeStage(name)
    made = supervisor(stage)
    await made.tell_roster(asked(1, ""))
    stage.names.clear()  # it crashed for good
    await made.ensure(asked(1, "run:another"))
    assert name in stage.names


async def test_a_pool_of_any_good_name_is_scaled_and_its_size_outlives_everything() -> None:
    stage, journal = FakeStage(), FakeFacts()
    made = supervisor(stage, journal)
    with pytest.raises(Invalid):
        await made.scale(actor_codec.encode_scale("no good", 1))
    await made.scale(actor_codec.encode_scale("gpu-big", 2))
    assert {"worker-gpu-big-0", "worker-gpu-big-1", "worker-default-0"} <= stage.names
    stage.names.clear()  # down and up
    await supervisor(stage, journal).ensure(asked(1))
    assert {"worker-gpu-big-0", "worker-gpu-big-1", "worker-default-0"} <= stage.names
    assert pool_of("worker-gpu-big-2") == "gpu-big"


async def test_what_cannot_be_read_of_pools_is_not_overwritten() -> None:
    class Blinking(FakeFacts):
        reads = 0

        async def records(self, kind: str) -> dict[str, bytes]:
            self.reads += 1
            if self.reads == 1:
                raise JournalUnavailable("told to fail")
            return await super().records(kind)

    for change in ("scale", "set_pool"):
        stage, journal = FakeStage(), Blinking()
        former = PoolSpec(num_gpus=1.0, max=4, generation=2)
        journal.kept["gpu"] = codec.encode_pool(former)
        made = supervisor(stage, journal)
        if change == "scale":
            await made.scale(actor_codec.encode_scale("gpu", 3))
        else:
            await made.set_pool(actor_codec.encode_pool_change("gpu", PoolSpec(num_gpus=1.0, min=3, max=3)))
        assert codec.decode_pool(journal.kept["gpu"]) == PoolSpec(num_gpus=1.0, min=3, max=3, generation=2)


async def test_a_new_supervisor_tells_of_workers_and_pools_from_the_first_question_on() -> None:
    journal = FakeFacts()
    journal.kept["gpu"] = codec.encode_pool(PoolSpec(min=1, max=4))
    names = ("worker-default-0", "worker-gpu-0")
    [drained] = actor_codec.decode_workers(await supervisor(FakeStage(*names), journal).drain(b"worker-gpu-0"))
    assert (drained.worker_id, drained.state) == ("worker-gpu-0", "draining")
    workers = actor_codec.decode_workers(await supervisor(FakeStage(*names), journal).workers(b""))
    assert [each.worker_id for each in workers] == list(names)
    pools = actor_codec.decode_pool_views(await supervisor(FakeStage(*names), journal).pools(b""))
    assert [(each.name, each.defined, each.workers) for each in pools] == [("default", False, 1), ("gpu", True, 1)]


async def test_pools_that_cannot_be_read_are_not_told_to_be_undefined() -> None:
    journal = FakeFacts()
    journal.kept["gpu"], journal.down = codec.encode_pool(PoolSpec(max=4)), True
    with pytest.raises(JournalUnavailable):
        await supervisor(FakeStage(), journal).pools(b"")


class Scheduler(NoPeers):
    """The scheduler alone answers: how pools are, and what each slot is at."""

    def __init__(self) -> None:
        self.loads: list[PoolLoad] = []
        self.states: dict[str, str] = {}
        self.asked: list[str] = []
        self.roster: Roster | None = None

    async def tell(self, actor: str, method: str, blob: bytes) -> None:
        self.roster = actor_codec.decode_roster(blob)

    async def ask(self, actor: str, method: str, blob: bytes) -> bytes:
        self.asked.append(method)
        if method == "pool_loads":
            return actor_codec.encode_pool_loads(self.loads)
        return actor_codec.encode_states({name: self._word(name, state) for name, state in self.states.items()})

    def _word(self, worker: str, state: str) -> str:
        told = self.roster is not None and worker in self.roster.draining
        return {"idle": "draining", "busy": "draining_busy"}[state] if told else state


ELASTIC = actor_codec.encode_pool_change("gpu", PoolSpec(max=4, num_gpus=1.0, idle_timeout_s=0.0))


async def rounds(made: Supervisor, count: int = 1) -> None:
    """What the loop does, at once."""
    for _ in range(count):
        for phase in (
            made._leave_nodes,
            made._follow_load,
            made._fill_gaps,
            made._shed,
            made._tell_scheduler,
            made._retire,
            made._tell_scheduler,
            made._request_room,
        ):
            await made._phase(phase)


async def test_an_elastic_pool_has_workers_while_tasks_wait_and_is_then_left_alone() -> None:
    stage, scheduler = FakeStage(), Scheduler()
    made = supervisor(stage, peers=scheduler)
    view = actor_codec.decode_pool_views(await made.set_pool(ELASTIC))[0]
    assert (view.name, view.wanted, view.spec.max) == ("gpu", 0, 4)
    assert scheduler.roster is not None
    assert scheduler.roster.elastic == ("gpu",)
    await made.demand(actor_codec.encode_pool_loads([PoolLoad("gpu", waiting=3)]))
    scheduler.loads = [PoolLoad("gpu", busy=3, slots=3)]
    await rounds(made)
    workers = {"worker-gpu-0", "worker-gpu-1", "worker-gpu-2"}
    assert workers <= stage.names
    assert stage.specs["worker-gpu-0"] == made._pools.spec("gpu")
    scheduler.loads, scheduler.states = [PoolLoad("gpu", slots=3)], dict.fromkeys(workers, "idle")
    await rounds(made, 3)
    assert not workers & stage.names
    scheduler.asked.clear()
    await rounds(made, 3)
    assert scheduler.asked == []


async def test_pools_follow_their_load_although_demand_for_another_one_comes_all_the_time() -> None:
    stage, scheduler = FakeStage(), Scheduler()
    made = supervisor(stage, peers=scheduler)
    await made.set_pool(actor_codec.encode_pool_change("busy", PoolSpec(min=1, max=4)))
    await made.set_pool(actor_codec.encode_pool_change("restless", PoolSpec(min=1, max=4)))
    scheduler.loads = [PoolLoad("busy", waiting=3, waiting_s=30.0, busy=1, slots=1)]
    for _ in range(3):
        await made.demand(actor_codec.encode_pool_loads([PoolLoad("restless", waiting=1)]))
        await rounds(made)
    assert {f"worker-busy-{n}" for n in range(4)} <= stage.names


async def test_what_was_said_of_a_pool_is_remembered_once() -> None:
    made = supervisor(FakeStage(), peers=Scheduler())
    for waiting in (1, 2, 3):
        await made.demand(actor_codec.encode_pool_loads([PoolLoad("gpu", waiting), PoolLoad("cpu", waiting)]))
    assert sorted(made._demand.values(), key=lambda load: load.pool) == [PoolLoad("cpu", 3), PoolLoad("gpu", 3)]


async def test_demand_that_cannot_be_looked_up_is_looked_up_in_the_next_round() -> None:
    stage, scheduler, journal = FakeStage(), Scheduler(), FakeFacts()
    made = supervisor(stage, journal, peers=scheduler)
    await rounds(made)
    journal.kept["late"] = codec.encode_pool(PoolSpec(max=1))
    journal.down = True
    await made.demand(actor_codec.encode_pool_loads([PoolLoad("late", waiting=1)]))
    await rounds(made)
    assert "worker-late-0" not in stage.names
    journal.down = False
    await rounds(made)
    assert "worker-late-0" in stage.names


async def test_workers_on_a_node_that_drains_finish_and_others_take_their_place() -> None:
    stage, scheduler = FakeStage(), Scheduler()
    made = supervisor(stage, peers=scheduler, ray_address="auto")
    await rounds(made)
    stage.departing = {"worker-default-0", "supervisor"}
    scheduler.states = {"worker-default-0": "busy"}
    await rounds(made, 2)
    assert {"worker-default-0", "worker-default-1"} <= stage.names
    assert scheduler.roster is not None
    assert scheduler.roster.draining == ("worker-default-0",)
    scheduler.states = {"worker-default-0": "idle"}
    await rounds(made)
    assert "worker-default-0" not in stage.names
    assert "worker-default-1" in stage.names


async def test_workers_that_are_to_end_stay_while_a_new_scheduler_does_not_know_who_works() -> None:
    class New(Scheduler):
        rebuilt = False

        async def ask(self, actor: str, method: str, blob: bytes) -> bytes:
            if method == "pool_loads" and not self.rebuilt:
                raise Unavailable("the scheduler has not heard of everybody yet")
            return await super().ask(actor, method, blob)

    stage, scheduler = FakeStage(), New()
    made = supervisor(stage, peers=scheduler, ray_address="auto")
    await rounds(made)
    stage.departing = {"worker-default-0"}
    await rounds(made, 2)
    assert "worker-default-0" in stage.names
    scheduler.rebuilt = True
    await rounds(made)
    assert "worker-default-0" not in stage.names


async def test_a_worker_that_works_stays_although_the_scheduler_is_replaced_between_two_questions() -> None:
    class Replaced(Scheduler):
        questions_left = 1_000

        async def ask(self, actor: str, method: str, blob: bytes) -> bytes:
            self.questions_left -= 1
            if self.questions_left >= 0:
                return await super().ask(actor, method, blob)
            if method == "pool_loads":
                raise Unavailable("the scheduler has not heard of everybody yet")
            return actor_codec.encode_states({})

    stage, scheduler = FakeStage(), Replaced()
    made = supervisor(stage, peers=scheduler, ray_address="auto")
    await rounds(made)
    stage.departing, scheduler.states = {"worker-default-0"}, {"worker-default-0": "busy"}
    await rounds(made, 2)
    scheduler.questions_left = 1
    await made._phase(made._retire)
    assert "worker-default-0" in stage.names


async def test_a_worker_that_the_scheduler_may_still_give_work_is_not_ended() -> None:
    class Cut(Scheduler):
        reached = False

        async def tell(self, actor: str, method: str, blob: bytes) -> None:
            if not self.reached:
                raise ActorUnreachable(actor, "told to fail")
            await super().tell(actor, method, blob)

    stage, scheduler = FakeStage(), Cut()
    made = supervisor(stage, peers=scheduler, ray_address="auto")
    await rounds(made)
    stage.departing, scheduler.states = {"worker-default-0"}, {"worker-default-0": "idle"}
    await rounds(made, 2)
    assert "worker-default-0" in stage.names
    scheduler.reached = True
    await rounds(made)
    assert "worker-default-0" not in stage.names


class HeldStage(FakeStage):
    """Ray cannot be asked while its GCS is away: nobody is found, and so nobody ended."""

    away = True

    def end(self, name: str) -> None:
        if self.away:
            raise RuntimeError("GCS is away")
        super().end(name)


async def test_a_worker_that_could_not_be_ended_is_ended_in_the_next_round() -> None:
    stage, scheduler = HeldStage(), Scheduler()
    made = supervisor(stage, peers=scheduler)
    await made.scale(actor_codec.encode_scale("default", 2))
    scheduler.states = dict.fromkeys(("worker-default-0", "worker-default-1"), "idle")
    await made.scale(actor_codec.encode_scale("default", 0))
    await rounds(made)
    assert {"worker-default-0", "worker-default-1"} <= stage.names
    assert await made.ping() == 2
    stage.away = False
    await rounds(made)
    assert not {"worker-default-0", "worker-default-1"} & stage.names
    assert await made.ping() == 0


async def test_actors_of_single_runs_end_although_nobody_told_that_these_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "LEFTOVERS_S", 0.0)
    stage, journal = FakeStage("run:gone", "run:ended", "run:retried", "run:at-work", OWN), FakeFacts()
    journal.runs = {"run_ended": (7, "failed"), "run_retried": (7, "failed"), "run_at-work": (3, "running")}
    made = supervisor(stage, journal, Scheduler())
    await rounds(made)
    journal.down = True
    await made._phase(made._end_leftovers)
    journal.down = False
    await made._phase(made._end_leftovers)
    assert {"run:gone", "run:ended"} <= stage.names, "one look is not enough: the scheduler may tell yet"
    journal.runs["run_retried"] = (9, "failed")  # it is queued no more, but was
    await made._phase(made._end_leftovers)
    assert stage.names & {"run:gone", "run:ended", "run:retried", "run:at-work", OWN} == {
        "run:retried",
        "run:at-work",
        OWN,
    }


async def test_a_run_that_is_retried_while_its_actor_ends_gets_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "LEFTOVERS_S", 0.0)
    journal = FakeFacts()

    class Retried(FakeStage):
        def end(self, name: str) -> None:
            super().end(name)
            journal.runs["run_x"] = (8, "queued")

    stage = Retried("run:x")
    journal.runs = {"run_x": (7, "failed")}
    made = supervisor(stage, journal, Scheduler())
    await rounds(made)
    for _ in range(2):
        await made._phase(made._end_leftovers)
    assert "run:x" not in stage.names
    await rounds(made)
    assert "run:x" in stage.names


async def test_an_actor_for_one_run_that_could_not_be_ended_is_ended_in_the_next_round() -> None:
    stage = HeldStage()
    made = supervisor(stage, peers=Scheduler())
    await made.ensure(asked(1))
    with pytest.raises(RuntimeError):
        await made.release(asked(1))
    stage.away = False
    await rounds(made)
    assert OWN not in stage.names


async def test_an_actor_that_is_needed_again_while_another_one_ends_is_kept() -> None:
    loop, ends = asyncio.get_running_loop(), list[str]()

    class Stage(HeldStage):
        def end(self, name: str) -> None:
            super().end(name)
            ends.append(name)
            again = asyncio.run_coroutine_threadsafe(made.ensure(asked(2, "run:b")), loop)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)
            assert not again.done(), "a phase is under way"

    stage = Stage()
    made = supervisor(stage, peers=Scheduler())
    for name in ("run:a", "run:b"):
        await made.ensure(asked(1, name))
        with pytest.raises(RuntimeError):
            await made.release(asked(1, name))
    stage.away = False
    await made._phase(made._retire)
    assert ends == ["run:a"]
    await rounds(made)
    assert "run:b" in stage.names
    assert "run:a" not in stage.names


async def test_rays_autoscaler_is_told_when_what_is_needed_changes_and_only_where_it_may_exist() -> None:
    rest, busy = (({"CPU": 1.0},), ({},)), (({"CPU": 1.0}, {"GPU": 1.0}, {"GPU": 1.0}), ({}, {}, {}))
    for address, requests in (("", []), ("auto", [rest, busy, rest])):
        stage, scheduler = FakeStage(), Scheduler()
        made = supervisor(stage, peers=scheduler, ray_address=address)
        await made.set_pool(ELASTIC)
        await rounds(made, 2)
        await made.demand(actor_codec.encode_pool_loads([PoolLoad("gpu", waiting=2)]))
        scheduler.loads = [PoolLoad("gpu", busy=2)]
        await rounds(made, 2)
        await made.set_pool(actor_codec.encode_pool_change("gpu", None))
        await rounds(made, 2)
        assert stage.requests == requests


async def test_room_is_requested_again_after_a_while_since_a_gcs_that_was_replaced_knows_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = FakeStage()
    made = supervisor(stage, peers=Scheduler(), ray_address="auto")
    await rounds(made, 3)
    monkeypatch.setattr(supervision, "REQUEST_AGAIN_S", 0.0)
    await rounds(made, 2)
    assert stage.requests == [(({"CPU": 1.0},), ({},))] * 3


async def test_a_pool_that_cannot_be_so_is_refused_and_one_that_is_not_there_cannot_be_forgotten() -> None:
    made = supervisor(FakeStage(), peers=Scheduler())
    for name, spec in (("no good", PoolSpec(max=1)), ("gpu", PoolSpec(min=2, max=1))):
        with pytest.raises(Invalid):
            await made.set_pool(actor_codec.encode_pool_change(name, spec))
    with pytest.raises(NotFound):
        await made.set_pool(actor_codec.encode_pool_change("gpu", None))


async def test_a_supervisor_that_stands_by_starts_nobody() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    made.stands_by = True
    await made.ensure(asked(1))
    assert stage.names == set()
    with pytest.raises(Unavailable, match="stands by"):
        await made.open_gateway(b"")
    with pytest.raises(Unavailable, match="stands by"):
        await made.scale(actor_codec.encode_scale("default", 2))
    with pytest.raises(Unavailable, match="stands by"):
        await made.drain(b"worker-default-0")
    with pytest.raises(Unavailable, match="stands by"):
        await made.pools(b"")
    with pytest.raises(Unavailable, match="stands by"):
        await made.tell_roster(asked(1, ""))  # of a cast that is about to end: what is known now may be old later
    assert actor_codec.decode_workers(await made.workers(b"")) == []
    made.stands_by = False
    await made.ensure(asked(2))
    assert "scheduler" in stage.names


async def test_a_supervisor_that_steps_down_starts_nobody_again_whom_it_ends() -> None:
    stage = FakeStage()
    made = supervisor(stage, peers=Scheduler())
    await rounds(made)
    assert "scheduler" in stage.names
    ending = asyncio.get_running_loop().create_task(made.step_down(stage.names.clear))
    await asyncio.sleep(0)
    await rounds(made, 2)
    await ending
    assert stage.names == set()


class OneWorker(NoPeers):
    """A worker that answers while it is there."""

    def __init__(self) -> None:
        self.there = False

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        if not self.there:
            raise WorkerGone(worker, "no room")
        return "host-1", 42, "a1b2"


async def test_a_worker_that_never_answered_is_starting_and_one_that_did_is_lost() -> None:
    peers: Any = OneWorker()
    made = Supervisor(FakeStage(), peers, FakeFacts(), Settings(redis_url="redis://x", workers=1))
    await made.ensure(asked(1))

    async def shown() -> tuple[str, str, str]:
        [view] = actor_codec.decode_workers(await made.workers(b""))
        return view.state, view.node, view.node_id

    assert await shown() == ("starting", "", "")
    peers.there = True
    assert (await shown())[1:] == ("host-1", "a1b2")
    peers.there = False
    assert await shown() == ("lost", "", "")
