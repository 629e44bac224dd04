"""The whole system's metrics: from the journal's integers to Prometheus families, and back.

    runs_total|<dag>|<core state>                       runs that ended
    run_latency_seconds|<dag>|le|<bound>, |sum_ms, |count   created to finished
    sla_breaches_total|<dag>, task_sla_breaches_total|<dag>
    task_cache_hits_total|<dag>, task_cache_misses_total|<dag>
    triggered_runs_total|<dag>                          runs that started because of other DAGs or of assets
    schedule_fires_dropped_total|<dag>|<reason>
    slot_time_ms|<tenant>|<class>
    pipeline_jobs_lost_total|@ci, pipeline_jobs_retried_total|@ci
    orchestrator_jobs_total|<blueprint>, orchestrator_jobs_failed_total|<blueprint>
    orchestrator_job_duration_seconds|le|<bound>, |sum_ms, |count
    orchestrator_*                                      of tasks, maps and waits: see actors/run_counts.py
    archive_*                                           see serve_app/archive_figures.py
    http|<method>|<route>|<status>|le|<bound>, |sum_us, |count

A bucket holds the observations that no smaller one holds; Prometheus wants them summed up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from orchestrator.cluster_views import WorkerView
from orchestrator.ports import LATENCY_BOUNDS
from serve_app.ports import Observation

HTTP_BOUNDS = (0.005, 0.01, 0.05, 0.1, 0.3, 0.5, 1, 2, 5)
#: gauge, what it says, its name in the scheduler's answer
_GAUGES = (
    ("orchestrator_task_queue_length", "Ready tasks that wait for a worker slot", "waiting_tasks"),
    ("orchestrator_active_workers", "Worker slots that take work", "workers"),
    ("orchestrator_queued_runs", "Runs that wait for admission", "queued_runs"),
    ("orchestrator_active_runs", "Runs that were admitted and have not ended", "active_runs"),
    ("orchestrator_oldest_queued_run_seconds", "How long the run waits for admission that waits longest", "oldest_s"),
)
#: the same of the gateway, with its names in the gateway's answer; where both have a gauge their values add up
_OUTSIDE = (
    ("orchestrator_task_queue_length", "Ready tasks that wait for a worker slot", "task_queue_length"),
    ("orchestrator_active_workers", "Worker slots that take work", "active_workers"),
    ("orchestrator_leased_tasks", "Tasks of jobs that remote workers have", "leased_tasks"),
    ("orchestrator_open_polls", "Remote workers that wait for a task", "open_polls"),
    ("orchestrator_live_jobs", "Jobs of blueprints that have not ended", "jobs"),
)
#: counters of runs' tasks, without the first part of their names: what they say, their labels
_TASK_COUNTERS = (
    ("tasks", "Tasks, and instances of mapped ones, that came to an end", ("dag", "state")),
    ("task_retries", "Attempts after which the task starts again", ("dag", "reason")),
    ("maps", "Maps that unfolded", ("dag",)),
    ("map_instances", "Instances that maps unfolded into", ("dag",)),
    ("task_waits", "Waits without a worker that began", ("dag", "kind")),
    ("signals", "Signals that runs received", ("dag",)),
    ("votes", "Votes on approvals that counted", ("dag",)),
    ("run_compensations", "Runs that began to compensate", ("dag",)),
    ("value_written_bytes", "Large values that tasks returned", ("dag",)),
    ("value_read_bytes", "Large values that tasks were given", ("dag",)),
    ("value_fetched_bytes", "Of these, what had to come from another node or from the store", ("dag",)),
    ("values_lost", "Large values that were gone, and were computed again", ("dag",)),
)
_TASK_HISTOGRAMS = (
    ("task_duration_seconds", "Start to end of an attempt", "dag"),
    ("task_wait_seconds", "Begin to end of a wait without a worker", "kind"),
)
#: the state label is a run's `state` as the dags surface shows it
_STATE_LABELS = {"succeeded": "success", "timed_out": "failed", "quarantined": "failed"}


def families(
    counters: Mapping[str, int],
    load: Mapping[str, int] | None,
    outside: Mapping[str, int] | None = None,
    workers: Sequence[WorkerView] | None = None,
) -> list[Metric]:
    """Everything there is; `load` is what the scheduler says of now, `outside` the gateway, `workers` the supervisor.

    None = it could not say.
    """
    found: list[Metric] = [
        _runs(counters),
        _histogram("run_latency_seconds", "Created to finished", ("dag",), LATENCY_BOUNDS, counters),
        *_of_tasks(counters),
        _plain("sla_breaches", "Runs that were not over at their deadline", counters),
        _plain("task_sla_breaches", "Tasks that were not over at their deadline", counters),
        _plain("task_cache_hits", "Tasks that had the result of an equal one", counters),
        _plain("task_cache_misses", "Tasks that were computed although they are cached", counters),
        _plain("triggered_runs", "Runs that started because of other DAGs or of assets", counters),
        _counted("schedule_fires_dropped", "Fires that started no run", ("dag", "reason"), counters),
        _slot_time(counters),
        _plain("pipeline_jobs_lost", "CI jobs that were queued again because their runner was lost", counters),
        _plain("pipeline_jobs_retried", "CI jobs that were queued again because they failed", counters),
        _plain("orchestrator_jobs", "Jobs of blueprints that began", counters, "blueprint"),
        _plain("orchestrator_jobs_failed", "Jobs that ended neither finished nor cancelled", counters, "blueprint"),
        _histogram("orchestrator_job_duration_seconds", "Created to its end", (), LATENCY_BOUNDS, counters),
        _histogram(
            "http_request_duration_seconds",
            "Time to answer",
            ("method", "route", "status_code"),
            HTTP_BOUNDS,
            {f"http_request_duration_seconds{f[4:]}": n for f, n in counters.items() if f.startswith("http|")},
        ),
    ]
    return [*found, *_gauges(load, outside), *([] if workers is None else [_slots(workers)])]


def _slots(workers: Sequence[WorkerView]) -> Metric:
    family = GaugeMetricFamily("orchestrator_workers", "Worker slots, by what they are at", labels=("pool", "state"))
    for labels, n in sorted(Counter((worker.pool, worker.state) for worker in workers).items()):
        family.add_metric(labels, n)
    return family


def _gauges(load: Mapping[str, int] | None, outside: Mapping[str, int] | None) -> Iterator[Metric]:
    values: Counter[str] = Counter()
    texts: dict[str, str] = {}
    for gauges, said in ((_GAUGES, load), (_OUTSIDE, outside)):
        for name, text, key in gauges if said is not None else ():
            texts.setdefault(name, text)
            values[name] += (said or {}).get(key, 0)
    for name, text in texts.items():
        yield GaugeMetricFamily(name, text, value=values[name])


def http_counts(observations: Sequence[Observation]) -> list[tuple[str, int]]:
    """What to add to the journal's integers."""
    counts: Counter[str] = Counter()
    for method, route, status, seconds in observations:
        base = f"http|{method}|{route.replace('|', '/')}|{status}"
        place = bisect_left(HTTP_BOUNDS, seconds)
        if place < len(HTTP_BOUNDS):
            counts[f"{base}|le|{HTTP_BOUNDS[place]}"] += 1
        counts[f"{base}|sum_us"] += round(seconds * 1e6)
        counts[f"{base}|count"] += 1
    return list(counts.items())


def _runs(counters: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily("runs", "Runs that ended", labels=("dag", "state"))
    totals: Counter[tuple[str, str]] = Counter()
    for name, n in counters.items():
        if name.startswith("runs_total|"):
            _, dag, state = name.split("|")
            totals[dag, _STATE_LABELS.get(state, state)] += n
    for labels, n in sorted(totals.items()):
        family.add_metric(labels, n)
    return family


def _of_tasks(counters: Mapping[str, int]) -> Iterator[Metric]:
    """What `actors/run_counts.py` counts."""
    for name, text, labels in _TASK_COUNTERS:
        yield _counted(f"orchestrator_{name}", text, labels, counters)
    for name, text, label in _TASK_HISTOGRAMS:
        yield _histogram(f"orchestrator_{name}", text, (label,), LATENCY_BOUNDS, counters)


def _slot_time(counters: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(
        "orchestrator_slot_seconds", "Time of worker slots that runs have used", labels=("tenant", "class")
    )
    for key, ms in sorted(counters.items()):
        if key.startswith("slot_time_ms|"):
            family.add_metric(key.split("|")[1:], ms / 1000)
    return family


def _plain(name: str, help_text: str, counters: Mapping[str, int], label: str = "dag") -> Metric:
    return _counted(name, help_text, (label,), counters)


def _counted(name: str, help_text: str, labels: tuple[str, ...], counters: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for key, n in sorted(counters.items()):
        if key.startswith(f"{name}_total|"):
            family.add_metric(key.split("|")[1:], n)
    return family


def _histogram(
    name: str, help_text: str, labels: tuple[str, ...], bounds: Sequence[float], counters: Mapping[str, int]
) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=labels)
    kept: dict[tuple[str, ...], dict[str, int]] = {}
    for key, n in counters.items():
        if key.startswith(f"{name}|"):
            parts = key.split("|")
            kept.setdefault(tuple(parts[1 : 1 + len(labels)]), {})["|".join(parts[1 + len(labels) :])] = n
    for values, found in sorted(kept.items()):
        below, buckets = 0, list[tuple[str, float]]()
        for bound in bounds:
            below += found.get(f"le|{bound}", 0)
            buckets.append((str(float(bound)), below))
        total = found.get("sum_ms", 0) / 1e3 + found.get("sum_us", 0) / 1e6
        family.add_metric(values, [*buckets, ("+Inf", found.get("count", 0))], total)
    return family
