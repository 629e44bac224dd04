"""actors.bundle_processes and its child: each bundle's code runs in a process of its own."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

import actors.bundle_processes as module
from actors import memory_values
from actors.artifact_places import artifacts_of, root_of
from actors.artifacts import Artifacts
from actors.attempt import LiveAttempt
from actors.bundle_processes import BundleProcesses
from actors.bundle_store import BundleStore
from actors.settings import Settings
from actors.work import TaskFailed
from orchestrator.errors import PermanentFailure
from orchestrator.messages import Assignment, Report, Value
from tests.bundle_builders import assignment, context, kept
from tests.worker_builders import FakeNotes, task


class Lost(Exception):
    """The worker would be gone."""


def lost() -> NoReturn:
    raise Lost


class Bench:
    """One worker's children, and the attempt that runs."""

    def __init__(self, home: Path, **options: float) -> None:
        self.home = home
        self.notes = FakeNotes()
        self.processes = BundleProcesses(settings_of(home), self.notes, lost=lost, environ={"MARK": "1"}, **options)
        self.attempt = LiveAttempt()

    def run(self, name: str, function: str, **params: object) -> Report:
        self.attempt = LiveAttempt()
        return self.processes.run(assignment(function, **params), context(name), self.attempt)

    def value(self, name: str, function: str) -> object:
        report = self.run(name, function)
        assert report.outcome == "ok", report.error
        return msgspec.json.decode(report.value.inline)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.processes.end()


def gone(pid: object) -> bool:
    assert isinstance(pid, int)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def until(holds: object) -> None:
    deadline = time.monotonic() + 10
    while not holds():  # type: ignore[operator]  # a callable
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_versions_of_a_module_run_side_by_side(bench: Bench) -> None:
    one, two = kept(bench.home, "one"), kept(bench.home, "two")
    assert [bench.value(name, "which") for name in (one, two, one)] == ["one", "two", "one"]
    assert [bench.value(name, "later") for name in (two, one)] == ["two", "one"], "also what is imported late"
    processes = [bench.value(name, "process") for name in (one, two, one)]
    assert processes[0] == processes[2] != processes[1]
    assert os.getpid() not in processes


def test_tenants_share_no_process(bench: Bench) -> None:
    name = kept(bench.home)
    pids = [
        bench.processes.run(assignment("process"), context(name, tenant), LiveAttempt()).value.inline
        for tenant in ("t", "other", "t")
    ]
    assert bytes(pids[0]) == bytes(pids[2]) != bytes(pids[1])


def test_a_worker_keeps_the_processes_it_used_last(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [kept(bench.home, version) for version in ("one", "two", "three")]
    first, second, _ = [bench.value(name, "process") for name in names]
    until(lambda: gone(first))
    assert not gone(second)
    assert bench.value(names[0], "which") == "one", "it is started again"


def test_a_process_without_work_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path, idle_s=0.2)
    name = kept(tmp_path)
    pid = bench.value(name, "process")
    until(lambda: gone(pid))
    assert bench.value(name, "process") != pid
    bench.run(name, "sleeps", seconds=0.5)
    assert not gone(bench.value(name, "process")), "one that works does not"
    bench.processes.end()


def test_a_failure_is_the_codes_own(bench: Bench) -> None:
    report = bench.run(kept(bench.home), "fails")
    assert (report.outcome, report.error, report.permanent) == ("error", "no more", True)
    assert any(name.endswith("PermanentFailure") for name in report.raised)


def test_a_cancel_reaches_the_code(bench: Bench) -> None:
    name = kept(bench.home)
    bench.value(name, "which")
    timer = threading.Timer(0.3, lambda: bench.attempt.cancel("timed_out"))
    timer.start()
    began_s = time.monotonic()
    assert bench.run(name, "sleeps").outcome == "timed_out"
    assert time.monotonic() - began_s < 5
    assert bench.value(name, "which") == "one", "and only that attempt"


def test_a_cancel_before_the_start_is_obeyed(bench: Bench) -> None:
    attempt = LiveAttempt()
    attempt.cancel("cancelled")
    report = bench.processes.run(assignment("sleeps"), context(kept(bench.home)), attempt)
    assert report.outcome == "cancelled"


def test_signs_of_life_reach_the_worker(bench: Bench) -> None:
    name = kept(bench.home)
    bench.value(name, "which")
    silences = []

    def look() -> None:
        time.sleep(0.15)
        silences.append(bench.attempt.silence_s())
        time.sleep(0.15)
        silences.append(bench.attempt.silence_s())

    thread = threading.Thread(target=look)
    thread.start()
    bench.run(name, "sleeps", seconds=0.3)
    thread.join()
    assert silences[1] < 0.15 <= silences[0] + 0.05


def test_notes_go_to_the_owner_and_its_answer_comes_back(bench: Bench) -> None:
    name = kept(bench.home)
    bench.notes.failures = 1
    assert bench.value(name, "notes") == 1
    assert [(owner, note.kind, bytes(note.data)) for owner, note in bench.notes.notes] == [
        ("run-actor-0", "checkpoint", b'{"at":1}')
    ]
    bench.notes.accepts = False
    assert bench.run(name, "notes").outcome == "cancelled", "the attempt was replaced"


def test_code_that_ends_its_process_ends_the_worker(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    name = kept(bench.home)
    for how in ("dies", "leaves_a_child"):
        caplog.clear()
        with pytest.raises(Lost):
            bench.run(name, how)
        assert "signal 9" in caplog.text
    assert bench.value(name, "which") == "one"


def test_an_idle_process_that_died_is_replaced(bench: Bench) -> None:
    name = kept(bench.home)
    pid = bench.value(name, "process")
    assert isinstance(pid, int)
    os.kill(pid, 9)
    until(lambda: not next(iter(bench.processes._kept.values())).alive())
    before = len(os.listdir("/proc/self/fd"))
    assert bench.value(name, "process") != pid
    assert len(os.listdir("/proc/self/fd")) == before, "nothing of it stays open"


def test_a_bundle_that_is_gone_says_what_to_do(bench: Bench) -> None:
    name = kept(bench.home)
    BundleStore(bench.home).remove(name)
    with pytest.raises(PermanentFailure, match="deploy the same code again"):
        bench.run(name, "which")


def test_a_bundle_that_cannot_be_had_now_is_tried_again(bench: Bench) -> None:
    name = kept(bench.home)
    (bench.home / "bundles" / f"{name}.zip").write_bytes(b"")
    with pytest.raises(TaskFailed, match="damaged"):
        bench.run(name, "which")


def test_a_process_that_does_not_start_is_an_ordinary_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    with pytest.raises(TaskFailed, match="exit code 1"):
        bench.run(kept(bench.home), "which")
    monkeypatch.setattr(module.sys, "executable", str(bench.home / "nothing"))
    with pytest.raises(TaskFailed, match="No such file"):
        bench.run(kept(bench.home), "which")


TOOL = """
import os
import helper
print(helper.VERSION, os.environ["ORCHESTRATOR_TASK_ID"])
"""
SCRIPTS = {"scripts/x.sh": "#!/bin/sh\necho $1 of $(cat data.txt); echo more >> data.txt\n", "tool.py": TOOL}


def bash(bench: Bench, name: str, command: str, **env: str) -> object:
    given = task("shell", "bash", run_id="run_1", command=command, env=env)
    report = bench.processes.run(given, context(name), LiveAttempt())
    assert report.outcome == "ok", report.error
    return msgspec.json.decode(report.value.inline)


def test_a_command_runs_scripts_and_programs_of_its_own_version(bench: Bench) -> None:
    one, two = (kept(bench.home, version, **SCRIPTS, **{"data.txt": version}) for version in ("one", "two"))
    for name, version in ((one, "one"), (two, "two")):
        assert bash(bench, name, "./scripts/x.sh this") == f"this of {version}"
        assert bash(bench, name, "python tool.py") == f"{version} shell"
        assert bash(bench, name, "cd scripts && python -c 'import helper; print(helper.VERSION)'") == version
    assert bash(bench, one, "echo $MARK") == "1"
    assert bash(bench, one, "echo $PYTHONPATH", PYTHONPATH="mine") == "mine"


def test_what_a_command_writes_where_it_is_goes_with_it(bench: Bench) -> None:
    name = kept(bench.home, **SCRIPTS, **{"data.txt": "one"})
    for _ in range(2):
        assert bash(bench, name, "./scripts/x.sh this; ls; rm -r *; echo $?") == "0"
    assert bash(bench, name, "./scripts/x.sh this") == "this of one"
    assert bash(bench, name, "wc -l < data.txt") == "0", "the line before was of another attempt"


def test_a_bundle_on_disk_whose_programs_cannot_be_run_is_made_good(bench: Bench) -> None:
    name = kept(bench.home, **SCRIPTS, **{"data.txt": "one"})
    (BundleStore(bench.home).unpacked(name) / "scripts/x.sh").chmod(0o644)
    assert bash(bench, name, "./scripts/x.sh this") == "this of one"


@pytest.mark.slow
def test_a_command_finds_the_programs_and_modules_of_its_requirements(bench: Bench) -> None:
    name = kept(bench.home, **{"requirements.txt": "iniconfig==2.0.0\ntabulate==0.9.0\n"})
    assert bash(bench, name, "printf '1 2\\n' | tabulate -f plain") == "1  2"
    code = 'import iniconfig, sys; print("packages" in iniconfig.__file__, sys.executable)'
    assert bash(bench, name, f"python -c '{code}'") == f"True {Path(sys.executable).parent / 'python'}"


@pytest.mark.slow
def test_two_versions_have_two_versions_of_a_package(bench: Bench) -> None:
    code = """
import importlib.metadata
import iniconfig
from orchestrator import dag, task

@task
def which() -> list:
    return [importlib.metadata.version("iniconfig"), "packages" in iniconfig.__file__]

@dag
def flow():
    which()
"""
    for version in ("1.1.1", "2.0.0"):
        name = kept(bench.home, **{"flow.py": code, "requirements.txt": f"iniconfig=={version}\n"})
        assert bench.value(name, "which") == [version, True]


def test_a_process_ends_with_its_worker(tmp_path: Path) -> None:
    import subprocess
    import sys

    name = kept(tmp_path)
    code = f"""
import sys
from pathlib import Path
from tests.unit.actors.test_bundle_processes import Bench
bench = Bench(Path({str(tmp_path)!r}))
print(bench.value({name!r}, "process"), flush=True)
sys.stdin.read()
"""
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    assert not gone(pid)
    worker.kill()
    worker.communicate()
    until(lambda: gone(pid))


class OtherNode:
    """`fetched_values.Nodes`: one other node, with its artifacts in a folder."""

    def __init__(self, folder: Path) -> None:
        self.artifacts = Artifacts(folder, node="other")
        self._folder = folder
        self.full = False

    def copy(self, value: Value, to: BufferedWriter) -> None:
        content = (self._folder / (value.artifact or "")).read_bytes()
        to.write(content[: len(content) // 2] if self.full else content)
        if self.full:
            raise OSError(errno.ENOSPC, "no space left")


def shows(seen: Value) -> Assignment:
    return msgspec.structs.replace(assignment("shows"), inputs={"seen": seen})


def settings_of(home: Path) -> Settings:
    return Settings(home=str(home), journal_url="redis://127.0.0.1:1")


def test_values_of_other_nodes_reach_the_process(tmp_path: Path) -> None:
    other = OtherNode(tmp_path / "elsewhere")
    processes = BundleProcesses(settings_of(tmp_path), FakeNotes(), "here", other)
    name = kept(tmp_path)
    value = other.artifacts.keep("run_1", "first", 1, {1: "one"})
    other.full = True
    report = processes.run(shows(value), context(name), LiveAttempt())
    assert (report.outcome, report.permanent) == ("error", False)
    assert "no space left" in str(report.error)
    other.full = False
    report = processes.run(shows(value), context(name), LiveAttempt())
    assert msgspec.json.decode(report.value.inline) == "{1: 'one'}"
    assert report.fetched_bytes == value.size_bytes, "nothing of the copy that broke off is left"
    lost = msgspec.structs.replace(value, artifact="run_1/none.1")
    report = processes.run(shows(lost), context(name), LiveAttempt())
    assert (report.outcome, report.missing) == ("missing", ("run_1/none.1",))
    processes.end()


def test_a_value_of_another_node_is_missing_where_there_is_no_way_to_it(bench: Bench, tmp_path: Path) -> None:
    value = OtherNode(tmp_path / "elsewhere").artifacts.keep("run_1", "first", 1, {1: "one"})
    report = bench.processes.run(shows(value), context(kept(bench.home)), LiveAttempt())
    assert (report.outcome, report.missing) == ("missing", ("run_1/first.1",))


@pytest.mark.skipif(not memory_values.supported(), reason="there is no directory that is memory here")
@pytest.mark.parametrize("in_memory", [True, False])
def test_values_of_either_durability_go_in_and_out(tmp_path: Path, in_memory: bool) -> None:
    settings = settings_of(tmp_path)
    root = root_of(settings)
    processes = BundleProcesses(settings, FakeNotes(), "here")
    name = kept(tmp_path)
    try:
        given = msgspec.structs.replace(assignment("makes"), in_memory=in_memory)
        report = processes.run(given, context(name), LiveAttempt())
        made = report.value
        assert (report.outcome, made.node) == ("ok", "here")
        kept_in = memory_values.folder_of(root) if in_memory else root
        assert (kept_in / str(made.artifact)).stat().st_size == made.size_bytes
        assert artifacts_of(settings, "").read(made) == {1: "one"}, "a worker of the node reads it"
        seen = processes.run(shows(made), context(name), LiveAttempt())
        assert msgspec.json.decode(seen.value.inline) == "{1: 'one'}"
    finally:
        processes.end()
        memory_values.clear(root)
