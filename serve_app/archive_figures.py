"""What left for the archive, and how its sweeps went: from the journal's integers and records to Prometheus families.

    archive_runs, archive_backfills     that left; counted in the step that removes them from the journal
    archive_segments, archive_bytes     written, once they are in the index
    archive_sweeps_<end>                done | failed (for good) | put_off (journal or store away; tried again)

All are there from the start, as 0, so that an alert sees the first failure grow. How old the last sweep is, is known of
those that the journal still tells of (`sweeps.TOLD`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from orchestrator.archive import Sweep
from orchestrator.sweeps import ENDS

_KINDS = (("run", "archive_runs"), ("backfill", "archive_backfills"))
_PLAIN = (
    ("orchestrator_archive_segments", "Segments that were written", "archive_segments"),
    ("orchestrator_archive_bytes", "Bytes of segments that were written", "archive_bytes"),
)


def families(counters: Mapping[str, int], sweeps: Iterable[Sweep], now_ms: int) -> Iterator[Metric]:
    """Everything that is known of the archive."""
    left = CounterMetricFamily("orchestrator_archive_runs", "Runs that left for the archive", labels=("kind",))
    for kind, field in _KINDS:
        left.add_metric((kind,), counters.get(field, 0))
    ended = CounterMetricFamily("orchestrator_archive_sweeps", "Sweeps for the archive, by their end", labels=("end",))
    for end in ENDS:
        ended.add_metric((end,), counters.get(f"archive_sweeps_{end}", 0))
    yield from (left, ended)
    for name, text, field in _PLAIN:
        yield CounterMetricFamily(name, text, value=counters.get(field, 0))
    done = [sweep.updated_ms for sweep in sweeps if sweep.state == "done"]
    age = GaugeMetricFamily("orchestrator_archive_last_sweep_age_seconds", "Since the last sweep that was done ended")
    if done:
        age.add_metric((), max(0, now_ms - max(done)) / 1000)
    yield age
