"""Events and assets: over the in-memory journal, and over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from orchestrator import codec
from orchestrator import events as e
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import Invalid, NotFound
from orchestrator.messages import Cause
from orchestrator.records import GATHERED, gathered_key
from orchestrator.starts import EventTold
from orchestrator.views import AwaitedView
from tests.dags_requests import is_error
from tests.gateway_stage import World


async def define(world: World, dag_id: str, **changes: Any) -> None:
    definition = Definition(dag_id, "team", **changes)
    await world.gateway.define_dag("t", definition, keep_tasks=False, expect=None, idem=None)


async def tell(world: World, event_id: str = "7", **payload: Any) -> EventTold:
    return await world.gateway.starters.tell("t", "order.paid", event_id, payload, None)


async def test_an_event_starts_every_dag_that_listens_and_starts_nothing_when_it_is_told_again() -> None:
    world = World()
    await define(world, "ship", on_event="order.paid")
    await define(world, "thank", on_event="order.paid")
    await define(world, "deaf", on_event="order.lost")
    told = await asyncio.gather(*(tell(world, total=12) for _ in range(10)))
    assert [each.duplicate for each in told].count(False) == 1
    assert {tuple((run.dag_id, run.run_id) for run in each.runs) for each in told} == {
        tuple((run.dag_id, run.run_id) for run in told[0].runs)
    }
    assert [run.dag_id for run in told[0].runs] == ["ship", "thank"]
    [created] = codec.decode_events(world.journal.runs[told[0].runs[0].run_id].events[0].events)
    assert isinstance(created, e.RunCreated)
    assert (created.params, created.triggered_by) == ({"total": 12}, (Cause("event", "order.paid", event_id="7"),))
    view = await world.gateway.run("t", created.run_id)
    assert view.triggered_by == created.triggered_by
    assert len((await tell(world, "8")).runs) == 2


async def test_an_event_told_before_anybody_listened_starts_nothing_later() -> None:
    world = World()
    assert (await tell(world)).runs == ()
    await define(world, "ship", on_event="order.paid")
    again = await tell(world)
    assert (again.runs, again.duplicate) == ((), True)
    assert len((await tell(world, "8")).runs) == 1


async def test_runs_of_an_event_are_of_the_version_that_listens_now() -> None:
    world = World()
    await define(world, "ship", on_event="order.paid")
    await tell(world)
    await define(world, "ship", on_event="order.paid", tasks=(TaskSpec(id="a"),))
    told = await tell(world, "8")
    assert world.journal.runs[told.runs[0].run_id].dag_version == 2


async def test_a_circle_is_refused_with_the_way() -> None:
    world = World()
    await define(world, "a", tasks=(TaskSpec(id="t", produces=("x",)),))
    await define(world, "b", consumes=("x",))
    with pytest.raises(Invalid, match="it would start itself: a -> b -> a"):
        await define(world, "a", tasks=(TaskSpec(id="t", produces=("x",)),), after=("b",))


async def test_a_dag_tells_what_it_waits_for() -> None:
    world = World()
    await define(world, "u")
    await define(world, "d", after=("u", "nobody"))
    cause = Cause("dag", "u", "run_1", attempt=1)
    from orchestrator.awaited import Fact, Gathered

    record = codec.encode_document(Gathered("1-0", (Fact("after/u", cause),)))
    await world.journal.put_records(GATHERED, {gathered_key("t", "d"): record})
    assert (await world.gateway.dag("t", "d")).awaits == (
        AwaitedView("dag", "u", True, (cause,)),
        AwaitedView("dag", "nobody", False),
    )
    assert (await world.gateway.dag("t", "u")).awaits == ()


async def test_assets_are_known_by_who_names_them() -> None:
    world = World()
    await define(world, "a", tasks=(TaskSpec(id="t", produces=("s3://x",)),))
    await define(world, "b", consumes=("s3://x", "s3://y"))
    found = await world.gateway.starters.assets("t")
    assert [(each.asset, each.producers, each.consumers, each.updates) for each in found] == [
        ("s3://x", ("a",), ("b",), 0),
        ("s3://y", (), ("b",), 0),
    ]
    with pytest.raises(NotFound):
        await world.gateway.starters.asset("t", "s3://z")
    assert await world.gateway.starters.assets("other") == []


async def test_over_http_an_event_is_told_and_told_again(admin: httpx.AsyncClient) -> None:
    await admin.post("/dags", json={"dag_id": "ship", "owner": "team", "on_event": "order.paid"})
    event = {"name": "order.paid", "id": "order-7", "payload": {"total": 12}}
    first = (await admin.post("/events", json=event)).json()
    again = (await admin.post("/events", json=event)).json()
    assert first["duplicate"] is False
    assert again == {**first, "duplicate": True}
    [run] = first["runs"]
    assert (run["dag_id"], run["state"]) == ("ship", "queued")
    for wrong in ({"name": "a b"}, {"id": "a b"}, {"payload": [1]}, {"name": None}, {"id": 7}):
        is_error(await admin.post("/events", json={**event, **wrong}), 400, "invalid_request")


async def test_over_http_an_asset_is_found_by_its_whole_name(admin: httpx.AsyncClient) -> None:
    tasks = [{"id": "load", "produces": ["s3://lake/sales"]}]
    await admin.post("/dags", json={"dag_id": "load", "owner": "team", "tasks": tasks})
    await admin.post("/dags", json={"dag_id": "report", "owner": "team", "consumes": ["s3://lake/sales"]})
    [listed] = (await admin.get("/assets")).json()["items"]
    assert (listed["asset"], listed["producers"], listed["consumers"]) == ("s3://lake/sales", ["load"], ["report"])
    for where in ("/assets/s3://lake/sales", "/assets/s3%3A%2F%2Flake%2Fsales"):
        assert (await admin.get(where)).json() == listed
    is_error(await admin.get("/assets/s3://lake/other"), 404, "not_found")
    is_error(await admin.get("/assets/a%20b"), 404, "not_found")
    dag = (await admin.get("/dags/report")).json()
    assert dag["consumes"] == ["s3://lake/sales"]
