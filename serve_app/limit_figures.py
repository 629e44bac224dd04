"""Gauges of pools and limits, as the scheduler sees them now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from orchestrator.control import LimitUsage
from orchestrator.needs import DEFAULT_POOL

_POOL = "pool_waiting|"
#: first part of a key -> what its label begins with
_KINDS = {"l": "", "d": "dag:"}


def families(usage: Iterable[LimitUsage], load: Mapping[str, int] | None) -> Iterator[Metric]:
    """Permits in use and tasks that wait, per limit; tasks that wait, per pool."""
    labels = ("tenant", "limit")
    running = GaugeMetricFamily("limit_running", "Permits in use", labels=labels)
    waiting = GaugeMetricFamily("limit_waiting", "Ready tasks that wait and need a permit", labels=labels)
    for use in usage:
        kind, tenant, name = use.key.split("/", 2)
        running.add_metric((tenant, _KINDS[kind] + name), use.running)
        waiting.add_metric((tenant, _KINDS[kind] + name), use.waiting)
    pools = GaugeMetricFamily("pool_queue_length", "Ready tasks that wait, by pool", labels=("pool",))
    for pool, n in (pools_of(load) if load is not None else {}).items():
        pools.add_metric((pool,), n)
    yield from (running, waiting, pools)


def pools_of(load: Mapping[str, int]) -> dict[str, int]:
    """pool -> ready tasks that wait; in the default pool those without any need, too."""
    needy = {key.removeprefix(_POOL): n for key, n in load.items() if key.startswith(_POOL)}
    plain = load.get("plain_waiting", 0)
    return {DEFAULT_POOL: plain + needy.pop(DEFAULT_POOL, 0)} | needy
