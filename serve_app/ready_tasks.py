"""Why the ready tasks of a run have not started: what each waits for, as things are now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from actors.hosted import HostedRun
from actors.reading import Reader
from orchestrator import actor_codec, codec
from orchestrator.cluster_views import WaitingView
from orchestrator.control import LimitUsage
from orchestrator.definition import HIDDEN
from orchestrator.errors import NotFound
from orchestrator.limits import LIMITS, Limit
from orchestrator.messages import Need
from orchestrator.needs import DEFAULT_POOL, dag_key
from orchestrator.permits import Permits
from orchestrator.ports import ControlPlane, Journal
from orchestrator.run_state import Run, going


async def waiting_tasks(
    journal: Journal, control: ControlPlane, usage: Mapping[str, LimitUsage], tenant: str, run_id: str
) -> list[WaitingView]:
    """Ready tasks of the run, each with its reasons. Raises NotFound."""
    history = next(iter(await journal.load([run_id])), None)
    if history is None or history.row.tenant != tenant or history.row.dag_id.startswith(HIDDEN):
        raise NotFound("run", run_id)
    hosted = await Reader(journal).revive(history)
    if not isinstance(hosted, HostedRun) or not going(hosted.run):
        return []
    limits = Permits()
    for key, record in (await journal.records(LIMITS)).items():
        limits.define(key, codec.decode_limit(record), 0.0)
    if (most := hosted.run.compiled.definition.max_active_tasks) is not None:
        limits.define(dag_key(tenant, hosted.run.dag_id), Limit(most), 0.0)
    pools = {worker.pool for worker in actor_codec.decode_workers(await control.workers())}
    return [
        WaitingView(hosted.run.compiled.graph.names[position], need.pool, tuple(_reasons(need, limits, usage, pools)))
        for position, need in _ready(hosted.run)
    ]


def _ready(run: Run) -> Iterator[tuple[int, Need]]:
    needs = run.aside.needs if run.aside is not None else ()
    for position in sorted({position for _, position in run.ready}):
        yield position, Need(DEFAULT_POOL)
    for position in sorted(run.aside.positions() if run.aside is not None else ()):
        yield position, needs[position] or Need(DEFAULT_POOL)


def _reasons(need: Need, limits: Permits, usage: Mapping[str, LimitUsage], pools: set[str]) -> Iterator[str]:
    """What it waits for; at least for a slot."""
    if need.pool not in pools:
        yield f"pool {need.pool} has no workers"
    for key, slots in need.keys:
        limit = limits.limit_of(key)
        running = usage[key].running if key in usage else 0
        kind, _, name = key.split("/", 2)
        shown = f"limit {name}" if kind == "l" else f"max_active_tasks of DAG {name}"
        if limit.max_running is not None and running + slots > limit.max_running:
            yield f"{shown}: {running} of {limit.max_running} in use"
        elif limit.rate is not None:
            yield f"{shown}: {limit.rate.count} starts in {limit.rate.per_s:g} s"
    yield f"a worker slot of pool {need.pool}"
