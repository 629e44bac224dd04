"""serve_app.bundles and actors.bundle_keeper: from a zip to versions that pin it, and from there to nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import serve_app.bundles as module
from actors.bundle_store import BundleStore
from actors.clock import Clock
from actors.settings import Settings
from orchestrator import bundle, codec
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.ids import DEFAULT_TENANT
from orchestrator.starts import Trigger
from serve_app.bundles import Bundles
from serve_app.gateway import Gateway
from tests.bundle_builders import files
from tests.fakes_journal import MemoryJournal
from tests.gateway_stage import Stage

HOUR = timedelta(hours=1)


class SetClock(Clock):
    """Moves when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.at = datetime(2026, 1, 2, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


class World:
    """A replica over a journal in memory; the check process is one in name only."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.journal = MemoryJournal()
        self.clock = SetClock()
        self.gateway = Gateway(self.journal, Stage(), self.clock)
        self.bundles = Bundles(self.journal, self.gateway.define_dag, self.clock, Settings(home=str(home)))
        self.store = BundleStore(home)
        self.found: list[Definition] | Invalid = [Definition("flow", "me", tasks=(TaskSpec("a", type="core.sleep"),))]
        monkeypatch.setattr(module, "check", self._check)

    def _check(self, folder: Path, *_: Any) -> list[Definition]:
        assert (folder / "flow.py").exists()
        if isinstance(self.found, Invalid):
            raise self.found
        return self.found

    async def put(self, version: str, tenant: str = DEFAULT_TENANT) -> str:
        packed = bundle.pack(files(version))
        name = bundle.id_of(packed)
        await self.bundles.put(tenant, name, packed)
        return name

    async def deploy(self, version: str, key: str | None = None, tenant: str = DEFAULT_TENANT) -> tuple[str, list[int]]:
        name = await self.put(version, tenant)
        idem = Idempotency(key, "f") if key else None
        return name, [each.version for each in await self.bundles.deploy(tenant, name, idem)]

    async def run(self, tenant: str = DEFAULT_TENANT) -> str:
        return (await self.gateway.trigger(tenant, Trigger(dag_id="flow"), None)).run_id

    async def prune(self, tenant: str = DEFAULT_TENANT) -> list[str]:
        return [*await self.bundles.prune(tenant, HOUR)]

    async def kept(self, tenant: str = DEFAULT_TENANT) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        return {view.bundle: (view.dags, view.current) for view in await self.bundles.bundles(tenant)}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


async def test_a_bundle_is_kept_once_under_its_own_id(world: World) -> None:
    packed = bundle.pack(files())
    name = bundle.id_of(packed)
    stored = [await world.bundles.put(DEFAULT_TENANT, name, packed) for _ in range(2)]
    assert [(each.bundle, each.files, each.created) for each in stored] == [(name, 3, True), (name, 3, False)]
    with pytest.raises(Invalid, match="not 0000"):
        await world.bundles.put(DEFAULT_TENANT, "0" * 64, packed)
    assert list(await world.kept()) == [name]


async def test_a_version_names_its_bundle_and_other_code_is_another_version(world: World) -> None:
    one, versions = await world.deploy("one")
    assert versions == [1]
    old = await world.run()
    two, versions = await world.deploy("two")
    assert versions == [2]
    assert (await world.deploy("two"))[1] == [2], "the same content is the same version"
    pinned = await world.journal.summary(old)
    assert pinned is not None
    blobs = [await world.journal.definition(DEFAULT_TENANT, "flow", version) for version in (pinned.dag_version, 2)]
    assert [codec.decode_definition(blob).bundle for blob in blobs if blob] == [one, two]
    assert await world.kept() == {two: (("flow",), ("flow",)), one: (("flow",), ())}


async def test_a_definition_without_tasks_keeps_the_bundle_with_them(world: World) -> None:
    name, _ = await world.deploy("one")
    changed = Definition("flow", "somebody else")
    await world.gateway.define_dag(DEFAULT_TENANT, changed, keep_tasks=True, expect=None, idem=None)
    view = await world.gateway.dag(DEFAULT_TENANT, "flow")
    assert (view.version, view.definition.bundle, view.definition.owner) == (2, name, "somebody else")


async def test_a_broken_bundle_changes_nothing(world: World) -> None:
    world.found = Invalid("flow.py: NameError", (("traceback", "…"),))
    name = await world.put("one")
    with pytest.raises(Invalid, match="NameError"):
        await world.bundles.deploy(DEFAULT_TENANT, name, None)
    with pytest.raises(NotFound):
        await world.gateway.dag(DEFAULT_TENANT, "flow")
    assert await world.kept() == {name: ((), ())}


async def test_what_the_operator_left_in_the_data_directory_is_deployed_too(world: World) -> None:
    packed = bundle.pack(files())
    name = bundle.id_of(packed)
    world.store.offer(name, packed)
    with pytest.raises(NotFound):
        await world.bundles.deploy("other", name, None)
    assert [each.dag_id for each in await world.bundles.deploy(DEFAULT_TENANT, name, None)] == ["flow"]
    assert world.store.offered(name) is None
    assert await world.kept() == {name: (("flow",), ("flow",))}
    with pytest.raises(NotFound):
        await world.bundles.deploy(DEFAULT_TENANT, "0" * 64, None)


async def test_a_deploy_that_is_repeated_late_does_not_bring_old_code_back(world: World) -> None:
    one, _ = await world.deploy("one", key="k1")
    await world.deploy("two", key="k2")
    (again,) = await world.bundles.deploy(DEFAULT_TENANT, one, Idempotency("k1", "f"))
    assert (again.version, again.replayed) == (1, True)
    assert (await world.gateway.dag(DEFAULT_TENANT, "flow")).version == 2
    (back,) = await world.bundles.deploy(DEFAULT_TENANT, one, Idempotency("k3", "f"))
    assert not back.replayed
    assert (await world.gateway.dag(DEFAULT_TENANT, "flow")).definition.bundle == one


async def test_there_is_an_end_to_what_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = await world.put("one")
    monkeypatch.setattr(module, "KEPT_MAX", len(world.store.packed(name)) + 10)
    with pytest.raises(Conflict, match="bundles prune"):
        await world.put("two")
    assert await world.put("one") == name, "what is there already needs no room"


async def test_what_is_kept_is_told_to_who_watches(world: World) -> None:
    names = [await world.put(version) for version in ("one", "two")]
    told = {family.name: family.samples[0].value for family in await world.bundles.families()}
    sizes = sum(len(world.store.packed(name)) for name in names)
    assert told == {"orchestrator_bundles": 2, "orchestrator_bundles_bytes": sizes}
    assert {"orchestrator_bundles"} <= {family.name for family in await world.gateway.metrics()}


# ── letting go ──


async def test_what_nobody_needs_goes_after_a_while(world: World) -> None:
    name = await world.put("one")
    assert await world.prune() == []
    world.clock.at += HOUR
    assert await world.prune() == [name]
    assert await world.kept() == {}
    assert not world.store.has(name)


async def test_what_a_version_or_a_run_needs_stays(world: World) -> None:
    one, _ = await world.deploy("one")
    run_id = await world.run()
    two, _ = await world.deploy("two")
    three, _ = await world.deploy("three")
    world.clock.at += 2 * HOUR
    assert await world.prune() == [two], "one has a run that can be retried, three is current"
    assert sorted(await world.kept()) == sorted([one, three])
    del world.journal.runs[run_id]  # as one that left for the archive
    assert await world.prune() == [one]
    assert await world.kept() == {three: (("flow",), ("flow",))}


async def test_a_sweep_looks_at_the_runs_of_a_dag_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("one", "two", "three"):
        await world.deploy(version)
        await world.run()
    await world.deploy("four")
    world.clock.at += 2 * HOUR
    looked = []
    summaries = world.journal.summaries

    async def look(*given: Any) -> Any:
        looked.append(given)
        return await summaries(*given)

    monkeypatch.setattr(world.journal, "summaries", look)
    assert await world.prune() == []
    assert len(looked) == 1


async def test_what_was_touched_between_the_look_and_the_step_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = await world.deploy("one")
    await world.deploy("two")
    world.clock.at += 2 * HOUR
    meanwhile(world, monkeypatch, "_need", lambda: world.deploy("one"))
    assert await world.prune() == []
    assert world.store.has(name)


@pytest.mark.parametrize("first", [True, False])
async def test_what_is_deployed_during_the_step_stays(
    world: World, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    name, _ = await world.deploy("one")
    await world.deploy("two")
    world.clock.at += 2 * HOUR
    put_records = world.journal.put_records

    async def then(*given: Any) -> None:
        monkeypatch.setattr(world.journal, "put_records", put_records)
        await world.deploy("one")
        await put_records(*given)

    if first:
        monkeypatch.setattr(world.journal, "put_records", then)  # when it was found that nobody needs it
    else:
        meanwhile(world, monkeypatch, "_taken", lambda: world.deploy("one"))
    assert await world.prune() == ([] if first else [name])
    assert (await world.kept())[name] == (("flow",), ("flow",))
    assert world.store.has(name)


def meanwhile(world: World, monkeypatch: pytest.MonkeyPatch, step: str, does: Callable[[], Awaitable[object]]) -> None:
    """Once, when the keeper has done that step, somebody does something."""
    keeper = world.bundles._keeper
    done = getattr(keeper, step)

    async def then(*given: Any) -> Any:
        found = await done(*given)
        monkeypatch.setattr(keeper, step, done)
        await does()
        return found

    monkeypatch.setattr(keeper, step, then)


async def test_a_bundle_is_deleted_unless_a_version_or_a_run_needs_it(world: World) -> None:
    one, _ = await world.deploy("one")
    with pytest.raises(Conflict, match="current version of DAG flow names it"):
        await world.bundles.delete(DEFAULT_TENANT, one)
    run_id = await world.run()
    await world.deploy("two")
    with pytest.raises(Conflict, match=f"run {run_id} of DAG flow was created with it"):
        await world.bundles.delete(DEFAULT_TENANT, one)
    assert world.store.has(one)
    del world.journal.runs[run_id]
    await world.bundles.delete(DEFAULT_TENANT, one)
    assert not world.store.has(one)
    assert one not in await world.kept()
    with pytest.raises(NotFound):
        await world.bundles.delete(DEFAULT_TENANT, one)
    again, versions = await world.deploy("one")
    assert (again, versions) == (one, [3]), "the same code has the same id"


# ── tenants ──


async def test_each_tenant_has_what_it_sent_itself(world: World) -> None:
    name, _ = await world.deploy("one")
    assert await world.kept("other") == {}
    for tenant in ("other", "third/of them"):
        with pytest.raises(NotFound):
            await world.bundles.deploy(tenant, name, None)
        with pytest.raises(NotFound):
            await world.bundles.delete(tenant, name)
    packed = world.store.packed(name)
    assert (await world.bundles.put("third/of them", name, packed)).created, "whatever others have"
    assert not (await world.bundles.put("third/of them", name, packed)).created
    (defined,) = await world.bundles.deploy("third/of them", name, None)
    assert (defined.dag_id, defined.version) == ("flow", 1)
    assert await world.kept("third/of them") == await world.kept() == {name: (("flow",), ("flow",))}
    assert await world.kept("other") == {}
    with pytest.raises(NotFound):
        await world.gateway.dag("other", "flow")


async def test_a_file_is_there_while_any_tenant_has_it(world: World) -> None:
    name, _ = await world.deploy("one", tenant="other")
    await world.put("one")
    two, _ = await world.deploy("two", tenant="other")
    world.clock.at += 2 * HOUR
    assert await world.prune("third") == []
    assert await world.prune() == [name], "it is the other tenant's run that may need it"
    assert world.store.has(name)
    assert sorted(await world.kept("other")) == sorted([name, two])
    assert await world.prune("other") == [name]
    assert not world.store.has(name)


async def test_runs_of_each_tenant_keep_what_they_need(world: World) -> None:
    name, _ = await world.deploy("one", tenant="other")
    await world.run("other")
    await world.deploy("two", tenant="other")
    world.clock.at += 2 * HOUR
    assert await world.bundles._keeper.prune(HOUR) == []
    with pytest.raises(Conflict, match="was created with it"):
        await world.bundles.delete("other", name)


async def test_what_another_tenant_sends_during_the_step_is_put_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await world.put("one")
    world.clock.at += 2 * HOUR
    meanwhile(world, monkeypatch, "_is_held", lambda: world.put("one", "other"))
    assert await world.prune() == [name]
    assert world.store.has(name)
    assert list(await world.kept("other")) == [name]


async def test_room_is_counted_for_each_tenant(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = await world.put("one")
    monkeypatch.setattr(module, "KEPT_MAX", len(world.store.packed(name)) + 10)
    assert await world.put("two", "other") != name
    with pytest.raises(Conflict, match="bundles prune"):
        await world.put("two")
    told = {family.name: family.samples[0].value for family in await world.bundles.families()}
    assert told["orchestrator_bundles"] == 2
    await world.put("one", "third")
    assert (await world.bundles.families())[0].samples[0].value == 2, "a file that two of them have is one"
