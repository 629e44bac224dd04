"""What artifacts take, and what sweeps removed: from the journal's integers and records to Prometheus families.

    artifact_files_removed, artifact_bytes_removed     that went
    artifact_sweeps_<end>                              done | failed (for good) | put_off (journal or store away)

The counters are there from the start, as 0. What is there is known from the last sweep that was done, dry runs among
them, as far as it is in folders: a store behind a URL is not measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from orchestrator.reclaim import ArtifactSweep
from orchestrator.sweeps import ENDS

_REMOVED = (
    ("orchestrator_artifact_removed_files", "Files of large values that sweeps removed", "artifact_files_removed"),
    ("orchestrator_artifact_removed_bytes", "Bytes of large values that sweeps removed", "artifact_bytes_removed"),
)


def families(counters: Mapping[str, int], sweeps: Iterable[ArtifactSweep]) -> Iterator[Metric]:
    """Everything that is known of artifacts."""
    for name, text, field in _REMOVED:
        yield CounterMetricFamily(name, text, value=counters.get(field, 0))
    ended = CounterMetricFamily("orchestrator_artifact_sweeps", "Sweeps of large values, by their end", labels=("end",))
    for end in ENDS:
        ended.add_metric((end,), counters.get(f"artifact_sweeps_{end}", 0))
    yield ended
    files = GaugeMetricFamily("orchestrator_artifact_files", "Files of large values, when the last sweep ended")
    size = GaugeMetricFamily("orchestrator_artifact_bytes", "Bytes of large values, when the last sweep ended")
    done = [sweep for sweep in sweeps if sweep.state == "done"]
    if done:
        there = max(done, key=lambda sweep: sweep.updated_ms).there
        files.add_metric((), there.files)
        size.add_metric((), there.size_bytes)
    yield from (files, size)
