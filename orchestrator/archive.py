"""What an archive keeps of a run that has ended, and which runs may leave for it.

    journal: row, events, tasks, output ── ended long enough ago ──▶ one line of JSON (`Shelved`) in a segment
    journal ◀── a command on it, or a plan that has its window ────── the same line

A run leaves as a whole and comes back as a whole, so a window keeps its run for ever: whoever plans windows brings
those that are in the archive back first, and the journal refuses the step when some left in between
(`DagRow.archived`). The other way, keeping a small row of each window in the journal, needs no fence but 100 bytes or
more a window for ever, which is what an archive is to give back.

Three kinds of runs stay: those of which a schedule may still make a fire, for who makes those knows no archive
(`may_leave`); and, which the journal sees to, those that a backfill which is in the journal counts or keeps, and those
that were called by a run that goes on. Runs of other surfaces (`@…`) are kept for as long as those say.
Source: the issue "On a cluster, and watched", item 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec

from orchestrator.codec import both_ways
from orchestrator.definition import HIDDEN
from orchestrator.errors import Broken
from orchestrator.rows import ChildRow, EventBatch, History, RunRow
from orchestrator.sweeps import AnySweep, Kind

#: version of the meaning of a line
FORMAT = 1
#: between a window's date and the instant at which its fire is due: time zones, and a day
_MARGIN = timedelta(days=2)


class Shelved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run or backfill, as the archive has it."""

    #: FORMAT when it was written
    format: int
    row: RunRow
    #: (version of the last event, version of their meaning, events) of each batch
    events: tuple[tuple[int, int, msgspec.Raw], ...]
    #: task -> letter
    tasks: dict[str, str] = {}
    #: task|attempt -> what it printed
    logs: dict[str, str] = {}
    #: of a backfill: its windows by date, core state (or skipped) -> windows, and task -> letter -> windows
    children: tuple[ChildRow, ...] = ()
    counts: dict[str, int] = {}
    task_counts: dict[str, dict[str, int]] = {}

    @property
    def batches(self) -> tuple[EventBatch, ...]:
        """Its events, as the journal has them."""
        return tuple(EventBatch(version, schema, bytes(events)) for version, schema, events in self.events)

    @property
    def history(self) -> History:
        """Row and events."""
        return History(self.row, self.batches)

    @property
    def bulk_bytes(self) -> int:
        """What its events and its output take, about."""
        return sum(len(bytes(events)) for _, _, events in self.events) + sum(map(len, self.logs.values()))

    def printed(self, task: str) -> Iterator[tuple[int, str]]:
        """(attempt, what it printed) of a task, by attempt."""
        of_task = (key.rpartition("|") for key in self.logs)
        for attempt in sorted(int(number) for name, _, number in of_task if name == task):
            yield attempt, self.logs[log_key(task, attempt)]


def shelved(history: History, tasks: Mapping[str, str], logs: Mapping[str, str]) -> Shelved:
    """A run that leaves."""
    events = tuple((batch.last_version, batch.schema, msgspec.Raw(batch.events)) for batch in history.batches)
    return Shelved(format=FORMAT, row=history.row, events=events, tasks=dict(tasks), logs=dict(logs))


def log_key(task: str, attempt: int) -> str:
    """Key of what an attempt printed."""
    return f"{task}|{attempt}"


def encode(run: Shelved) -> bytes:
    """One line of a segment."""
    return _encode(run) + b"\n"


def decode(line: bytes) -> Shelved:
    """Inverse of `encode`. Raises Broken."""
    try:
        return _decode(line)
    except msgspec.MsgspecError as error:
        raise Broken(f"a line of the archive cannot be read: {error}") from error


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Shelved).decode


def may_leave(row: RunRow, next_fire_ms: int | None, now: datetime) -> bool:
    """Whether no fire can ever be about the window of this run. `next_fire_ms` is where the DAG's schedule stands.

    A schedule only goes forward from there, and a new one begins now.
    """
    if row.dag_id.startswith(HIDDEN):
        return False
    window = row.window
    if row.run_type == "backfill" or window is None or window.partition or row.caller is not None:
        return True
    first = now if next_fire_ms is None else min(now, datetime.fromtimestamp(next_fire_ms / 1000, UTC))
    return date.fromisoformat(window.start[:10]) + _MARGIN <= first.date()


class Sweep(AnySweep, frozen=True, kw_only=True):
    """One errand: runs and backfills that ended before an instant leave."""

    #: where segments are written; "" = beside the index
    to: str
    #: that left so far
    runs: int = 0
    backfills: int = 0
    size_bytes: int = 0
    #: that have to stay, as far as is known
    left: int = 0


SWEEPS = Kind("archive", "archive_sweeps", *both_ways(Sweep))


def merged(new: Shelved, old: Shelved | None) -> Shelved:
    """`new` with what its earlier attempts printed, as the archive has it from when the run left before."""
    return new if old is None else msgspec.structs.replace(new, logs=old.logs | new.logs)


def unwritten(runs: Sequence[Shelved], versions: Mapping[str, int]) -> list[Shelved]:
    """Those that the archive, which has `versions`, has not as they are."""
    return [run for run in runs if versions.get(run.row.run_id) != run.row.version]
