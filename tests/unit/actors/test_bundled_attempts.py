"""Which attempts run in the process of a bundle, and what the worker makes of what comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from actors.artifacts import Artifacts
from actors.attempt import LiveAttempt
from actors.entrypoints import Entrypoints
from actors.executor import Executor
from actors.work import TaskFailed
from actors.worker_actor import WorkerActor
from orchestrator import actor_codec, codec
from orchestrator.definition import Definition, content_hash
from orchestrator.errors import PermanentFailure
from orchestrator.messages import Assignment, Exchange, Report, RunContext, Value
from tests.builders import Story, a_dag, a_task
from tests.bundle_builders import assignment, context, kept
from tests.worker_builders import FakeLogs, FakeNotes, task


class FakeBundles:
    """Answers as a test says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[Assignment, LiveAttempt], Report] = lambda given, _: Report(
            given.run_id, given.task, given.attempt, "ok", Value(msgspec.Raw(b'"bundled"'), None, 9), took_s=2.0
        )

    def run(self, task: Assignment, run: RunContext, attempt: LiveAttempt) -> Report:
        self.asked.append(run.bundle)
        return self.answer(task, attempt)


@pytest.fixture
def bundles() -> FakeBundles:
    return FakeBundles()


@pytest.fixture
def logs() -> FakeLogs:
    return FakeLogs()


@pytest.fixture
def executor(tmp_path: Path, bundles: FakeBundles, logs: FakeLogs) -> Executor:
    return Executor(
        artifacts=Artifacts(tmp_path),
        entrypoints=Entrypoints(()),
        logs=logs,
        notes=FakeNotes(),
        http_allow="",
        bundles=bundles,
    )


def test_code_of_a_run_that_pins_a_bundle_runs_there(executor: Executor, bundles: FakeBundles) -> None:
    report = executor.run(assignment("which"), context("3f"), LiveAttempt())
    assert (report.outcome, bytes(report.value.inline), report.took_s) == ("ok", b'"bundled"', 2.0)
    executor.run(task(type="bash", command="true"), context("3f"), LiveAttempt())
    assert bundles.asked == ["3f", "3f"]


def test_everything_else_runs_in_the_worker(executor: Executor, bundles: FakeBundles) -> None:
    plain = context("")
    assert executor.run(assignment("which"), plain, LiveAttempt()).outcome == "error", "there is no such module here"
    for kind in ("core.noop", "core.echo", "core.fail", "http"):
        executor.run(task(type=kind, url="nowhere"), context("3f"), LiveAttempt())
    assert bundles.asked == []


@pytest.mark.parametrize("permanent", [True, False])
def test_what_cannot_begin_is_a_failure_with_a_log(
    executor: Executor, bundles: FakeBundles, logs: FakeLogs, permanent: bool
) -> None:
    def refuse(*_: object) -> Report:
        raise (PermanentFailure if permanent else TaskFailed)("no such bundle\nmore of it")

    bundles.answer = refuse
    report = executor.run(assignment("which"), context("3f"), LiveAttempt())
    assert (report.outcome, report.permanent) == ("error", permanent)
    assert report.error is not None
    assert "no such bundle" in report.error
    assert "more of it" in logs.text("which")


def test_a_cancel_that_was_accepted_here_is_the_outcome(executor: Executor, bundles: FakeBundles) -> None:
    ok = bundles.answer

    def late(given: Assignment, attempt: LiveAttempt) -> Report:
        assert attempt.cancel("timed_out")
        return ok(given, attempt)

    bundles.answer = late
    attempt = LiveAttempt()
    report = executor.run(assignment("which"), context("3f"), attempt)
    assert (report.outcome, report.error) == ("timed_out", "timed out after 60 s")
    assert not attempt.cancel("cancelled"), "it has ended"


def test_a_worker_runs_both_kinds_in_one_batch(tmp_path: Path) -> None:
    name = kept(tmp_path)
    worker = WorkerActor("w", {"home": str(tmp_path), "journal_url": "redis://127.0.0.1:1"}, logs=FakeLogs())
    tasks = (assignment("later"), task("t", "core.sleep", run_id="run_1", seconds=0))
    sent = actor_codec.encode_exchange(Exchange("o", 1, 1, (context(name),), tasks))
    settled = actor_codec.decode_settled(worker.exchange(sent))
    assert [(each.task, each.outcome, bytes(each.value.inline)) for each in settled.reports] == [
        ("later", "ok", b'"one"'),
        ("t", "ok", b'{"slept":0}'),
    ]


def test_a_run_tells_workers_the_bundle_of_the_version_it_pins() -> None:
    story = Story(a_task("a"), bundle="3f", later=[a_dag(a_task("a"), bundle="a0")])
    assert story.run.context("o").bundle == "3f"
    assert Story(a_task("a")).run.context("o").bundle == ""


def test_definitions_without_a_bundle_are_what_they_were() -> None:
    plain = Definition("d", "me")
    assert b"bundle" not in codec.encode_definition(plain)
    assert content_hash(plain) != content_hash(Definition("d", "me", bundle="3f"))
    assert codec.decode_definition(codec.encode_definition(plain)).bundle is None
