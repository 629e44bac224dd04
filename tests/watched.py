"""A world whose runs did everything that is counted, and what it then tells Prometheus; and `promtool`, where it is."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

import msgspec
import pytest

from orchestrator import events as e
from orchestrator.archive import Sweep
from orchestrator.cluster_views import PoolView, WorkerView
from orchestrator.command import Ballot
from orchestrator.control import LimitUsage
from orchestrator.definition import Definition, TaskSpec
from orchestrator.planes import PlaneView
from orchestrator.pools import PoolSpec
from orchestrator.reclaim import ArtifactSweep, Tally
from orchestrator.starts import Trigger
from serve_app import archive_figures, artifact_figures, bundles, figures, limit_figures, plane_figures, pool_figures
from serve_app.health import exposition
from serve_app.ports import Observation
from tests.invariants import check_versions
from tests.world import World
from tests.world_clients import TENANT

#: what the actors say of now
LOAD = {"queued_runs": 1, "active_runs": 2, "waiting_tasks": 3, "workers": 4, "plain_waiting": 2, "pool_waiting|gpu": 1}
OUTSIDE = {"task_queue_length": 1, "active_workers": 1, "leased_tasks": 1, "open_polls": 1, "jobs": 1}
WORKERS = [WorkerView("worker-default-0", "default", "busy"), WorkerView("worker-gpu-0", "gpu", "idle")]
POOLS = [PoolView("gpu", PoolSpec(max=4), wanted=2, workers=2, busy=1)]
PLANE = PlaneView("here", in_charge=True, age_s=1.5)
USAGE = [LimitUsage("l/t/warehouse", 1, 2), LimitUsage("d/t/etl", 1, 0)]
REQUESTS = [Observation("POST", "/api/v1/dags/{dag_id}/trigger", 202, 0.004)]
SWEEPS = [Sweep(id="automatic", before_ms=0, to="", state="done", updated_ms=45_000)]
ARTIFACT_SWEEPS = [ArtifactSweep(id="automatic", before_ms=0, state="done", there=Tally(2, 2_000_000))]
#: counted by what does not happen here
ELSEWHERE = {
    "pool_scale_events_total|gpu|up": 1,
    "orchestrator_run_compensations_total|d": 1,
    "sla_breaches_total|d": 1,
    "task_sla_breaches_total|d": 1,
    "schedule_fires_dropped_total|d|missed": 1,
    "orchestrator_value_written_bytes_total|d": 100_000,
    "orchestrator_value_read_bytes_total|d": 300_000,
    "orchestrator_value_fetched_bytes_total|d": 100_000,
    "orchestrator_values_lost_total|d": 1,
    "task_cache_hits_total|d": 1,
    "task_cache_misses_total|d": 1,
    "triggered_runs_total|d": 1,
    "slot_time_ms|t|manual": 1500,
    "pipeline_jobs_lost_total|@ci": 1,
    "pipeline_jobs_retried_total|@ci": 1,
    "orchestrator_jobs_total|flow": 2,
    "orchestrator_jobs_failed_total|flow": 1,
    "orchestrator_job_duration_seconds|le|1": 2,
    "orchestrator_job_duration_seconds|sum_ms": 900,
    "orchestrator_job_duration_seconds|count": 2,
}

TASKS = (
    TaskSpec("flaky", "core.sleep", retries=3, retry_delay_s=0.1),
    TaskSpec("each", "core.sleep", ("flaky",), expand={"item": [1, 2, 3]}),
    TaskSpec("pause", "core.wait", ("flaky",), params={"seconds": 2}),
    TaskSpec("go", "core.signal", ("flaky",), params={"name": "go"}),
    TaskSpec("ok", "core.approval", ("go",), params={"prompt": "Well?"}),
    TaskSpec("call", "core.dag", ("flaky",), params={"dag_id": "below"}),
)


@dataclass
class Watched:
    """What a world leaves behind."""

    run_id: str
    #: the run's events
    events: list[e.Event]
    #: the journal's
    counters: dict[str, int]
    #: of the scrape
    text: str


@cache
def watched() -> Watched:
    """A run with an attempt that failed, a map, waits of four kinds and a vote; it succeeds."""
    world = World(0)
    run_id = world.play_with(_course)
    counters = dict(world.journal.counters)
    events = check_versions(world.journal.runs[run_id].events)
    return Watched(run_id, events, counters, scrape(counters))


def scrape(counters: dict[str, int]) -> str:
    """What `GET /metrics` answers with these counters."""
    requests = dict(figures.http_counts(REQUESTS))
    families = figures.families(counters | ELSEWHERE | requests, LOAD, OUTSIDE, WORKERS)
    limits = limit_figures.families(USAGE, LOAD)
    archived = archive_figures.families(counters | ELSEWHERE, SWEEPS, 60_000)
    values = artifact_figures.families(counters | ELSEWHERE, ARTIFACT_SWEEPS)
    pools = pool_figures.families(counters | ELSEWHERE, POOLS)
    planes = plane_figures.families(PLANE)
    found = [*families, *limits, *archived, *values, *pools, *planes, *bundles.gauges([4096])]
    return exposition(found).decode()


async def _course(world: World) -> str:
    await world.clients.define(Definition(dag_id="below", owner="team", tasks=(TaskSpec("step", "core.sleep"),)))
    await world.clients.define(Definition(dag_id="d", owner="team", tasks=TASKS))
    gateway = world.clients.gateways[0]
    world.character.mischief.error = 1.0
    run_id = (await gateway.trigger(TENANT, Trigger(dag_id="d"), None)).run_id
    await _until(world, run_id, e.TaskRetrying)
    world.character.mischief.error = 0.0
    await gateway.waiting.signal(TENANT, run_id, "go", msgspec.Raw(b"1"), None, None)
    await _until(world, run_id, e.SignalConsumed)
    await asyncio.sleep(1.0)
    await gateway.waiting.decide(TENANT, run_id, "ok", Ballot("approve", "ada", ("client", "ada")), None)
    await _until(world, run_id, e.RunSucceeded)
    return run_id


async def _until(world: World, run_id: str, kind: type[e.Event]) -> None:
    async with asyncio.timeout(60.0):
        while not any(isinstance(event, kind) for event in check_versions(world.journal.runs[run_id].events)):  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.02)


def promtool(*arguments: str, given: str = "") -> None:
    """It has nothing to say against that. Skips where it is not installed (Debian: package `prometheus`)."""
    found = shutil.which(os.environ.get("PROMTOOL", "promtool"))
    if found is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([found, *arguments], input=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr.strip(), done.stderr
