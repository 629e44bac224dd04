"""DAGs through the gateway: versions, schedules, pauses, lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.errors import Conflict, Invalid, NotFound
from tests.gateway_stage import World, definition, key


@pytest.fixture
def world() -> World:
    return World()


# DAGs


async def test_a_definition_gets_a_version_only_when_it_changes(world: World) -> None:
    gateway = world.gateway
    for sla_s, version in ((None, 1), (None, 1), (60, 2)):
        done = await gateway.define_dag("t", definition(sla_s=sla_s), keep_tasks=False, expect=None, idem=None)
        assert done.version == version
    with pytest.raises(Conflict, match="version 2, not 1"):
        await gateway.define_dag("t", definition(), keep_tasks=False, expect=1, idem=None)
    with pytest.raises(Conflict, match="does not exist"):
        await gateway.define_dag("t", definition(dag_id="x"), keep_tasks=False, expect="any", idem=None)
    assert (await gateway.define_dag("t", definition(), keep_tasks=False, expect=2, idem=None)).version == 3


async def test_a_repeated_definition_is_answered_whatever_it_expected(world: World) -> None:
    await world.define()
    for replayed in (False, True):
        done = await world.gateway.define_dag("t", definition(sla_s=1), keep_tasks=False, expect=1, idem=key("k"))
        assert (done.version, done.replayed) == (2, replayed)
    with pytest.raises(Conflict):
        await world.gateway.define_dag("t", definition(sla_s=1), keep_tasks=False, expect=None, idem=key("k", "g"))


async def test_an_existing_dag_keeps_its_tasks_when_none_are_given(world: World) -> None:
    await world.define()
    await world.gateway.define_dag("t", definition(tasks=(), owner="other"), keep_tasks=True, expect=None, idem=None)
    view = await world.gateway.dag("t", "d")
    assert ([t.id for t in view.definition.tasks], view.definition.owner) == (["extract", "transform"], "other")


async def test_a_schedule_starts_at_its_definition_or_change(world: World) -> None:
    await world.define(schedule="0 2 * * *")
    at_two = datetime(2026, 1, 3, 2, tzinfo=UTC)
    assert (await world.gateway.dag("t", "d")).next_run_at == at_two
    row = world.journal.dag_rows["t", "d"]
    row.next_fire_ms = row.next_due_ms = row.next_fire_ms - 86_400_000
    await world.define(schedule="0 2 * * *", sla_s=5)
    assert (await world.gateway.dag("t", "d")).next_run_at == at_two - timedelta(days=1), "what is due stays due"
    await world.define(schedule="0 3 * * *")
    assert (await world.gateway.dag("t", "d")).next_run_at == at_two.replace(day=2, hour=3) + timedelta(days=1)
    await world.gateway.pause_dag("t", "d", None, None)
    assert (await world.gateway.dag("t", "d")).next_run_at is None
    await world.define(schedule=None)
    await world.gateway.resume_dag("t", "d", None, None)
    assert (await world.gateway.dag("t", "d")).next_run_at is None


async def test_a_tenant_has_so_many_dags_and_sees_only_its_own(world: World) -> None:
    for name in ("a", "b", "d"):
        await world.define(dag_id=name)
    with pytest.raises(Conflict, match="at most 3"):
        await world.define(dag_id="e")
    with pytest.raises(NotFound):
        await world.gateway.dag("u", "d")
    with pytest.raises(NotFound):
        await world.gateway.pause_dag("u", "d", None, None)


async def test_dags_are_listed_by_page_and_filter(world: World) -> None:
    for name, owner in (("a", "x"), ("b", "y"), ("d", "x")):
        await world.define(dag_id=name, owner=owner)
    await world.gateway.pause_dag("t", "a", None, None)

    async def names(cursor: str | None = None, limit: int = 10, **wanted: Any) -> tuple[list[str], str | None]:
        values = {"paused": None, "owner": None} | wanted
        page = await world.gateway.dags("t", cursor=cursor, limit=limit, **values)
        return [view.definition.dag_id for view in page.items], page.next_cursor

    assert await names() == (["a", "b", "d"], None)
    assert await names(owner="x") == (["a", "d"], None)
    assert await names(paused=False) == (["b", "d"], None)
    first, cursor = await names(limit=2)
    assert (first, await names(cursor=cursor)) == (["a", "b"], (["d"], None))
    for bad in ("", "!", "Kg", "é", "YQ=="):
        with pytest.raises(Invalid):
            await names(cursor=bad)
