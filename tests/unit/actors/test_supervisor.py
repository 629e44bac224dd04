"""actors.supervisor: which actors ought to exist, and who may end those that are there for one run."""

from __future__ import annotations

from typing import Any

import pytest

from actors import supervisor as supervision
from actors.names import pool_of
from actors.peers import WorkerGone
from actors.settings import Settings
from actors.supervisor import Supervisor
from orchestrator import codec
from orchestrator.errors import ActorUnreachable, Invalid, JournalUnavailable, Unavailable
from orchestrator.ports import OwnerRow, inbox

OWN = "orchestrator:orch-1"


class FakeStage:
    """Actors by name."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    def present(self) -> set[str]:
        return set(self.names)

    def start(self, name: str, pool: str | None) -> None:
        self.names.add(name)

    def end(self, name: str) -> None:
        self.names.discard(name)

    def revive_journal(self) -> None:
        raise AssertionError("it is not ours")


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

    async def ping(self) -> bool:
        return not self.down

    async def owner(self, owner: str) -> OwnerRow:
        if self.down:
            raise JournalUnavailable("told to fail")
        return OwnerRow(self.epochs.get(owner, 0), 0, "0-0")

    async def position(self, stream: str) -> str:
        return self.newest.get(stream, "0-0")


def supervisor(stage: FakeStage, journal: FakeFacts | None = None, **settings: Any) -> Supervisor:
    peers: Any = NoPeers()
    made = Settings(redis_url="redis://x", run_actors_max=2, workers=1, **settings)
    return Supervisor(stage, peers, journal or FakeFacts(), made)


def asked(epoch: int, name: str = OWN, number: int = 0) -> bytes:
    return codec.encode_supervision(epoch << 32 | number, name)


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


async def test_a_pool_of_any_good_name_is_scaled_and_read_back_from_its_workers() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    with pytest.raises(Invalid):
        await made.scale(codec.encode_scale("no good", 1))
    await made.scale(codec.encode_scale("gpu-big", 2))
    assert {"worker-gpu-big-0", "worker-gpu-big-1", "worker-default-0"} <= stage.names
    after = supervisor(stage)
    await after.scale(codec.encode_scale("gpu-big", 3))
    assert {"worker-gpu-big-0", "worker-gpu-big-1", "worker-gpu-big-2"} <= stage.names
    assert pool_of("worker-gpu-big-2") == "gpu-big"


async def test_a_supervisor_that_stands_by_starts_nobody() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    made.stands_by = True
    await made.ensure(asked(1))
    assert stage.names == set()
    with pytest.raises(Unavailable, match="stands by"):
        await made.open_gateway(b"")
    with pytest.raises(Unavailable, match="stands by"):
        await made.scale(codec.encode_scale("default", 2))
    assert codec.decode_workers(await made.workers(b"")) == []
    made.stands_by = False
    await made.ensure(asked(2))
    assert "scheduler" in stage.names


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
        [view] = codec.decode_workers(await made.workers(b""))
        return view.state, view.node, view.node_id

    assert await shown() == ("starting", "", "")
    peers.there = True
    assert (await shown())[1:] == ("host-1", "a1b2")
    peers.there = False
    assert await shown() == ("lost", "", "")
