"""What one turn of a RunActor adds to the metrics, from the events that it commits.

    orchestrator_tasks_total|<dag>|<core task state>          tasks, and instances of mapped ones, that came to an end
    orchestrator_task_retries_total|<dag>|error, timed_out, lost
    orchestrator_task_duration_seconds|<dag>|le|<bound>, …    start to end of attempts that workers had
    orchestrator_maps_total|<dag>, orchestrator_map_instances_total|<dag>
    orchestrator_task_waits_total|<dag>|<kind>, orchestrator_task_wait_seconds|<kind>|le|<bound>, …
    orchestrator_value_written_bytes_total|<dag>, orchestrator_value_read_bytes_total|<dag>,
    orchestrator_value_fetched_bytes_total|<dag>              large values, as attempts that succeeded had them
    orchestrator_values_lost_total|<dag>
    orchestrator_signals_total|<dag>, orchestrator_votes_total|<dag>, orchestrator_run_compensations_total|<dag>

They go out with the commit itself, so a crash neither loses nor doubles any; what the journal refuses to append, since
somebody else wrote, is counted all the same, and again when it is decided again. One look-up an event, and sums are
made before anything is written as text, since this is on every task's way. Who waits right now is what began less what
ended: no gauge has to survive a restart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from orchestrator import events as e
from orchestrator.definition import HIDDEN
from orchestrator.messages import Report
from orchestrator.ports import LATENCY_BOUNDS
from orchestrator.run_state import Run

#: of an attempt's end that says so, the attempt never began
_NEVER_BEGAN = frozenset({"queued", "sla"})
#: (its events since the last commit, tasks whose waits ended among them: kind, seconds)
Happened = tuple[Run, list[e.Event], dict[str, tuple[str, float]]]


def label_of(dag_id: str) -> str:
    """The name that a definition is counted under; of one that is nobody's DAG, its kind."""
    return dag_id.partition("/")[0] if dag_id.startswith(HIDDEN) else dag_id


def counts_of(happened: Iterable[Happened]) -> Counter[str]:
    """Metric field -> increment."""
    by_dag: dict[str, _Sums] = {}
    waits: dict[str, _Histogram] = {}
    for run, events, waited in happened:
        sums = by_dag.get(run.dag_id)
        if sums is None:
            sums = by_dag[run.dag_id] = _Sums()
        for event in events:
            look = _LOOKS.get(type(event))
            if look is not None:
                look(sums, run, event, waited)
        for kind, seconds in waited.values():
            waits.setdefault(kind, _Histogram()).add(seconds)
    counts: Counter[str] = Counter()
    for dag_id, sums in by_dag.items():
        sums.write(label_of(dag_id), counts)
    for kind, histogram in waits.items():
        histogram.write(f"orchestrator_task_wait_seconds|{kind}", counts)
    return counts


class _Histogram:
    """Observations, as buckets that do not add up yet."""

    __slots__ = ("_buckets", "_n", "_sum_s")

    def __init__(self) -> None:
        self._buckets = [0] * (len(LATENCY_BOUNDS) + 1)
        self._sum_s = 0.0
        self._n = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self._buckets[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self._sum_s += seconds
        self._n += 1

    def write(self, base: str, counts: Counter[str]) -> None:
        """Add it to `counts`, unless nothing was observed."""
        if not self._n:
            return
        for bound, n in zip(LATENCY_BOUNDS, self._buckets, strict=False):
            if n:
                counts[f"{base}|le|{bound}"] += n
        counts[f"{base}|sum_ms"] += round(self._sum_s * 1000)
        counts[f"{base}|count"] += self._n


class _Sums:
    """Of one DAG."""

    __slots__ = ("durations", "named", "states")

    def __init__(self) -> None:
        #: core task state -> tasks that came to it
        self.states: dict[str, int] = {}
        self.durations = _Histogram()
        #: (metric, more labels) -> increment
        self.named: dict[tuple[str, str], int] = {}

    def ended(self, state: str) -> None:
        """A task came to its end."""
        self.states[state] = self.states.get(state, 0) + 1

    def add(self, metric: str, more: str = "", n: int = 1) -> None:
        """Count something less frequent."""
        self.named[metric, more] = self.named.get((metric, more), 0) + n

    def write(self, label: str, counts: Counter[str]) -> None:
        """Add everything to `counts`."""
        for state, n in self.states.items():
            counts[f"orchestrator_tasks_total|{label}|{state}"] += n
        self.durations.write(f"orchestrator_task_duration_seconds|{label}", counts)
        for (metric, more), n in self.named.items():
            counts[f"{metric}|{label}{more}"] += n


# Events by their kinds; Any because each of these takes one kind, which the table below pairs it with.


def _succeeded(sums: _Sums, run: Run, event: Any, waited: dict[str, tuple[str, float]]) -> None:
    sums.ended("succeeded")
    _took(sums, run, event, waited)


def _failed(sums: _Sums, run: Run, event: Any, waited: dict[str, tuple[str, float]]) -> None:
    sums.ended("timed_out" if event.timed_out else "failed")
    if event.reason not in _NEVER_BEGAN:
        _took(sums, run, event, waited)


def _retrying(sums: _Sums, run: Run, event: Any, waited: dict[str, tuple[str, float]]) -> None:
    reason = "lost" if event.lost else "timed_out" if event.reason else "error"
    sums.add("orchestrator_task_retries_total", f"|{reason}")
    _took(sums, run, event, waited)


def _took(sums: _Sums, run: Run, event: Any, waited: dict[str, tuple[str, float]]) -> None:
    """How long the attempt took, if a worker had it and no later one has begun in this very turn."""
    position = run.compiled.graph.index.get(event.task)
    if position is None or position in run.compiled.maps or event.task in waited:
        return
    task = run.tasks[position]
    if task.attempt == event.attempt and task.started_at is not None:
        sums.durations.add(max(0.0, (event.at - task.started_at).total_seconds()))


def _ended(state: str) -> Callable[..., None]:
    return lambda sums, *_: sums.ended(state)


def _one(metric: str) -> Callable[..., None]:
    return lambda sums, *_: sums.add(metric)


def _expanded(sums: _Sums, _run: Run, event: Any, _waited: object) -> None:
    sums.add("orchestrator_maps_total")
    sums.add("orchestrator_map_instances_total", n=event.count)


def _waiting(sums: _Sums, _run: Run, event: Any, _waited: object) -> None:
    sums.add("orchestrator_task_waits_total", f"|{kind_of(event.wait)}")


def kind_of(wait: e.Wait) -> str:
    """What it waits for, in a word."""
    return wait.kind or "nothing"


def _reset(sums: _Sums, _run: Run, event: Any, _waited: object) -> None:
    if event.lost:
        sums.add("orchestrator_values_lost_total")


def moved(report: Report) -> Iterator[tuple[str, int]]:
    """Metric, without its label, and increment: large values that went through the hands of an attempt."""
    if report.value.artifact is not None:
        yield "orchestrator_value_written_bytes_total", report.value.size_bytes
    if report.read_bytes:
        yield "orchestrator_value_read_bytes_total", report.read_bytes
    if report.fetched_bytes:
        yield "orchestrator_value_fetched_bytes_total", report.fetched_bytes


_LOOKS: dict[type[e.Event], Callable[[_Sums, Run, Any, dict[str, tuple[str, float]]], None]] = {
    e.TaskSucceeded: _succeeded,
    e.TaskFailed: _failed,
    e.TaskRetrying: _retrying,
    e.TaskMarked: _ended("succeeded"),
    e.TaskSkipped: _ended("skipped"),
    e.TaskUpstreamFailed: _ended("upstream_failed"),
    e.TaskCancelled: _ended("cancelled"),
    e.TaskExpanded: _expanded,
    e.TaskWaiting: _waiting,
    e.TaskReset: _reset,
    e.TaskSuspended: lambda sums, *_: sums.add("orchestrator_task_waits_total", "|sleep"),
    e.SignalReceived: _one("orchestrator_signals_total"),
    e.VoteCast: _one("orchestrator_votes_total"),
    e.RunCompensating: _one("orchestrator_run_compensations_total"),
}
