"""What starts runs of several DAGs at once, as people tell and see it: events, and assets.

    POST /events ─▶ who listens (journal) ─▶ one journal step: the event is told, and all the runs exist
    assets       ◀─ declared by DAGs, and the log that `actors/gatherer.py` keeps of their updates

The event is known by its name and id from that step on and for good, with its runs; so it starts nothing when it is
told again, also if by then other DAGs listen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from actors.hosted import instant
from orchestrator import awaited, codec, outside_codec
from orchestrator.awaited import AssetLog, Gathered
from orchestrator.definition import Definition
from orchestrator.errors import Conflict, Invalid, NotFound, OrchestratorError, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.messages import Cause
from orchestrator.ports import Journal
from orchestrator.records import GATHERED, assets_of, gathered_key
from orchestrator.starts import EventTold, Trigger, Triggered
from orchestrator.steps import CreatedRun, Creation, DagWritten
from orchestrator.views import AssetView, AwaitedView, UpdateView
from serve_app.archived_runs import ArchivedRuns
from serve_app.asking import KEY_REUSED
from serve_app.creations import Creations
from serve_app.deadlines import DEADLINE_S, within
from serve_app.steps import TRIES, stored
from serve_app.triggers import Triggers

#: pending facts of one source that a DAG shows: the latest
PENDING_SHOWN = 20


class Starters:
    """`ports.Starters` over the journal."""

    def __init__(self, journal: Journal, triggers: Triggers, creations: Creations, archive: ArchivedRuns) -> None:
        self._journal = journal
        self._archive = archive
        self._triggers = triggers
        self._creations = creations

    @within(DEADLINE_S)
    async def tell(
        self, tenant: str, name: str, event_id: str, payload: Mapping[str, Any], idem: Idempotency | None
    ) -> EventTold:
        """Every DAG that listens to events of that name has a run because of this one. Raises Conflict."""
        cause = Cause("event", name, event_id=event_id)
        for _ in range(TRIES):
            dags = await self._journal.followers(tenant, awaited.event(name))
            wanted = [Trigger(dag_id=each, params=dict(payload), causes=(cause,)) for each in dags]
            made = [await self._triggers.new_run(tenant, trigger, {}) for trigger in wanted]  # they have no windows
            if any(isinstance(run, OrchestratorError) for run in made):
                raise next(run for run in made if isinstance(run, OrchestratorError))
            runs = tuple(run for run in made if not isinstance(run, OrchestratorError))
            step = Creation(runs, stored(idem, outside_codec.encode_refusals({})), once=(tenant, f"{name}/{event_id}"))
            result = await self._creations.create(step)
            if result.status == "conflict":
                raise Conflict(KEY_REUSED)
            if result.status != "changed":
                told = await asyncio.gather(*(self._as_it_is(tenant, run) for run in result.runs))
                duplicate, replayed = result.status == "told", result.status == "replayed"
                return EventTold(name, event_id, tuple(told), duplicate, replayed)
            for dag_id in dags:
                self._triggers.forget(tenant, dag_id)
        raise Unavailable(f"DAGs that listen to {name} change too fast")

    async def _as_it_is(self, tenant: str, run: CreatedRun) -> Triggered:
        row = await self._journal.summary(run.run_id) or await self._archive.row(tenant, run.run_id)
        dag_id, state = (row.dag_id, row.state) if row is not None else ("", run.state)
        return Triggered(run.run_id, dag_id, "manual", state)

    @within(DEADLINE_S)
    async def assets(self, tenant: str) -> list[AssetView]:
        """Assets that DAGs name, or that were updated, by name."""
        declared, records = await asyncio.gather(self._journal.assets(tenant), self._journal.records(assets_of(tenant)))
        return [await self._view(tenant, name, records.get(name)) for name in sorted({*declared, *records})]

    @within(DEADLINE_S)
    async def asset(self, tenant: str, name: str) -> AssetView:
        """One of them. Raises NotFound."""
        view = await self._view(tenant, name, await self._journal.record(assets_of(tenant), name))
        if not (view.producers or view.consumers or view.updates):
            raise NotFound("asset", name)
        return view

    async def _view(self, tenant: str, name: str, record: bytes | None) -> AssetView:
        log = codec.decode_document(record, AssetLog) if record else AssetLog()
        producers, consumers = await asyncio.gather(
            self._journal.makers(tenant, name), self._journal.followers(tenant, awaited.asset(name))
        )
        last = tuple(UpdateView(each.cause, each.dag_id, instant(each.at_ms)) for each in reversed(log.last))
        return AssetView(name, tuple(producers), tuple(consumers), log.updates, last)

    async def awaits(self, tenant: str, definition: Definition) -> tuple[AwaitedView, ...]:
        """What has to happen before a run of the DAG starts by itself, and what of that has."""
        if not awaited.sources(definition):
            return ()
        record = await self._journal.record(GATHERED, gathered_key(tenant, definition.dag_id))
        pending = codec.decode_document(record, Gathered).pending if record else ()
        dags = [
            AwaitedView("dag", name, await self._journal.dag(tenant, name) is not None) for name in definition.after
        ]
        assets = [
            AwaitedView("asset", name, bool(await self._journal.makers(tenant, name))) for name in definition.consumes
        ]
        return tuple(
            AwaitedView(it.kind, it.name, it.known, causes[-PENDING_SHOWN:])
            for it in (*dags, *assets)
            for causes in [tuple(f.cause for f in pending if (f.cause.kind, f.cause.name) == (it.kind, it.name))]
        )


def would_start_itself(written: DagWritten) -> Invalid:
    """Why a definition is refused."""
    way = " -> ".join(written.reply.decode().split())
    return Invalid(f"it would start itself: {way}", (("after", f"closes a circle: {way}"),))
