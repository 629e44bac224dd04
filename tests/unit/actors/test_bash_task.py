"""actors.bash_task: real shells, gone with their attempt."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from asyncio.base_subprocess import BaseSubprocessTransport
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from actors.settings import Settings
from tests.worker_builders import RUN, Bench, InThread, task


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def bash(command: str, **given: object) -> object:
    return task("b", "bash", command=command, **given)  # type: ignore[arg-type]  # fields by their names


def is_gone(pid: int, within_s: float = 3.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):  # the latter when it goes while it is read
            return True
        time.sleep(0.01)
    return False


def read_pid(path: Path) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.01)
    raise AssertionError("the command did not start")


def test_a_command_finds_no_secret_of_the_servers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = (Path(__file__).parents[3] / "deploy/kuberay/rayservice.yaml").read_text()
    names = set(re.findall(r"\{name: (\w+), valueFrom: \{secretKeyRef", manifest))
    names |= {name for each in fields(Settings) if each.metadata.get("secret") for name in each.metadata["names"]}
    assert {"REDIS_URL", "ORCHESTRATOR_SECRET_KEY", "ORCHESTRATOR_ADMIN_TOKEN"} <= names
    for name in sorted(names | {"RAY_AUTH_TOKEN", "REDIS_PASSWORD"}):
        monkeypatch.setenv(name, "s3cret")
    assert bench.run(bash("! env | grep s3cret")).outcome == "ok"


@pytest.mark.parametrize(
    ("command", "value"),
    [
        ("echo one; echo two", "two"),
        ("printf three", "three"),
        ("true", None),
        ("echo; echo", ""),
        ("printf 'a\n\n'", ""),
    ],
)
def test_the_value_is_the_last_line(bench: Bench, command: str, value: object) -> None:
    assert bench.value(bash(command)) == value


def test_output_of_both_streams_is_kept(bench: Bench) -> None:
    bench.run(bash("echo out; echo err >&2"))
    assert sorted(bench.logs.text("b").split()) == ["err", "out"]


def test_a_failure_tells_the_exit_code_and_the_end_of_stderr(bench: Bench) -> None:
    report = bench.run(bash("echo 'no such table' >&2; exit 3"))
    assert (report.outcome, report.error, report.permanent) == ("error", "exit code 3: no such table", False)


def test_a_command_killed_by_a_signal_says_so(bench: Bench) -> None:
    assert bench.run(bash("kill -9 $$")).error == "killed by signal 9"


def test_it_runs_in_a_scratch_directory_that_goes_away(bench: Bench) -> None:
    place = bench.value(bash("touch left-behind; pwd"))
    assert place != os.getcwd()
    assert not Path(place).exists()


def test_the_environment_tells_of_the_run_and_keeps_secrets(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:secret@host")
    told = bench.value(
        bash('echo "$ORCHESTRATOR_RUN_ID $ORCHESTRATOR_FROM $ORCHESTRATOR_ATTEMPT [$REDIS_URL] $N"', env={"N": 5}),
        window=("2025-10-01", "2025-10-02"),
    )
    assert told == f"{RUN} 2025-10-01 1 [] 5"


def test_the_command_is_templated_and_run_params_cannot_replace_it(bench: Bench) -> None:
    told = bench.value(bash("echo {{ from }}"), window=("2025-10-01", "2025-10-02"), params={"command": "echo other"})
    assert told == "2025-10-01"


def test_a_missing_command_is_a_permanent_error(bench: Bench) -> None:
    report = bench.run(task("b", "bash"))
    assert (report.error, report.permanent) == ("params.command must be a shell command", True)


def test_what_is_left_in_the_background_is_killed_and_not_waited_for(bench: Bench, tmp_path: Path) -> None:
    started_s = time.monotonic()
    assert bench.value(bash(f"sleep 60 & echo $! > {tmp_path}/pid; echo done")) == "done"
    assert time.monotonic() - started_s < 5
    assert is_gone(read_pid(tmp_path / "pid"))


@pytest.mark.parametrize("trap", ["", "trap '' TERM;"])
def test_a_cancel_kills_the_whole_group(
    bench: Bench, tmp_path: Path, trap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.process_group.TERM_GRACE_S", 0.2)
    pending = InThread(bench.run, bash(f"{trap} sleep 60 & echo $! > {tmp_path}/pid; wait; sleep 60"))
    pid = read_pid(tmp_path / "pid")
    assert bench.worker.cancel(RUN, "b", 1, "timed_out")
    assert pending.result(4).outcome == "timed_out"
    assert is_gone(pid)


def test_a_cancel_while_the_shell_starts_ends_it(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio alone would wait for ever: the cancel comes after the process exists and before its pipes do."""
    connect = BaseSubprocessTransport._connect_pipes

    async def cancel_first(transport: Any, waiter: Any) -> None:
        read_pid(tmp_path / "pid")
        bench.worker.cancel(RUN, "b", 1, "cancelled")
        await asyncio.sleep(0)
        await connect(transport, waiter)

    monkeypatch.setattr(BaseSubprocessTransport, "_connect_pipes", cancel_first)
    pending = InThread(bench.run, bash(f"sleep 60 & echo $! > {tmp_path}/pid; wait"))
    assert pending.result(8).outcome == "cancelled"
    assert is_gone(read_pid(tmp_path / "pid"))


def test_a_command_may_end_in_order_when_it_is_cancelled(bench: Bench, tmp_path: Path) -> None:
    command = f"trap 'echo tidy > {tmp_path}/end; exit' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.01; done"
    pending = InThread(bench.run, bash(command))
    read_pid(tmp_path / "pid")
    assert bench.worker.cancel(RUN, "b", 1, "cancelled")
    assert pending.result().outcome == "cancelled"
    assert (tmp_path / "end").read_text() == "tidy\n"


@pytest.mark.parametrize("before", ["", "trap '' TERM; kill -TERM 0; "], ids=["running", "after SIGTERM"])
def test_the_command_dies_with_its_worker(tmp_path: Path, before: str) -> None:
    script = f"""
import sys
sys.path.insert(0, {os.getcwd()!r})
from pathlib import Path
from tests.worker_builders import Bench, task
Bench(Path({str(tmp_path)!r})).run(task("b", "bash", command="{before}sleep 60 & echo $! > {tmp_path}/pid; wait"))
"""
    worker = subprocess.Popen([sys.executable, "-c", script])
    try:
        pid = read_pid(tmp_path / "pid")
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    assert is_gone(pid)
