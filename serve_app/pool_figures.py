"""Gauges and counters of pools of workers, beside the slots by state and the queue by pool.

pool_scale_events_total|<pool>|up, |down    how often the rule gave an elastic pool more or fewer workers
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from orchestrator.cluster_views import PoolView

_EVENTS = "pool_scale_events_total|"


def families(counters: Mapping[str, int], pools: Iterable[PoolView]) -> Iterator[Metric]:
    """How many workers there should be, are, and work; how often that changed by itself."""
    wanted = GaugeMetricFamily("orchestrator_pool_workers_wanted", "Workers that a pool should have", labels=("pool",))
    alive = GaugeMetricFamily("orchestrator_pool_workers_ready", "Workers of a pool that take work", labels=("pool",))
    busy = GaugeMetricFamily("orchestrator_pool_workers_busy", "Workers of a pool that have work", labels=("pool",))
    most = GaugeMetricFamily("orchestrator_pool_workers_max", "Workers that a pool may have", labels=("pool",))
    wait = GaugeMetricFamily("orchestrator_pool_wait_seconds", "How long some tasks have waited", labels=("pool",))
    for view in pools:
        wanted.add_metric((view.name,), view.wanted)
        alive.add_metric((view.name,), view.workers - view.starting)
        busy.add_metric((view.name,), view.busy)
        most.add_metric((view.name,), view.spec.max)
        wait.add_metric((view.name,), view.waiting_s)
    yield from (wanted, alive, busy, most, wait)
    events = CounterMetricFamily(
        "orchestrator_pool_scale_events", "Times a pool's number of workers followed its load", labels=("pool", "to")
    )
    for name, n in counters.items():
        if name.startswith(_EVENTS):
            events.add_metric(name.removeprefix(_EVENTS).split("|"), n)
    yield events
