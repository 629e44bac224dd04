"""Limits of tenants as people define and see them.

Definitions are records of the journal, written by the scheduler, which counts: when it has answered, the new numbers
are durable and hold. What is defined can be read without it; what runs and waits now is its to say.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from orchestrator import actor_codec, codec
from orchestrator.cluster_views import LimitView, RunWaiting
from orchestrator.control import LimitUsage
from orchestrator.errors import NotFound, OrchestratorError
from orchestrator.limits import LIMITS, NO_LIMIT, Limit, check
from orchestrator.needs import dag_key, limit_key
from orchestrator.ports import ControlPlane, Journal
from serve_app.deadlines import DEADLINE_S, within


class LimitBook:
    """`ports.Limits` over the journal and the scheduler."""

    def __init__(self, journal: Journal, control: ControlPlane) -> None:
        self._journal = journal
        self._control = control

    @within(DEADLINE_S)
    async def limits(self, tenant: str) -> list[LimitView]:
        """Limits that are defined, or in use without a definition, and DAGs with `max_active_tasks`; by name."""
        mine = limit_key(tenant, "")
        defined = {
            key.removeprefix(mine): codec.decode_limit(record)
            for key, record in (await self._journal.records(LIMITS)).items()
            if key.startswith(mine)
        }
        usage = {use.key: use for use in await self.usage()}
        names = {key.removeprefix(mine) for key in usage if key.startswith(mine)}
        views = [_view(name, defined.get(name), usage.get(mine + name)) for name in sorted(defined.keys() | names)]
        dags = dag_key(tenant, "")
        return views + [
            LimitView(key.removeprefix(dags), "dag", running=use.running, waiting=use.waiting)
            for key, use in sorted(usage.items())
            if key.startswith(dags)
        ]

    @within(DEADLINE_S)
    async def limit(self, tenant: str, name: str) -> LimitView:
        """One that is defined. Raises NotFound."""
        record = await self._journal.record(LIMITS, limit_key(tenant, name))
        if record is None:
            raise NotFound("limit", name)
        usage = {use.key: use for use in await self.usage()}
        return _view(name, codec.decode_limit(record), usage.get(limit_key(tenant, name)))

    @within(DEADLINE_S)
    async def set_limit(self, tenant: str, name: str, limit: Limit) -> LimitView:
        """The limit is so from now on. Raises Invalid."""
        check(limit)
        await self._control.set_limit(actor_codec.encode_limit_change(limit_key(tenant, name), limit))
        return await self.limit(tenant, name)

    @within(DEADLINE_S)
    async def delete_limit(self, tenant: str, name: str) -> None:
        """There is no such limit any more. Raises NotFound."""
        if await self._journal.record(LIMITS, limit_key(tenant, name)) is None:
            raise NotFound("limit", name)
        await self._control.set_limit(actor_codec.encode_limit_change(limit_key(tenant, name), None))

    @within(DEADLINE_S)
    async def waiting(self, tenant: str, run_id: str) -> RunWaiting:
        """What a run waits for: a place or a share of slots, and each ready task for which limits. Raises NotFound."""
        from serve_app.ready_tasks import waiting_tasks  # what folds runs is not needed before somebody asks

        usage = {use.key: use for use in await self.usage()}
        tasks = await waiting_tasks(self._journal, self._control, usage, tenant, run_id)
        return msgspec.structs.replace(await self._explain(run_id), tasks=tuple(tasks))

    async def _explain(self, run_id: str) -> RunWaiting:
        """What the scheduler says; nothing when it does not answer."""
        try:
            return actor_codec.decode_waiting(await self._control.explain(run_id))
        except OrchestratorError:
            return RunWaiting(run_id)

    async def usage(self) -> Iterable[LimitUsage]:
        """Nothing when the scheduler does not answer: what is defined can be seen all the same."""
        try:
            return actor_codec.decode_usage(await self._control.limit_usage())
        except OrchestratorError:
            return ()


def _view(name: str, limit: Limit | None, use: LimitUsage | None) -> LimitView:
    found = limit or NO_LIMIT
    running, waiting = (use.running, use.waiting) if use is not None else (0, 0)
    return LimitView(name, "limit", limit is not None, found.max_running, found.rate, running, waiting)
