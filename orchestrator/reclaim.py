"""Which artifacts may go: the large values of runs that ended long ago, when nothing that goes on needs them.

    <run id>/<task>.<attempt> ── its run ended before the cutoff, or is known to nobody
                                 the file itself was neither written nor used since the cutoff
                                 no result in the cache, and no run that goes on, names it          ──▶ it may go

Two designs were open for who owns a value. (a) Count references in a file beside it: exact, but whoever takes over a
result, starts a run again or erases one has a second thing to make durable, a crash between the two leaves a count
wrong for ever, and a wrong count either leaks or deletes. (b) Mark and sweep: the folder's name says whose values they
are, the journal or the archive what became of that run, and who else names them is read when something is about to
go. Nothing is written while runs go on, and a sweep that is cut off, or done twice, only does less. This is (b).

A run that goes on can name a value of another run in two ways: it was taken from the cache (`caching.py`), or a run
that it called ended with it (`calls.py`). A run that was called ended while its caller ran, and a value that is taken
from the cache is marked as used, so what a run that began since the cutoff names is younger than that, wherever files
can be marked; older runs are read (`elsewhere`). Runs that have ended hold nothing but their own values: brought back
later, they compute again what they lack (`lost_values.py`), as after any other loss.

Whatever is not a folder named like a run is somebody else's, and never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from datetime import datetime

import msgspec

from orchestrator import events as e
from orchestrator.caching import Kept
from orchestrator.codec import both_ways
from orchestrator.rows import TERMINAL, RunRow
from orchestrator.sweeps import AnySweep, Kind

#: seconds for which no file goes, whatever is asked for: it may have been written, and not be in the journal yet
YOUNG_S = 600

#: ids of runs of DAGs, of the runs surface, of instances, and of jobs
_RUN = re.compile(
    r"(run_)?[0-9A-Za-z]{22}|orch-[0-9]{13}-[0-9a-z]{7}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    re.ASCII,
)


def names_a_run(folder: str) -> bool:
    """Are the values of a run in a folder of that name?"""
    return _RUN.fullmatch(folder) is not None


def may_go(row: RunRow | None, before_ms: int) -> bool:
    """Is the run over since before then? None = nobody knows it, so that its files tell by their age."""
    if row is None:
        return True
    return row.state in TERMINAL and row.finished_ms is not None and row.finished_ms <= before_ms


def cached(results: Iterable[Kept], now: datetime) -> Iterator[str]:
    """Artifacts that may still be taken from the cache."""
    return (kept.value.artifact for kept in results if kept.value.artifact is not None and now < kept.expires_at)


def elsewhere(run_id: str, history: Iterable[e.Event]) -> Iterator[str]:
    """Artifacts of other runs that this one names."""
    values = (event.value for event in history if isinstance(event, e.TaskSucceeded) and event.value is not None)
    named = (value.artifact for value in values if value.artifact is not None)
    return (artifact for artifact in named if not artifact.startswith(f"{run_id}/"))


def of_runs(artifacts: Iterable[str], run_ids: Set[str]) -> dict[str, frozenset[str]]:
    """Run -> names in its folder that are among `artifacts`; every one of `run_ids` is there."""
    found: Mapping[str, set[str]] = {run_id: set() for run_id in run_ids}
    for artifact in artifacts:
        run_id, _, name = artifact.partition("/")
        if run_id in found:
            found[run_id].add(name)
    return {run_id: frozenset(names) for run_id, names in found.items()}


class Tally(msgspec.Struct, frozen=True):
    """Files and their bytes."""

    files: int = 0
    size_bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.files + other.files, self.size_bytes + other.size_bytes)


class ArtifactSweep(AnySweep, frozen=True, kw_only=True):
    """One errand: artifacts of runs that ended before an instant go."""

    #: nothing goes; it is only told what would
    dry_run: bool = False
    #: what went so far, and of how many runs
    runs: int = 0
    gone: Tally = Tally()
    #: what is there after it, as far as it is in folders; known once it is done
    there: Tally = Tally()


SWEEPS = Kind("artifact_sweeps", "artifact_sweeps", *both_ways(ArtifactSweep))
