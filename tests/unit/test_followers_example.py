"""examples/followers.py in virtual time: its DAGs start each other as it says, without a cluster."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path

import pytest

from orchestrator import dags_in
from orchestrator.rows import RunFilter
from orchestrator.starts import Trigger
from orchestrator.views import RunView
from tests.world import World
from tests.world_clients import TENANT

EXAMPLE = Path(__file__).parents[2] / "examples" / "followers.py"


async def _runs(world: World, dag_id: str) -> list[RunView]:
    gateway = world.clients.gateways[0]
    page = await gateway.runs(RunFilter(tenant=TENANT, dag_id=dag_id), None, 9)
    return list(page.items)


async def _course(world: World) -> None:
    gateway = world.clients.gateways[0]
    for dag in dags_in(importlib.import_module(EXAMPLE.stem)):
        await world.clients.define(dag.definition())
    await gateway.trigger(TENANT, Trigger(dag_id="load_orders"), None)
    await asyncio.sleep(5.0)
    assert await _runs(world, "revenue_report") == []
    awaits = (await gateway.dag(TENANT, "revenue_report")).awaits
    assert [(each.name, bool(each.pending)) for each in awaits] == [("shop://orders", True), ("shop://prices", False)]
    for duplicate in (False, True):
        told = await gateway.starters.tell(TENANT, "prices.published", "1", {}, None)
        assert ([run.dag_id for run in told.runs], told.duplicate) == (["load_prices"], duplicate)
    await asyncio.sleep(5.0)
    [report] = await _runs(world, "revenue_report")
    [mail] = await _runs(world, "revenue_mail")
    assert {cause.name for cause in report.triggered_by} == {"shop://orders", "shop://prices"}
    assert [cause.run_id for cause in mail.triggered_by] == [report.run_id]
    assert (report.state, mail.state) == ("succeeded", "succeeded")
    [orders, prices] = await gateway.starters.assets(TENANT)
    assert (orders.asset, orders.updates, orders.producers) == ("shop://orders", 1, ("load_orders",))
    assert prices.last[0].cause.run_id == told.runs[0].run_id


def test_the_report_starts_once_both_loads_are_done_and_the_mail_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    World(0).play_with(_course)
