"""The archive's files: what is written is durable and private, and is found again by run, window and list."""

from __future__ import annotations

import gzip
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.archive_store import ArchiveStore
from orchestrator import archive
from orchestrator.archive import Shelved
from orchestrator.errors import Broken, Invalid, Unavailable
from orchestrator.rows import EventBatch, History, RunFilter, RunRow


def run(number: int, **changes: object) -> Shelved:
    row = RunRow(
        run_id=f"run_{number:04d}", version=4, owner="", state="succeeded", tenant="t", dag_id="d", dag_version=1,
        run_type="manual", window_key="", parent="", attempts=1, created_ms=number, started_ms=1, finished_ms=2,
        sla_ms=None, error="", max_active_runs=None, backwards=False, plan_hash="", watchers=(),
    )  # fmt: skip
    batch = EventBatch(4, 3, b'[{"n":%d}]' % number)
    history = History(msgspec.structs.replace(row, **changes), (batch,))
    return archive.shelved(history, {"a": "d"}, {archive.log_key("a|b", 10): "late", archive.log_key("a|b", 9): "früh"})


@pytest.fixture
def store(tmp_path: Path) -> ArchiveStore:
    return ArchiveStore(tmp_path)


def test_what_was_added_is_read_as_it_was(store: ArchiveStore) -> None:
    runs = [run(n) for n in range(1200)]
    assert store.add(runs[:700]) > 0
    store.add(runs[700:])
    ids = [each.row.run_id for each in runs]
    assert store.read([*ids, "run_unknown"]) == {each.row.run_id: each for each in runs}
    assert store.versions(ids) == dict.fromkeys(ids, 4)
    found = store.run("run_0007")
    assert found is not None
    assert found.history.batches == (EventBatch(4, 3, b'[{"n":7}]'),)
    assert list(found.printed("a|b")) == [(9, "früh"), (10, "late")]
    assert list(found.printed("a")) == []


def test_an_archive_that_nobody_wrote_is_empty_and_stays_so(store: ArchiveStore, tmp_path: Path) -> None:
    assert store.empty
    assert store.run("run_1") is None
    assert store.by_window("t", "d", ["x"]) == []
    assert store.page(RunFilter(tenant="t"), None, 10).rows == ()
    assert list(tmp_path.iterdir()) == []


def test_its_files_are_the_owners_alone_and_plain_json_lines(store: ArchiveStore, tmp_path: Path) -> None:
    store.add([run(1), run(2)])
    [segment] = (tmp_path / "archive/segments").iterdir()
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (segment, tmp_path / "archive/index.sqlite")}
    assert set(modes.values()) == {0o600}
    lines = gzip.decompress(segment.read_bytes()).splitlines()
    assert [archive.decode(line) for line in lines] == [run(1), run(2)]
    with pytest.raises(Broken):
        archive.decode(lines[0][:-5])


def test_the_same_runs_make_the_same_file(store: ArchiveStore, tmp_path: Path) -> None:
    for _ in range(2):
        store.add([run(1)])
    assert len(list((tmp_path / "archive/segments").iterdir())) == 1


def test_a_newer_version_takes_the_place_of_an_older_one(store: ArchiveStore) -> None:
    store.add([run(1)])
    store.add([run(1, version=9)])
    assert store.versions(["run_0001"]) == {"run_0001": 9}
    assert len(store.page(RunFilter(tenant="t"), None, 10).rows) == 1


def test_windows_are_found_within_their_dag(store: ArchiveStore) -> None:
    key = "2025-01-01/2025-01-01"
    store.add([
        run(1, window_key=key), run(2, window_key=key, dag_id="e"), run(3, window_key=key, tenant="u"),
        run(4, window_key=key, run_type="backfill"), run(5, window_key=key, run_type="backfill"),
    ])  # fmt: skip
    assert store.by_window("t", "d", [key, "other"]) == ["run_0001"]
    latest = store.backfill_by_window("t", "d", key)
    assert latest is not None
    assert latest.row.run_id == "run_0005"
    assert store.backfill_by_window("t", "e", key) is None


def test_a_list_is_the_tenants_newest_first_page_by_page(store: ArchiveStore) -> None:
    store.add([
        *(run(n, state="failed" if n % 2 else "succeeded", dag_id="d" if n < 6 else "e") for n in range(9)),
        run(10, tenant="u"), run(11, parent="run_b"),
    ])  # fmt: skip

    def listed(**wanted: str) -> list[str]:
        found, cursor = list[str](), None
        while True:
            page = store.page(RunFilter(tenant="t", **wanted), cursor, 2)
            found += [row.run_id.removeprefix("run_00") for row in page.rows]
            cursor = page.next_cursor
            if cursor is None:
                return found

    assert listed() == ["11", "08", "07", "06", "05", "04", "03", "02", "01", "00"]
    assert listed(state="failed") == ["07", "05", "03", "01"]
    assert listed(dag_id="e") == ["08", "07", "06"]
    assert listed(parent="run_b") == ["11"]
    assert listed(run_type="scheduled") == []


def test_ids_of_the_surface_runs_stand_where_their_time_says(store: ArchiveStore) -> None:
    store.add([run(n, run_id=f"{'run_' if n % 2 else ''}{n:04d}") for n in range(1, 8)])
    for wanted in (RunFilter(tenant="t"), RunFilter(tenant="t", dag_id="d")):
        found, cursor = list[str](), None
        while True:
            page = store.page(wanted, cursor, 2)
            found += [row.run_id for row in page.rows]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == ["run_0007", "0006", "run_0005", "0004", "run_0003", "0002", "run_0001"]


def test_a_list_is_read_off_an_index(store: ArchiveStore) -> None:
    store.add([run(1)])
    asked: list[str] = []
    opened = store._opened

    @contextmanager
    def traced() -> Iterator[Any]:
        with opened() as index:
            index.set_trace_callback(asked.append)
            yield index

    store._opened = traced  # type: ignore[method-assign, assignment]  # a stand-in, in this one object
    store.page(RunFilter(tenant="t"), None, 2)
    store.page(RunFilter(tenant="t", dag_id="d", state="failed"), "run_0009", 2)
    store.page(RunFilter(tenant="t", parent="run_0000"), "run_0009", 2)
    store._opened = opened  # type: ignore[method-assign]  # a stand-in, in this one object
    with store._opened() as index:
        plans = [" ".join(row[-1] for row in index.execute(f"EXPLAIN QUERY PLAN {text}")) for text in asked]
    for plan, used in zip(plans, ("listed", "listed_by_dag", "listed_by_parent"), strict=True):
        assert f"USING INDEX {used} " in plan
        assert "TEMP B-TREE" not in plan


def test_segments_may_be_in_another_folder(store: ArchiveStore, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    for number, to in enumerate((str(folder), f"file://{folder}/more/")):
        store.add([run(number)], to)
        assert store.run(f"run_{number:04d}") == run(number)
    assert len(list(folder.rglob("*.jsonl.gz"))) == 2


@pytest.mark.parametrize("to", ["relative/folder", "nosuchscheme://x"])
def test_a_place_that_is_none_is_refused(store: ArchiveStore, to: str) -> None:
    with pytest.raises(Invalid):
        store.add([run(1)], to)
    assert store.empty


def test_a_segment_that_is_gone_is_told(store: ArchiveStore, tmp_path: Path) -> None:
    store.add([run(1)])
    for segment in (tmp_path / "archive/segments").iterdir():
        segment.unlink()
    with pytest.raises(Unavailable, match="segment"):
        store.run("run_0001")


def test_a_segment_that_is_damaged_is_told(store: ArchiveStore, tmp_path: Path) -> None:
    store.add([run(1)])
    [segment] = (tmp_path / "archive" / "segments").iterdir()
    whole = segment.read_bytes()
    for damaged in (b"", whole[:30], bytes(len(whole)), whole[:12] + b"\xff" * 9 + whole[21:]):
        segment.write_bytes(damaged)
        with pytest.raises(Unavailable, match="damaged"):
            store.run("run_0001")


def test_what_could_not_be_written_leaves_nothing(
    store: ArchiveStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(Unavailable, match="disk full"):
        store.add([run(1)])
    assert list((tmp_path / "archive" / "segments").iterdir()) == []
    assert store.empty


def test_what_a_kill_left_half_written_goes_after_a_day_and_nothing_else(
    store: ArchiveStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "segments"
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        patched.setattr("os.unlink", lambda _: None)  # a kill runs no handlers
        for number in range(2):
            with pytest.raises(KeyboardInterrupt):
                store.add([run(number)], str(folder))
    old, young = folder.iterdir()
    theirs = folder / "theirs.new"
    theirs.touch()
    for each in (old, theirs):
        os.utime(each, (1.0, 1.0))
    store.add([run(1)], str(folder))
    assert (old.exists(), young.exists(), theirs.exists()) == (False, True, True)


@pytest.mark.parametrize("made", ["", "CREATE TABLE segments (id INTEGER PRIMARY KEY, place TEXT NOT NULL UNIQUE)"])
def test_an_index_that_was_not_made_to_its_end_has_nothing_in_it(store: ArchiveStore, made: str) -> None:
    store.folder.mkdir()
    with closing(sqlite3.connect(store.folder / "index.sqlite")) as index:
        index.execute(made or "PRAGMA user_version")
    (store.folder / "index.sqlite").touch()
    assert (store.run("run_0001"), store.by_window("t", "d", ["x"])) == (None, [])
    assert store.page(RunFilter(tenant="t"), None, 10).rows == ()
    store.add([run(1)])
    assert store.run("run_0001") == run(1)


def test_segments_may_be_behind_a_url(store: ArchiveStore) -> None:
    pytest.importorskip("fsspec")
    for number in range(2):
        store.add([run(number), run(number + 10)], "memory://bucket/archive")
    assert store.run("run_0011") == run(11)
    assert store.run("run_0000") == run(0)


@pytest.fixture
def faulty(tmp_path: Path) -> str:
    """Folder of a store that writes in place, and breaks off in the middle of the first file."""
    fsspec = pytest.importorskip("fsspec")
    local = pytest.importorskip("fsspec.implementations.local")
    breaks = iter([True])

    class Faulty(local.LocalFileSystem):  # type: ignore[misc,name-defined]  # fsspec has no types
        protocol = ("faulty",)
        cachable = False

        def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
            broken = next(breaks, False)
            Path(path).write_bytes(value[: len(value) // 2] if broken else value)
            if broken:
                raise ConnectionError("the line broke")

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(super()._strip_protocol(path.removeprefix("faulty://")))

    fsspec.register_implementation("faulty", Faulty, clobber=True)
    (tmp_path / "bucket").mkdir()
    return f"faulty://{tmp_path}/bucket"


def test_a_store_that_breaks_off_is_told_and_what_it_has_half_of_is_written_again(
    store: ArchiveStore, faulty: str
) -> None:
    with pytest.raises(Unavailable, match="the line broke"):
        store.add([run(1)], faulty)
    assert (store.empty, store.run("run_0001")) == (True, None)
    store.add([run(1)], faulty)
    assert store.run("run_0001") == run(1)
