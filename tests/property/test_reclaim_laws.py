"""Sweeps of artifacts against an oracle that knows what everybody needs, cut off at any step."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.artifact_folders import Folder
from actors.artifact_sweeper import ArtifactSweeper
from actors.clock import Clock
from actors.settings import Settings
from orchestrator import codec
from orchestrator import events as e
from orchestrator.caching import CACHES, RESULTS, Kept
from orchestrator.ids import run_id
from orchestrator.messages import Value
from orchestrator.ports import Journal
from orchestrator.reclaim import YOUNG_S, ArtifactSweep
from orchestrator.rows import EventBatch, History, RunRow

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
RUNS = [str(run_id(0, 0, number)) for number in range(3)]
NAMES = ("a.1", "b.1", "b.2")
ARTIFACTS = st.sampled_from([f"{run}/{name}" for run in RUNS for name in NAMES])
DAYS = st.integers(0, 6)


@dataclass(frozen=True)
class Universe:
    """Days ago, where a number stands for a time."""

    #: artifact -> written
    files: Mapping[str, int]
    #: run -> (began, ended; None = it goes on); the others are known to nobody
    runs: Mapping[str, tuple[int, int | None]]
    #: run that goes on -> artifacts that it names
    names: Mapping[str, set[str]]
    #: artifact in the cache -> days from now on for which it holds
    cached: Mapping[str, int]
    kept_days: int

    @property
    def kept(self) -> float:
        """Days for which at least everything stays."""
        return max(self.kept_days, YOUNG_S / 86_400)


@st.composite
def universes(draw: st.DrawFn) -> Universe:
    runs: dict[str, tuple[int, int | None]] = {}
    for run in draw(st.sets(st.sampled_from(RUNS))):
        ended = draw(st.none() | DAYS)
        runs[run] = (draw(st.integers(ended or 0, 7)), ended)
    going = [run for run, (_, ended) in runs.items() if ended is None]
    names = {run: draw(st.sets(ARTIFACTS, max_size=4)) for run in going}
    files = dict(draw(st.dictionaries(ARTIFACTS, DAYS, max_size=12)))
    for run in going:  # what a run took is marked as used then
        for artifact in names[run] & files.keys():
            files[artifact] = min(files[artifact], runs[run][0])
    return Universe(files, runs, names, draw(st.dictionaries(ARTIFACTS, st.integers(-2, 2))), draw(st.integers(0, 5)))


def may_go(universe: Universe) -> set[str]:
    """By the rules as documentation has them, one file after another."""
    gone = set()
    for artifact, written in universe.files.items():
        run = artifact.partition("/")[0]
        _, ended = universe.runs.get(run, (0, 7))
        over = ended is not None and ended >= universe.kept
        taken = any(artifact in named for of, named in universe.names.items() if of != run)
        in_cache = universe.cached.get(artifact, 0) > 0
        if over and written >= universe.kept and not in_cache and not taken:
            gone.add(artifact)
    return gone


def must_stay(universe: Universe) -> set[str]:
    """What somebody needs, or may be about to."""
    return universe.files.keys() - may_go(universe)


class FakeJournal:
    """As much of one as a sweep reads."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self.told: dict[str, bytes | None] = {}

    async def summary(self, run: str) -> RunRow | None:
        return self._row(run) if run in self._universe.runs else None

    async def queued_and_active(self) -> list[RunRow]:
        return [row for row in map(self._row, self._universe.runs) if row.finished_ms is None]

    async def load(self, runs: list[str]) -> list[History]:
        return [History(self._row(run), (EventBatch(2, e.SCHEMA, self._events(run)),)) for run in runs]

    async def record(self, _kind: str, key: str) -> bytes | None:
        return self.told.get(key)

    async def records(self, kind: str) -> dict[str, bytes]:
        if kind == CACHES:
            return {"default/d": b"true"}
        if kind != f"{RESULTS}default/d":
            return {}
        found = {artifact: codec.encode_document(self._kept(artifact)) for artifact in self._universe.cached}
        return found | {"of another version": b"{}"}

    async def put_records(self, kind: str, records: Mapping[str, bytes | None]) -> None:
        self.told |= records

    async def count(self, counts: object) -> None: ...

    def _row(self, run: str) -> RunRow:
        began, ended = self._universe.runs[run]
        state = "running" if ended is None else "succeeded"
        created_ms, finished_ms = _ms(NOW - began * DAY), None if ended is None else _ms(NOW - ended * DAY)
        return RunRow(
            run_id=run, version=2, owner="", state=state, tenant="default", dag_id="d", dag_version=1,
            run_type="manual", window_key="", parent="", attempts=1, created_ms=created_ms, started_ms=created_ms,
            finished_ms=finished_ms, sla_ms=None, error="", max_active_runs=None, backwards=False, plan_hash="",
            watchers=(),
        )  # fmt: skip

    def _events(self, run: str) -> bytes:
        named = sorted(self._universe.names.get(run, set()))
        return codec.encode_events([e.TaskSucceeded(NOW, "t", 1, Value(artifact=name)) for name in named])

    def _kept(self, artifact: str) -> Kept:
        return Kept(Value(artifact=artifact), "r", "t", 1, NOW, NOW, NOW + self._universe.cached[artifact] * DAY)


class FixedClock(Clock):
    def now(self) -> datetime:
        return NOW


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def written(root: Path, universe: Universe) -> None:
    for artifact, days in universe.files.items():
        path = root / artifact
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 10)
        os.utime(path, ((NOW - days * DAY).timestamp(),) * 2)
    for folder in root.iterdir():  # as old as what was added last
        os.utime(folder, (max(path.stat().st_mtime for path in folder.iterdir()),) * 2)


def there(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def swept(root: Path, universe: Universe, journal: FakeJournal, dry_run: bool = False) -> ArtifactSweep:
    made = Settings(home=str(root.parent), artifacts_retention_days=universe.kept_days)
    sweeper = ArtifactSweeper(cast(Journal, journal), FixedClock(), made, lambda: [Folder(root)])
    wanted = ArtifactSweep(id="one", before_ms=_ms(NOW - universe.kept_days * DAY), dry_run=dry_run)
    return asyncio.run(sweeper.sweep(wanted))


class Killed(BaseException):
    """Nobody catches it."""


class Mortal:
    """Removes files, and dies before the last of so many steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._unlink, self._utime = os.unlink, os.utime

    def unlink(self, *given: Any, **options: Any) -> None:
        self._live()
        self._unlink(*given, **options)

    def utime(self, *given: Any, **options: Any) -> None:
        self._live()
        self._utime(*given, **options)

    def _live(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Killed


@settings(deadline=None, max_examples=80)
@given(universe=universes(), cut=st.integers(0, 12))
def test_a_sweep_removes_what_may_go_and_nothing_else_however_often_it_is_killed(universe: Universe, cut: int) -> None:
    with TemporaryDirectory() as home, patch("actors.artifact_sweeper.BREATH_S", 0.0):
        root, journal = Path(home, "artifacts"), FakeJournal(universe)
        root.mkdir()
        written(root, universe)
        promised = swept(root, universe, journal, dry_run=True)
        assert there(root) == universe.files.keys(), "it is only told what would go"
        mortal = Mortal(cut)
        with patch.object(os, "unlink", mortal.unlink), patch.object(os, "utime", mortal.utime):
            try:
                swept(root, universe, journal)
            except Killed:
                pass
        assert must_stay(universe) <= there(root)
        swept(root, universe, journal)
        young = {artifact for artifact in universe.files if _folder_is_young(artifact, universe)}
        assert there(root) - young == must_stay(universe) - young
        assert must_stay(universe) <= there(root)
        assert promised.gone.files >= len(universe.files.keys() - there(root) - young)
        assert swept(root, universe, journal).gone.files == 0, "there is nothing left to do"
        assert not [folder for folder in root.iterdir() if not any(folder.iterdir())]


def _folder_is_young(artifact: str, universe: Universe) -> bool:
    """Its run has something that is too young to be looked at."""
    run = artifact.partition("/")[0]
    newest = min(days for other, days in universe.files.items() if other.startswith(run))
    return newest < universe.kept
