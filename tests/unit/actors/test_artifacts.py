"""Large values: the file that readers map, the places it is kept in, and how it gets from one node to another."""

from __future__ import annotations

import mmap
import os
import pickle
import shutil
import threading
import time
from datetime import date
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy
import pytest

from actors import memory_values, value_file
from actors.artifact_places import artifacts_of, paths_of
from actors.artifacts import Artifacts, MissingArtifact
from actors.fetched_values import FetchedValues, Store, chunks
from actors.memory_values import MemoryValues
from actors.settings import Settings, read_settings
from orchestrator import actor_codec, codec
from orchestrator.errors import PermanentFailure, Unavailable
from orchestrator.events import TaskSucceeded
from orchestrator.messages import Value
from tests.builders import AT
from tests.worker_builders import Bench, exchange, python

ARRAY = numpy.arange(100_000.0)


def written(path: Path, value: object) -> Path:
    with path.open("wb") as file:
        size_bytes = value_file.write(file, value)
    assert size_bytes == path.stat().st_size
    return path


def is_mapped(array: Any) -> bool:
    base = array
    while isinstance(base, numpy.ndarray):
        base = base.base
    return isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap)


# ── the file ──


@pytest.mark.parametrize(
    "value",
    [None, {1: date(2025, 10, 1)}, [b"x" * 100_000, "y"], float("inf"), bytearray(b"z" * 9000)],
    ids=["nothing", "date", "bytes", "inf", "bytearray"],
)
def test_what_has_no_buffers_comes_back_equal(tmp_path: Path, value: object) -> None:
    assert value_file.read(written(tmp_path / "v", value)) == value
    assert value_file.read_plain(written(tmp_path / "v", "text" * 99_999)) == "text" * 99_999


def test_arrays_come_back_mapped_aligned_and_read_only(tmp_path: Path) -> None:
    back = value_file.read(written(tmp_path / "v", {"a": ARRAY, "f": numpy.asfortranarray(ARRAY.reshape(100, 1000))}))
    assert (back["a"] == ARRAY).all()
    assert (back["f"] == ARRAY.reshape(100, 1000)).all()
    for array in back.values():
        assert is_mapped(array)
        assert array.ctypes.data % value_file.ALIGNMENT == 0
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_small_arrays_and_slices_are_copies_of_ones_own(tmp_path: Path) -> None:
    small, slice_ = value_file.read(written(tmp_path / "v", (ARRAY[:10], ARRAY.reshape(100, 1000)[:, ::2])))
    small[0] = slice_[0, 0] = 7
    assert slice_.shape == (100, 500)


def test_bytes_can_be_handed_over_without_a_copy(tmp_path: Path) -> None:
    back = value_file.read(written(tmp_path / "v", pickle.PickleBuffer(b"q" * 10_000)))
    assert isinstance(back, memoryview)
    assert (back.readonly, bytes(back[:3])) == (True, b"qqq")


def test_a_data_frame_comes_back_with_its_numbers_mapped(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": ARRAY, "y": ARRAY + 1})
    back = value_file.read(written(tmp_path / "v", frame))
    assert back.equals(frame)
    assert not back["x"].to_numpy().flags.writeable


def test_what_was_mapped_outlives_the_name_of_its_file(tmp_path: Path) -> None:
    back = value_file.read(written(tmp_path / "v", ARRAY))
    (tmp_path / "v").unlink()
    assert back.sum() == ARRAY.sum()


def test_plain_pickles_of_before_are_still_read(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(pickle.dumps({"a": ARRAY, "t": "x"}, protocol=5))
    assert (value_file.read(tmp_path / "old")["a"] == ARRAY).all()
    (tmp_path / "older").write_bytes(pickle.dumps("text", protocol=4))
    assert value_file.read_plain(tmp_path / "older") == "text"


def test_what_is_not_plain_is_refused_where_only_plain_data_is_read(tmp_path: Path) -> None:
    for value in (ARRAY, date(2025, 1, 1), [pickle.PickleBuffer(b"q" * 9000)]):
        with pytest.raises(pickle.UnpicklingError):
            value_file.read_plain(written(tmp_path / "v", value))


def test_a_function_that_has_no_name_is_copied_with_the_arrays_it_needs(tmp_path: Path) -> None:
    array = ARRAY
    assert value_file.read(written(tmp_path / "v", lambda: array.sum()))() == ARRAY.sum()


def test_a_value_that_cannot_be_stored_says_so(tmp_path: Path) -> None:
    with pytest.raises(PermanentFailure, match="type generator cannot be stored"):
        written(tmp_path / "v", (n for n in "a"))


# ── places ──


def an_artifact(value: Value, **changes: Any) -> Value:
    told = {"artifact": value.artifact, "size_bytes": value.size_bytes, "node": value.node} | changes
    return Value(**told)


def in_memory(tmp_path: Path, limit_bytes: int = 10**8) -> MemoryValues:
    (tmp_path / "shm").mkdir(exist_ok=True)
    return MemoryValues(tmp_path / "artifacts", limit_bytes, shm=tmp_path / "shm")


def test_small_values_stay_inline_and_touch_no_disk(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts", node="A", memory=in_memory(tmp_path))
    value = artifacts.keep("run_1", "a", 1, [1, "x"], in_memory=True)
    assert (bytes(value.inline), value.artifact, value.node) == (b'[1,"x"]', None, "")
    assert not (tmp_path / "artifacts").exists()
    assert list((tmp_path / "shm").iterdir()) == []


def test_a_large_value_knows_its_node_and_size_and_is_never_half_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = Artifacts(tmp_path / "artifacts", node="A")
    value = artifacts.keep("run_1", "a", 1, ARRAY)
    assert value == Value(artifact="run_1/a.1", size_bytes=(tmp_path / "artifacts/run_1/a.1").stat().st_size, node="A")
    assert is_mapped(artifacts.read(value))
    assert artifacts.take_counts() == (value.size_bytes, 0)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        artifacts.keep("run_1", "a", 2, ARRAY)
    assert [path.name for path in (tmp_path / "artifacts/run_1").iterdir()] == ["a.1"]


def test_a_value_in_memory_is_not_synced_and_not_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("synced"))
    memory = in_memory(tmp_path)
    artifacts = Artifacts(tmp_path / "artifacts", node="A", memory=memory)
    value = artifacts.keep("run_1", "a", 1, ARRAY, in_memory=True)
    assert not (tmp_path / "artifacts").exists()
    assert (memory.folder / "run_1" / "a.1").exists()
    assert is_mapped(artifacts.read(value))


def test_what_memory_has_no_room_for_is_stored(tmp_path: Path) -> None:
    memory = in_memory(tmp_path, limit_bytes=ARRAY.nbytes + 10_000)
    artifacts = Artifacts(tmp_path / "artifacts", memory=memory)
    first, second = (artifacts.keep("run_1", name, 1, ARRAY, in_memory=True) for name in "ab")
    assert [path.name for path in (memory.folder / "run_1").iterdir()] == ["a.1"]
    assert [path.name for path in (tmp_path / "artifacts/run_1").iterdir()] == ["b.1"]
    assert all((artifacts.read(value) == ARRAY).all() for value in (first, second))


def test_values_of_runs_that_have_ended_leave_memory(tmp_path: Path) -> None:
    memory = in_memory(tmp_path)
    artifacts = Artifacts(tmp_path / "artifacts", memory=memory)
    for run_id in ("run_1", "run_2"):
        artifacts.keep(run_id, "a", 1, ARRAY, in_memory=True)
    memory.sweep(lambda runs: {run_id: "" for run_id in runs if run_id == "run_1"})
    assert memory.runs() == ["run_2"]


def test_somebody_looks_after_memory_as_long_as_there_are_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_values, "SWEEP_S", 0.01)
    (tmp_path / "shm").mkdir()
    asked = []

    def ended(runs: list[str]) -> dict[str, str]:
        asked.append(runs)
        if len(asked) == 1:
            raise Unavailable("the journal is away")
        return dict.fromkeys(runs, "")

    memory = MemoryValues(tmp_path / "artifacts", 10**8, ended, tmp_path / "shm")
    memory.written()
    assert memory._sweeper is None, "there is nothing to look after"
    Artifacts(tmp_path / "artifacts", memory=memory).keep("run_1", "a", 1, ARRAY, in_memory=True)
    assert memory._sweeper is not None
    memory._sweeper.join(10)
    assert (memory.runs(), asked) == ([], [["run_1"], ["run_1"]])


def test_of_a_run_that_has_ended_what_its_caller_needs_stays(tmp_path: Path) -> None:
    memory = in_memory(tmp_path)
    artifacts = Artifacts(tmp_path / "artifacts", memory=memory)
    values = [artifacts.keep("run_1", name, 1, ARRAY, in_memory=True) for name in "ab"]
    memory.sweep(lambda runs: dict.fromkeys(runs, "b.1"))
    memory.sweep(lambda runs: dict.fromkeys(runs, "b.1"))
    assert (artifacts.read(values[1]) == ARRAY).all()
    with pytest.raises(MissingArtifact):
        artifacts.read(values[0])
    memory.sweep(lambda runs: dict.fromkeys(runs, ""))
    assert memory.runs() == []


def test_a_memory_directory_whose_data_directory_is_gone_is_removed(tmp_path: Path) -> None:
    shm = tmp_path / "shm"
    shm.mkdir()
    for home in ("here", "gone"):
        (tmp_path / home).mkdir()
        memory = MemoryValues(tmp_path / home / "artifacts", 10**8, shm=shm)
        Artifacts(tmp_path / home / "artifacts", memory=memory).keep("run_1", "a", 1, ARRAY, in_memory=True)
    (shm / "orchestrator-of-somebody-else").mkdir()
    (tmp_path / "gone").rmdir()
    memory_values.tidy(shm)
    left = {path.name for path in shm.iterdir()}
    assert left == {
        memory_values.folder_of(tmp_path / "here/artifacts", shm).name,
        "orchestrator-of-somebody-else",
    }
    memory_values.clear(tmp_path / "here/artifacts", shm)
    assert [path.name for path in shm.iterdir()] == ["orchestrator-of-somebody-else"]


@pytest.mark.parametrize("trap", ["open to all", "a link"])
def test_a_memory_directory_that_somebody_else_has_made_is_neither_written_to_nor_read(
    tmp_path: Path, trap: str
) -> None:
    memory = in_memory(tmp_path)
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap").chmod(0o777)
    if trap == "a link":
        (tmp_path / "trap").chmod(0o700)
        memory.folder.symlink_to(tmp_path / "trap")
    else:
        (tmp_path / "trap").rename(memory.folder)
    artifacts = Artifacts(tmp_path / "artifacts", memory=memory)
    value = artifacts.keep("run_1", "a", 1, ARRAY, in_memory=True)
    assert (tmp_path / "artifacts/run_1/a.1").exists()
    assert not (memory.folder / "run_1").exists()
    (tmp_path / "artifacts/run_1").rename(memory.folder / "run_1")
    with pytest.raises(MissingArtifact):
        artifacts.read(value)


def test_all_missing_values_are_named(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    there = artifacts.keep("run_1", "a", 1, ARRAY)
    gone = [Value(artifact=f"run_1/{name}.1", size_bytes=9) for name in "bcb"]
    with pytest.raises(MissingArtifact) as caught:
        artifacts.read_all([gone[0], there, *gone[1:]])
    assert caught.value.names == ("run_1/b.1", "run_1/c.1")
    assert str(caught.value) == "artifacts run_1/b.1, run_1/c.1 are missing from the artifact directory"


def test_a_name_that_leads_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    for name in ("run_1/../../secret", "/etc/secret"):
        with pytest.raises(ValueError, match="secret"):
            Artifacts(tmp_path / "artifacts").read(Value(artifact=name, size_bytes=1))
        with pytest.raises(ValueError, match="secret"):
            FetchedValues(tmp_path / "got", 10**8).get(Value(artifact=name, size_bytes=1), elsewhere=True)


# ── other nodes, and stores ──


class Wire:
    """The way to another node: what it has, and how often it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked = 0

    def copy(self, value: Value, to: BufferedWriter) -> None:
        self.asked += 1
        for piece in chunks([self.root / "nowhere", self.root / (value.artifact or "")]):
            to.write(piece)


class Nodes:
    """Two nodes with artifact directories of their own."""

    def __init__(self, folder: Path, limit_bytes: int = 10**8, url: str = "") -> None:
        self.folder = folder
        self.wire = Wire(folder / "a")
        store = Store(url) if url else None
        self.a = Artifacts(folder / "a", node="A", fetched=FetchedValues(folder / "a-got", limit_bytes, store=store))
        self.b, self.b2 = (
            Artifacts(folder / "b", node="B", fetched=FetchedValues(folder / "b-got", limit_bytes, self.wire, store))
            for _ in range(2)
        )


def test_a_value_of_another_node_is_fetched_once_and_mapped(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    value = nodes.a.keep("run_1", "a", 1, ARRAY)
    assert is_mapped(nodes.b.read(value))
    assert nodes.b.take_counts() == (value.size_bytes, value.size_bytes)
    assert (nodes.b2.read(value) == ARRAY).all()
    assert nodes.b2.take_counts() == (value.size_bytes, 0)
    assert nodes.wire.asked == 1


def test_workers_that_want_a_value_at_the_same_time_make_one_transfer(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    value = nodes.a.keep("run_1", "a", 1, ARRAY)
    copy = nodes.wire.copy

    def slowly(of: Value, to: BufferedWriter) -> None:
        time.sleep(0.1)
        copy(of, to)

    nodes.wire.copy = slowly  # type: ignore[method-assign]  # a slow wire
    got: list[Any] = []
    threads = [threading.Thread(target=lambda by=by: got.append(by.read(value))) for by in (nodes.b, nodes.b2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (len(got), nodes.wire.asked) == (2, 1)


def test_a_value_that_its_node_has_not_got_any_more_is_missing_everywhere(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    value = nodes.a.keep("run_1", "a", 1, ARRAY)
    (tmp_path / "a/run_1/a.1").unlink()
    for artifacts in (nodes.a, nodes.b):
        with pytest.raises(MissingArtifact, match=r"run_1/a\.1"):
            artifacts.read(value)
    assert [path.name for path in (tmp_path / "b-got/run_1").iterdir() if not path.name.endswith(".lock")] == []


def test_what_was_fetched_is_bounded_and_the_longest_unused_goes(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, limit_bytes=2 * ARRAY.nbytes + 10_000)
    values = [nodes.a.keep("run_1", f"a{n}", 1, ARRAY) for n in range(3)]
    for age, value in zip((20, 10), values, strict=False):
        nodes.b.read(value)
        os.utime(tmp_path / "b-got" / str(value.artifact), (time.time() - age,) * 2)
    held = nodes.b.read(values[0])
    nodes.b.read(values[2])
    left = sorted(path.name for path in (tmp_path / "b-got/run_1").iterdir() if not path.name.startswith("."))
    assert left == ["a0.1", "a2.1"], "a1 was used before a0"
    assert held.sum() == ARRAY.sum()


def test_a_value_that_others_put_out_of_the_cache_at_once_is_fetched_again_and_not_missing(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    value = nodes.a.keep("run_1", "a", 1, ARRAY)
    fetched, rivals = nodes.b._fetched, iter([True])
    assert fetched is not None
    get = fetched.get

    def raced(of: Value, elsewhere: bool) -> tuple[Path, int]:
        path, size_bytes = get(of, elsewhere)
        if next(rivals, False):
            path.unlink()
        return path, size_bytes

    fetched.get = raced  # type: ignore[method-assign]  # another worker of the node makes room
    assert (nodes.b.read(value) == ARRAY).all()
    assert nodes.wire.asked == 2
    assert nodes.b.take_counts() == (value.size_bytes, 2 * value.size_bytes)
    rivals = iter([True] * 9)
    with pytest.raises(Unavailable, match="ORCHESTRATOR_ARTIFACTS_CACHE_BYTES"):
        nodes.b.read(value)


def test_nothing_stays_of_a_run_whose_values_made_room(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, limit_bytes=1)
    for number in range(3):
        nodes.b.read(nodes.a.keep(f"run_{number}", "a", 1, ARRAY))
    assert [path.name for path in (tmp_path / "b-got").iterdir()] == ["run_2"]
    nodes.b.read(nodes.a.keep("run_0", "b", 1, ARRAY))


def test_who_waited_while_the_folder_went_fetches_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(tmp_path)
    value = nodes.a.keep("run_1", "a", 1, ARRAY)

    def waited(*_: object) -> None:
        shutil.rmtree(tmp_path / "b-got/run_1")  # others made room, or swept

    monkeypatch.setattr("actors.fetched_values.fcntl.flock", waited)
    assert (nodes.b.read(value) == ARRAY).all()


def test_a_value_that_comes_cut_off_is_not_kept(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    value = nodes.a.keep("run_1", "a", 1, ARRAY)
    copy = nodes.wire.copy

    def cut_off(of: Value, to: BufferedWriter) -> None:
        copy(of, to)
        to.truncate(value.size_bytes // 2)
        to.seek(0, os.SEEK_END)

    with pytest.MonkeyPatch.context() as line:
        line.setattr(nodes.wire, "copy", cut_off)  # it breaks without a word
        with pytest.raises(Unavailable, match="cut off"):
            nodes.b.read(value)
    assert (nodes.b.read(value) == ARRAY).all()


def test_making_room_does_not_mind_what_goes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(tmp_path, limit_bytes=1)
    value = nodes.a.keep("run_1", "a", 1, ARRAY)
    (tmp_path / "b-got/run_0").mkdir(parents=True)
    scandir = os.scandir

    def raced(folder: Any) -> Any:
        if Path(folder).name == "run_0":
            raise FileNotFoundError(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", raced)
    assert (nodes.b.read(value) == ARRAY).all()


def test_a_store_has_what_counts_as_stored_and_gives_it_to_any_node(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    nodes = Nodes(tmp_path, url=f"memory://orchestrator-{os.getpid()}")
    value = nodes.a.keep("run_1", "a", 1, ARRAY)
    assert not (tmp_path / "a").exists(), "it is in the store, and in the cache of its node"
    assert is_mapped(nodes.a.read(value))
    assert nodes.a.take_counts() == (value.size_bytes, 0)
    assert (nodes.b.read(value) == ARRAY).all(), "the node of it does not have it in its directory: the store does"
    assert nodes.wire.asked == 1
    (tmp_path / "a-got/run_1/a.1").unlink()
    assert (nodes.a.read(value) == ARRAY).all()
    with pytest.raises(MissingArtifact):
        nodes.a.read(an_artifact(value, artifact="run_1/other.1"))


def test_a_store_that_does_not_answer_is_no_missing_value(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    nodes = Nodes(tmp_path, url="nosuch://bucket")
    with pytest.raises(Unavailable, match="nosuch://bucket"):
        nodes.a.keep("run_1", "a", 1, ARRAY)
    with pytest.raises(Unavailable):
        nodes.b.read(Value(artifact="run_1/a.1", size_bytes=9, node="A"))
    assert not (tmp_path / "a-got/run_1/a.1").exists()


def test_a_node_may_have_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Settings(home=str(tmp_path / "home"))
    assert artifacts_of(made)._root == tmp_path / "home/artifacts"
    monkeypatch.setenv("ORCHESTRATOR_ARTIFACTS_DIR", str(tmp_path / "disk"))
    assert artifacts_of(made)._root == tmp_path / "disk"
    assert paths_of(made, "run_1/a.1")[0] == tmp_path / "disk/run_1/a.1"
    assert memory_values.folder_of(tmp_path / "disk") != memory_values.folder_of(made.artifacts)


def test_a_folder_given_as_url_is_mapped_where_it_is(tmp_path: Path) -> None:
    for url in (f"file://{tmp_path}/shared", f"{tmp_path}/shared"):
        made = read_settings({"ORCHESTRATOR_ARTIFACTS_URL": url})
        assert (made.artifacts, made.artifacts_url) == (tmp_path / "shared", "")
    assert read_settings({"ORCHESTRATOR_ARTIFACTS_URL": "s3://b/x"}).artifacts_url == "s3://b/x"


# ── what travels ──


def test_a_large_value_adds_a_few_bytes_to_messages_and_journal_whatever_its_size(tmp_path: Path) -> None:
    def bytes_told(elements: int) -> int:
        """Of one maker and eight takers: exchanges, answers and events."""
        bench = Bench(tmp_path / str(elements))
        sizes, events = [], []
        maker = python("array", "make", elements=elements)
        takers = []
        for batch in range(2):
            sent = actor_codec.encode_exchange(exchange(batch + 1, *(takers or [maker])))
            answer = bench.worker.exchange(sent)
            sizes += [len(sent), len(answer)]
            for report in actor_codec.decode_settled(answer).reports[-8:]:
                if batch == 0 or report.task != "make":
                    assert report.outcome == "ok", report.error
                    events.append(TaskSucceeded(AT, report.task, 1, report.value))
            takers = [python("take_sum", f"t{n}", inputs={"x": events[0].value}) for n in range(8)]
        return sum(sizes) + len(codec.encode_events(events))

    small, large = bytes_told(100_000), bytes_told(2_000_000)
    assert large < 10_000
    assert abs(large - small) < 200, "digits of its size"
