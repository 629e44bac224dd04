"""The whole system's metrics: from the journal's integers to Prometheus families, and back.

    runs_total|<dag>|<core state>                       runs that ended
    run_latency_seconds|<dag>|le|<bound>, |sum_ms, |count   created to finished
    sla_breaches_total|<dag>
    http|<method>|<route>|<status>|le|<bound>, |sum_us, |count

A bucket holds the observations that no smaller one holds; Prometheus wants them summed up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from orchestrator.ports import LATENCY_BOUNDS
from serve_app.ports import Observation

HTTP_BOUNDS = (0.005, 0.01, 0.05, 0.1, 0.3, 0.5, 1, 2, 5)
#: gauge, what it says, its name in the scheduler's answer
_GAUGES = (
    ("orchestrator_task_queue_length", "Ready tasks that wait for a worker slot", "waiting_tasks"),
    ("orchestrator_active_workers", "Worker slots that take work", "workers"),
    ("orchestrator_queued_runs", "Runs that wait for admission", "queued_runs"),
    ("orchestrator_active_runs", "Runs that were admitted and have not ended", "active_runs"),
)
#: the state label is a run's `state` as the dags surface shows it
_STATE_LABELS = {"succeeded": "success", "timed_out": "failed", "quarantined": "failed"}


def families(counters: Mapping[str, int], load: Mapping[str, int] | None) -> list[Metric]:
    """Everything there is; `load` is what the scheduler says of now, None when it could not say."""
    found: list[Metric] = [
        _runs(counters),
        _histogram("run_latency_seconds", "Created to finished", ("dag",), LATENCY_BOUNDS, counters),
        _plain("sla_breaches", "Runs that were not over at their deadline", counters),
        _plain("schedule_fires_missed", "Scheduled fires that were dropped because they were too late", counters),
        _histogram(
            "http_request_duration_seconds",
            "Time to answer",
            ("method", "route", "status_code"),
            HTTP_BOUNDS,
            {f"http_request_duration_seconds{f[4:]}": n for f, n in counters.items() if f.startswith("http|")},
        ),
    ]
    if load is not None:
        found += [GaugeMetricFamily(name, text, value=load.get(key, 0)) for name, text, key in _GAUGES]
    return found


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


def _plain(name: str, help_text: str, counters: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=("dag",))
    for key, n in sorted(counters.items()):
        if key.startswith(f"{name}_total|"):
            family.add_metric((key.split("|")[1],), n)
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
