"""Log lines as JSON, and the trace that an attempt passes on."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actors import process
from actors.attempt_log import AttemptLog, Shipper, capturing
from actors.json_logs import JsonFormatter, about
from orchestrator.messages import RunContext
from orchestrator.traces import span_of_attempt, trace_of
from tests.worker_builders import RUN, Bench, FakeLogs, python, task

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = GIVEN.split("-")[1]


@pytest.fixture
def line() -> Any:
    """Logs with `extra`, and answers the object that was written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger("test_json_logs")
    log.propagate = False
    log.handlers = [handler]

    def write(message: str, *args: object, **given: Any) -> dict[str, Any]:
        log.error(message, *args, **given)
        [text] = stream.getvalue().splitlines()
        stream.truncate(0)
        stream.seek(0)
        found: dict[str, Any] = json.loads(text)
        return found

    return write


def test_a_line_is_one_object_without_ids_that_it_has_not(line: Any) -> None:
    found = line("%d rows\nof %s", 17, "x")
    assert set(found) == {"ts", "level", "logger", "message", "pid"}
    assert (found["level"], found["message"]) == ("ERROR", "17 rows\nof x")
    assert found["ts"].endswith("Z")


def test_a_line_with_bytes_that_are_no_text_is_written_all_the_same() -> None:
    record = logging.makeLogRecord(
        {"msg": "cannot read %s", "args": ("caf\udce9.csv",)}
    )  # no log: pytest would keep it
    text = JsonFormatter().format(record).encode()
    assert json.loads(text)["message"] == "cannot read caf\\udce9.csv"


def test_a_line_about_a_run_has_its_trace(line: Any) -> None:
    found = line("late", extra=about("run_1", "a", 2, GIVEN))
    assert [found[name] for name in ("run_id", "task", "attempt", "trace_id")] == ["run_1", "a", 2, TRACE]
    assert line("late", extra=about("run_1"))["trace_id"] == trace_of("run_1", "").trace_id


def test_a_line_of_a_running_attempt_has_its_ids(line: Any) -> None:
    with capturing(AttemptLog("run_1", "a", 3, Shipper(FakeLogs()), GIVEN)):
        found = line("hello")
    assert [found[name] for name in ("run_id", "task", "attempt", "trace_id")] == ["run_1", "a", 3, TRACE]
    assert "run_id" not in line("it is over")


def test_an_exception_is_told(line: Any) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        found = line("broken", exc_info=True)
    assert found["exception"].endswith("ValueError: no")


@pytest.mark.parametrize(("word", "formatter"), [("json", JsonFormatter), ("", logging.Formatter)])
def test_the_environment_says_how_lines_look(
    word: str, formatter: type[logging.Formatter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_LOG_FORMAT", word)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    process.log()
    [handler] = logging.getLogger().handlers
    assert type(handler.formatter) is formatter


def test_a_line_that_cannot_be_made_is_told_in_its_place_and_fails_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own raise
    logs, log = FakeLogs(), logging.getLogger("theirs")
    attempt = AttemptLog("run_1", "a", 1, Shipper(logs))
    with capturing(attempt):
        log.warning("%d rows", "many")
        log.warning("goes on")
    attempt.close()
    told = logs.text("a")
    assert "Message: '%d rows'" in told
    assert told.endswith("WARNING theirs: goes on\n")


_WORKER = """
import logging
from actors import process
from actors.attempt_log import AttemptLog, Shipper, capturing

class Sink:
    def append(self, run_id, task, attempt, text):
        kept.append(text)

process.log()
kept = []
log = AttemptLog("run_1", "a", 1, Shipper(Sink()))
with capturing(log):
    logging.getLogger("theirs").info("detail of a task")
    logging.getLogger("theirs").warning("warning of a task")
    logging.getLogger("actors.executor").warning("warning of ours in an attempt")
log.close()
logging.getLogger("actors.executor").warning("warning of ours")
logging.getLogger("urllib3").info("detail of a library")
print("".join(kept), end="")
"""


@pytest.mark.parametrize("level", ["WARNING", "INFO"])
def test_a_worker_writes_each_line_once_as_json_from_its_level_on(level: str) -> None:
    environ = os.environ | {"ORCHESTRATOR_LOG_FORMAT": "json", "ORCHESTRATOR_LOG_LEVEL": level}
    done = subprocess.run([sys.executable, "-c", _WORKER], env=environ, capture_output=True, text=True, check=True)
    told = [(found["level"], found["message"]) for found in map(json.loads, done.stderr.splitlines())]
    details = [("INFO", "detail of a task")], [("INFO", "detail of a library")]
    warnings = ["warning of a task", "warning of ours in an attempt", "warning of ours"]
    first, last = details if level == "INFO" else ([], [])
    assert told == [*first, *(("WARNING", text) for text in warnings), *last]
    assert [line.partition("theirs: ")[2] for line in done.stdout.splitlines()] == [
        "detail of a task",
        "warning of a task",
    ], "what a task has logged is kept with the run, whatever the level, and nothing of ours"


@pytest.mark.parametrize("traced", [True, False])
def test_tasks_pass_the_trace_on(tmp_path: Path, traced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", "of whoever started the server")
    monkeypatch.setattr("tests.worker_builders.RunContext", _in_a_trace(traced))
    bench = Bench(tmp_path)
    passed_on = {name: f"00-{TRACE}-{span_of_attempt(RUN, name, 1)}-01" if traced else GIVEN for name in ("b", "t")}
    assert bench.value(task("b", "bash", command="echo $TRACEPARENT")) == passed_on["b"]
    assert bench.value(python("traceparent", "t")) == passed_on["t"]


def test_a_task_without_a_trace_passes_none_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", "of whoever started the server")
    bench = Bench(tmp_path)
    assert bench.value(task("b", "bash", command="echo ${TRACEPARENT-none}")) == "none"
    assert bench.value(python("traceparent", "t")) is None


def _in_a_trace(traced: bool) -> Any:
    return lambda *given: RunContext(*given, traceparent=GIVEN, traced=traced)
