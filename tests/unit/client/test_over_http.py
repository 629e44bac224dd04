"""Both clients against a server on a socket: every surface, cut connections, and the application itself in process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import date

import httpx
import pytest

from orchestrator.client import AsyncClient, Client, Conflicting, NotAllowed, NotRunning, NotThere
from tests.stand_in import TOKEN, StandIn, serving

DAG = {"dag_id": "d", "owner": "tests", "tasks": [{"id": "a"}]}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, StandIn]]:
    with serving() as found:
        yield found


@pytest.fixture
def client(server: tuple[str, StandIn]) -> Iterator[Client]:
    with Client(server[0], TOKEN) as client:
        yield client


def test_a_dag_is_defined_run_followed_and_listed(client: Client) -> None:
    assert client.dags.define(DAG)["status"] == "active"
    run = client.dags.trigger("d", key="order-7")
    assert client.dags.trigger("d", key="order-7")["run_id"] == run["run_id"]
    events = list(client.dags.events(run["run_id"]))
    assert [each.id for each in events] == ["1", "2", "3", None]
    assert client.dags.wait(run["run_id"])["state"] == "success"
    assert [each["run_id"] for each in client.dags.runs(dag_id="d")] == [run["run_id"]]
    assert [each["dag_id"] for each in client.dags.list()] == ["d"]
    assert list(client.dags.history(run["run_id"], after=2)) == events[2:]


def test_a_backfill_does_what_its_dry_run_said_or_nothing(client: Client) -> None:
    client.dags.define({**DAG, "dag_id": "b"})
    days = (date(2025, 10, 1), date(2025, 10, 4))
    plan = client.dags.dry_run("b", *days)
    assert plan["counts"]["create"] == 4
    assert client.dags.backfill("b", *days, plan_hash=plan["plan_hash"])["run_type"] == "backfill"
    with pytest.raises(Conflicting):
        client.dags.backfill("b", date(2025, 10, 2), date(2025, 10, 5), plan_hash=plan["plan_hash"])


def test_refusals_have_kinds(client: Client, server: tuple[str, StandIn]) -> None:
    with pytest.raises(NotThere, match="run run_0 not found"):
        client.dags.run("run_0")
    with pytest.raises(NotThere, match="Plan 'nope' not found"):
        client.instances.start("nope")
    with Client(server[0], "wrong") as stranger, pytest.raises(NotAllowed):
        stranger.dags.run("run_0")


def test_a_run_is_followed_over_cut_connections(client: Client, server: tuple[str, StandIn]) -> None:
    run_id = client.runs.create(metadata={"k": [1]}, owner="me", key="order-8")
    assert client.runs.create(key="order-8") == run_id
    types = []
    for event in client.runs.events(run_id):
        if event.kind == "checkpoint":
            types.append(event.data["type"])
            if len(types) == 2:
                server[1].cut()
            if len(types) < 4:
                client.runs.post_checkpoint(run_id, f"step {len(types)}", {"n": len(types)})
            elif len(types) == 4:
                client.runs.post_checkpoint(run_id, "run.completed")
    assert types == ["started", "step 1", "step 2", "step 3", "run.completed", "completed"]
    assert client.runs.get(run_id)["status"] == "completed"
    assert [each["type"] for each in client.runs.checkpoints(run_id)] == types
    with pytest.raises(Conflicting, match="invalid status transition"):
        client.runs.cancel(run_id)


def test_an_instance_is_followed_over_cut_connections(client: Client, server: tuple[str, StandIn]) -> None:
    instance_id = client.instances.start("demo")["id"]
    client.instances.pause(instance_id)
    seqs, snapshots = [], 0
    for event in client.instances.events(instance_id):
        if event.kind == "initial_status":
            snapshots += 1
            if snapshots == 1:
                client.instances.resume(instance_id)
            continue
        seqs.append(event.data["seq"])
        if event.kind == "task_changed":
            server[1].cut()
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert snapshots >= 2
    assert client.instances.status(instance_id)["summary"]["completed"] == 4
    with pytest.raises(NotRunning, match="process dead"):
        client.instances.pause(instance_id)
    assert client.instances.finding("demo", "1.1") == "finding of 1.1"


async def test_awaited_it_is_the_same(server: tuple[str, StandIn]) -> None:
    async with AsyncClient(server[0], TOKEN) as client:
        run_id = await client.runs.create()

        async def work() -> None:
            for step in range(3):
                await client.runs.post_checkpoint(run_id, f"step {step}")
                await asyncio.to_thread(server[1].cut)
            await client.runs.cancel(run_id)

        working = asyncio.create_task(work())
        types = [each.data["type"] async for each in client.runs.events(run_id) if each.kind == "checkpoint"]
        await working
        assert types == ["started", "step 0", "step 1", "step 2", "canceled"]
        async with contextlib.aclosing(client.runs.events(run_id)) as events:
            assert (await anext(events)).data["type"] == "started"


async def test_it_speaks_to_the_application_in_process() -> None:
    async with AsyncClient("http://localhost", TOKEN, transport=httpx.ASGITransport(app=StandIn())) as client:
        assert (await client.health())["ok"]
        await client.dags.define(DAG)
        run = await client.dags.trigger("d", params={"x": 1})
        assert [each.kind async for each in client.dags.events(run["run_id"], after=2)] == ["run_state", "end"]
        assert await client.dags.logs(run["run_id"], "a") == []
        assert (await client.dags.trigger_many([{"dag_id": "d"}, {"dag_id": "none"}]))[1].get("error") == "not_found"
