"""DAGs as callers define them: their versions, whether they are paused, and when their schedules fire next."""

from __future__ import annotations

import re

import msgspec

from actors.clock import Clock
from actors.hosted import milliseconds
from orchestrator import awaited, codec
from orchestrator.definition import Definition, content_hash
from orchestrator.errors import Conflict, NotFound, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.ports import Journal
from orchestrator.rows import DagRow
from orchestrator.steps import DagWritten, PutDag, StoredReply
from orchestrator.views import DagDefined, DagView, Page
from serve_app import call_cycles, rendering
from serve_app.asking import KEY_REUSED
from serve_app.cursors import cursor_of, name_of
from serve_app.dag_book import DagBook
from serve_app.pool_book import define_pools
from serve_app.ports import Expect
from serve_app.starters import Starters, would_start_itself
from serve_app.steps import TRIES

#: DAGs read at once when a list is filtered
_DAGS_CHUNK = 200
_DAG_ID = re.compile(r"[A-Za-z0-9_.-]{1,250}")


class Definitions:
    """The gateway's part about DAGs; deadlines are the gateway's."""

    def __init__(self, journal: Journal, book: DagBook, starters: Starters, clock: Clock, dags_max: int) -> None:
        self._journal = journal
        self._book = book
        self._starters = starters
        self._clock = clock
        self._dags_max = dags_max

    async def define(
        self, tenant: str, definition: Definition, *, keep_tasks: bool, expect: Expect, idem: Idempotency | None
    ) -> DagDefined:
        """Store a definition; with `keep_tasks` an existing DAG keeps its tasks. Raises Invalid, Conflict."""
        for _ in range(TRIES):
            row = await self._journal.dag(tenant, definition.dag_id)
            if expect is not None and await self._key_is_free(idem):
                _check_expected(definition.dag_id, row, expect)
            await call_cycles.check(self._book, tenant, definition)
            step = self._put(tenant, definition, row, keep_tasks, idem)
            await define_pools(self._journal, definition)
            written = await self._journal.put_dag(step)
            if written.status == "full":
                raise Conflict(f"a tenant has at most {self._dags_max} DAGs")
            if written.status == "circle":
                raise would_start_itself(written)
            if written.status != "changed":
                self._book.forget(tenant, definition.dag_id)
                return _defined(definition.dag_id, written)
        raise Unavailable(f"DAG {definition.dag_id} changes too fast")

    async def dag(self, tenant: str, dag_id: str) -> DagView:
        """The current version of one DAG, with what it waits for. Raises NotFound."""
        row = await self._journal.dag(tenant, dag_id)
        if row is None:
            raise NotFound("DAG", dag_id)
        view = rendering.dag_view(row)
        return msgspec.structs.replace(view, awaits=await self._starters.awaits(tenant, view.definition))

    async def dags(
        self, tenant: str, *, paused: bool | None, owner: str | None, cursor: str | None, limit: int
    ) -> Page[DagView]:
        """DAGs by id. Raises Invalid about the cursor."""
        after = name_of(cursor, _DAG_ID)
        found: list[DagView] = []
        while True:
            rows = await self._journal.dags(tenant, after, _DAGS_CHUNK)
            for row in rows:
                view = rendering.dag_view(row)
                if paused in (None, view.paused) and owner in (None, view.definition.owner):
                    if len(found) == limit:
                        return Page(tuple(found), cursor_of(found[-1].definition.dag_id))
                    found.append(view)
            if len(rows) < _DAGS_CHUNK:
                return Page(tuple(found))
            after = rows[-1].dag_id

    async def switch(self, tenant: str, dag_id: str, paused: bool, idem: Idempotency | None) -> DagDefined:
        """Pauses or resumes the DAG. Raises NotFound, Conflict."""
        written = await self._journal.set_paused(tenant, dag_id, paused, self._now_ms(), _stored(idem))
        if written.status == "missing":
            raise NotFound("DAG", dag_id)
        return _defined(dag_id, written)

    def _put(
        self, tenant: str, definition: Definition, row: DagRow | None, keep_tasks: bool, idem: Idempotency | None
    ) -> PutDag:
        before = codec.decode_definition(row.definition) if row else None
        next_fire_ms, next_due_ms = self._next_fire(tenant, definition, before)
        if keep_tasks and before:
            definition = msgspec.structs.replace(definition, tasks=before.tasks, bundle=before.bundle)
        return PutDag(
            tenant=tenant,
            dag_id=definition.dag_id,
            definition=codec.encode_definition(definition),
            content_hash=content_hash(definition),
            owner=definition.owner,
            now_ms=self._now_ms(),
            base_version=row.version if row else 0,
            next_fire_ms=next_fire_ms,
            next_due_ms=next_due_ms,
            max_dags=self._dags_max,
            idem=_stored(idem),
            follows=awaited.follows(definition),
            makes=awaited.makes(definition),
        )

    def _next_fire(self, tenant: str, definition: Definition, before: Definition | None) -> tuple[int | None, int]:
        """The fire at which the schedule stands, and when it happens; None when it stays where it is.

        A new or changed schedule starts now: nothing in the past is missed.
        """
        from orchestrator import fires

        if before and fires.same_times(definition, before):
            return None, 0
        timetable = fires.timetable_of(definition, tenant)
        fire = timetable.next(self._clock.now()) if timetable else None
        if timetable is None or fire is None:
            return 0, 0
        return milliseconds(fire), milliseconds(timetable.due(fire))

    async def _key_is_free(self, idem: Idempotency | None) -> bool:
        """A repetition meets the version it made itself; the journal answers it whatever it expects."""
        return idem is None or await self._journal.stored_reply(idem.key) is None

    def _now_ms(self) -> int:
        return milliseconds(self._clock.now())


def _check_expected(dag_id: str, row: DagRow | None, expect: Expect) -> None:
    if row is None:
        raise Conflict(f"DAG {dag_id} does not exist")
    if expect not in ("any", row.version):
        raise Conflict(f"DAG {dag_id} has version {row.version}, not {expect}")


def _defined(dag_id: str, written: DagWritten) -> DagDefined:
    if written.status == "conflict":
        raise Conflict(KEY_REUSED)
    return DagDefined(dag_id, written.version, written.paused, replayed=written.status == "replayed")


def _stored(idem: Idempotency | None) -> StoredReply | None:
    return None if idem is None else StoredReply(idem.key, idem.fingerprint)
