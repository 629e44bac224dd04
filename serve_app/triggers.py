"""From a trigger to runs in the journal: manual runs, bulk runs, backfills, and the plan of each.

    Trigger ─▶ windows ─▶ plan (dry run ends here) ─▶ one journal step, which checks what the plan assumed
                 ▲                                         │
                 └──────────── plan again ◀── changed ─────┘

Backfills are made in `backfills.py`. The run of an event has no window, but is identified in the same index, by the
event's id: that does not pass like a request's key, so a duplicate starts nothing however late it comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from actors.clock import Clock
from actors.hosted import milliseconds
from orchestrator import codec, outside_codec, partitions, windows
from orchestrator import events as e
from orchestrator import plan as planning
from orchestrator.deadlines import wake_ms
from orchestrator.definition import Definition, Window
from orchestrator.errors import Conflict, Invalid, NotFound, OrchestratorError, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.ports import Journal
from orchestrator.rows import EVENT
from orchestrator.starts import Plan, Trigger, Triggered
from orchestrator.steps import CreatedRun, Creation, NewRun
from serve_app.archived_runs import ArchivedRuns
from serve_app.asking import KEY_REUSED
from serve_app.backfills import Backfills
from serve_app.creations import Creations
from serve_app.dag_book import CurrentDag, DagBook
from serve_app.steps import TRIES, deadline_ms, existing_runs, plan_changed, stored


class Triggers:
    """Plans and creates."""

    def __init__(
        self,
        journal: Journal,
        book: DagBook,
        creations: Creations,
        clock: Clock,
        windows_max: int,
        archive: ArchivedRuns,
    ) -> None:
        self._journal = journal
        self._book = book
        self._clock = clock
        self._creations = creations
        #: the other half
        self.backfills = Backfills(journal, book, clock, windows_max, archive)
        self._archive = archive

    async def trigger(self, tenant: str, trigger: Trigger, idem: Idempotency | None) -> Triggered:
        """A run, or the one that stands for the window. Raises Invalid, NotFound, Conflict."""
        if trigger.run_type == "backfill":
            return await self.backfills.create(tenant, trigger, idem)
        if trigger.plan_hash is not None:
            await self._check_manual_plan(tenant, trigger)
        [done], replayed = await self.trigger_many(tenant, [trigger], idem)
        if isinstance(done, OrchestratorError):
            raise done
        return msgspec.structs.replace(done, replayed=replayed)

    async def trigger_many(
        self, tenant: str, triggers: Sequence[Trigger], idem: Idempotency | None
    ) -> tuple[list[Triggered | OrchestratorError], bool]:
        """Manual runs in one durable step; a bad one fails alone."""
        for _ in range(TRIES):
            #: what was looked at in the archive, and when
            seen: dict[str, int] = {}
            made = [await self.new_run(tenant, trigger, seen) for trigger in triggers]
            runs = tuple(run for run in made if isinstance(run, NewRun))
            errors = {n: run for n, run in enumerate(made) if isinstance(run, OrchestratorError)}
            if not runs:
                return [errors[n] for n in range(len(triggers))], False
            note = outside_codec.encode_refusals(errors)
            archived = tuple((tenant, dag_id, count) for dag_id, count in seen.items())
            result = await self._creations.create(Creation(runs, stored(idem, note), archived=archived))
            if result.status == "conflict":
                raise Conflict(KEY_REUSED)
            if result.status != "changed":
                replayed = result.status == "replayed"
                refused = outside_codec.decode_refusals(result.reply) if replayed else errors
                return _outcomes(triggers, result.runs, refused), replayed
            for trigger in triggers:
                self._book.forget(tenant, trigger.dag_id)
        raise Unavailable(f"DAG {triggers[0].dag_id} changes too fast")

    def forget(self, tenant: str, dag_id: str) -> None:
        """The DAG has changed: it is read again when it is needed."""
        self._book.forget(tenant, dag_id)

    async def plan(self, tenant: str, trigger: Trigger) -> Plan:
        """What `trigger` would do now. Raises Invalid, NotFound."""
        if trigger.run_type == "backfill":
            return await self.backfills.plan(tenant, trigger)
        dag = await self._book.fresh(tenant, trigger.dag_id)
        window = _window(dag.definition, trigger)
        return await self._plan_of(tenant, dag, trigger, [] if window is None else [window])

    async def _plan_of(self, tenant: str, dag: CurrentDag, trigger: Trigger, chosen: list[Window]) -> Plan:
        keys = [window.key() for window in chosen]
        windows_of = self._archive.windows if dag.archived else self._journal.by_window
        rows = await windows_of(tenant, trigger.dag_id, keys)
        return planning.plan(dag.definition, dag.version, trigger, chosen, existing_runs(rows))

    async def _check_manual_plan(self, tenant: str, trigger: Trigger) -> None:
        dag = await self._book.fresh(tenant, trigger.dag_id)
        window = _window(dag.definition, trigger)
        chosen = [] if window is None else [window]
        before = planning.plan(dag.definition, dag.version, trigger, chosen, {})
        now = await self._plan_of(tenant, dag, trigger, chosen)
        if trigger.plan_hash not in (now.plan_hash, before.plan_hash):
            raise plan_changed(trigger)

    # manual runs

    async def new_run(self, tenant: str, trigger: Trigger, seen: dict[str, int]) -> NewRun | OrchestratorError:
        """The run that the trigger wants, to be created; or why there is none. `seen`: archives that were looked at."""
        try:
            dag = await self._book.current(tenant, trigger.dag_id)
            window = _window(dag.definition, trigger)
            key = EVENT + trigger.event_id if trigger.event_id else window.key() if window else ""
            await self._look_up(tenant, trigger.dag_id, key, dag.archived, seen)
            pinned = await self._pinned(tenant, trigger, window)
        except (Invalid, NotFound, Conflict) as error:
            return error
        now = self._clock.now()
        run_id = self._clock.new_run_id()
        created = e.RunCreated(
            now,
            run_id,
            tenant,
            trigger.dag_id,
            dag.version,
            "manual",
            window,
            trigger.params,
            traceparent=trigger.traceparent,
        )
        if trigger.causes:
            created = msgspec.structs.replace(created, triggered_by=trigger.causes)
        again = window is not None and trigger.reprocess != "none"
        version = pinned or dag.version
        return NewRun(
            run_id=run_id,
            tenant=tenant,
            dag_id=trigger.dag_id,
            dag_version=dag.version,
            run_type="manual",
            created_ms=milliseconds(now),
            event=codec.encode_events([created]),
            window_key=key,
            sla_ms=deadline_ms(dag.definition, now),
            wake_ms=wake_ms(dag.definition, milliseconds(now)),
            reprocess=trigger.reprocess if again else "none",
            restart_event=codec.encode_events([e.RunRestarted(now, version)]) if again else b"",
            restart_version=version if again else 0,
            pinned_version=pinned if again else 0,
            because=codec.encode_causes(trigger.causes) if trigger.causes else b"",
        )

    async def _look_up(self, tenant: str, dag_id: str, key: str, archived: int, seen: dict[str, int]) -> None:
        """The run of that window is in the journal, if it is in the archive; `seen` holds what was true before."""
        if key:
            seen.setdefault(dag_id, archived)
        if key and archived:
            await self._archive.bring_windows(tenant, dag_id, [key])

    async def _pinned(self, tenant: str, trigger: Trigger, window: Window | None) -> int:
        """The version a restart keeps; 0 = none, or the request does not ask for it."""
        if window is None or not trigger.pinned_version or trigger.reprocess == "none":
            return 0
        row = (await self._journal.by_window(tenant, trigger.dag_id, [window.key()])).get(window.key())
        return row.dag_version if row else 0


def _window(definition: Definition, trigger: Trigger) -> Window | None:
    """What a manual run is about. Raises Invalid."""
    if trigger.partition:
        partitions.check_one(trigger.partition, definition.partitions)
        return Window(partition=trigger.partition)
    return windows.manual_window(trigger.start, trigger.end)


def _outcomes(
    triggers: Sequence[Trigger], runs: Sequence[CreatedRun], errors: Mapping[int, OrchestratorError]
) -> list[Triggered | OrchestratorError]:
    made = iter(runs)
    return [errors[n] if n in errors else _triggered(trigger, next(made)) for n, trigger in enumerate(triggers)]


def _triggered(trigger: Trigger, run: CreatedRun) -> Triggered:
    return Triggered(run.run_id, trigger.dag_id, "manual", run.state, existing=run.how == "existing")
