"""orchestrator.instance_events: from a run's events to what its followers are told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from actors.plan_store import PlanStore
from orchestrator import events as e
from orchestrator import plan_entry, plan_run, plan_status, run_commands
from orchestrator.definition import Conduct
from orchestrator.instance_events import EDITED, InstanceFold, Told, finding_text, findings_path
from orchestrator.messages import Value
from orchestrator.plan_status import PlanStatus
from tests.builders import AT, Story, a_dag, a_plan, a_task, a_value


class Tale:
    """A plan of two tasks, its run, and what is told of it commit by commit."""

    def __init__(self, retries: int = 1, **plan: Any) -> None:
        tasks = (a_task("1.1", retries=retries), a_task("1.2", "1.1"))
        conduct = Conduct(batch_size=2)
        made = a_plan(a_dag(*tasks), **plan)
        self.story = Story(*tasks, conduct=conduct, plan=made)
        self.fold = InstanceFold("run_1")
        assert self.fold.tell(self.story.events) == []

    def do(self, command: run_commands.Command) -> list[Told]:
        self.story.now += timedelta(seconds=1.5)
        return self.fold.tell(self.story.do(command))

    def begin(self, name: str) -> list[Told]:
        return self.do(run_commands.Begin((self.story.run.position(name),), "w", "i"))

    def words(self) -> list[str]:
        return [view.status for view in self.fold.status().tasks]


def short(told: list[Told]) -> list[Any]:
    keys = {"task_changed": "new_status", "orchestrator_state": "new_state", "phase_changed": "new_phase"}
    return [
        each.kind if each.data is None else (each.kind, each.data.get(keys.get(each.kind, "tool_id"))) for each in told
    ]


def test_a_task_is_told_from_its_start_to_its_end() -> None:
    tale = Tale()
    assert short(tale.do(run_commands.Start())) == ["status_updated"]
    began = tale.begin("1.1")
    assert short(began) == [("task_changed", "in_progress"), ("tool_started", "1.1/1"), "status_updated"]
    assert began[0].data == {
        "task_id": "1.1",
        "old_status": "pending",
        "new_status": "in_progress",
        "description": "Do 1.1",
        "phase": "Phase 1: All",
    }
    assert began[1].data == {
        "tool_id": "1.1/1",
        "tool_name": "echo",
        "input_summary": {"task_id": "1.1", "description": "Do 1.1"},
    }
    ended = tale.do(tale.story.report("1.1", "ok", value=a_value("text")))
    assert short(ended) == [("tool_completed", "1.1/1"), ("task_changed", "completed"), "status_updated"]
    assert ended[0].data == {
        "tool_id": "1.1/1",
        "tool_name": "echo",
        "duration": 1.5,
        "duration_ms": 1500,
        "success": True,
    }
    assert [each.seq for each in (*began, *ended)] == list(range(2, 8))


def test_a_failed_task_is_failed_until_it_is_taken_up_again() -> None:
    tale = Tale()
    tale.do(run_commands.Start())
    tale.begin("1.1")
    failed = tale.do(tale.story.report("1.1", "error", error="Boom"))
    assert short(failed) == [
        ("tool_completed", "1.1/1"),
        ("task_changed", "failed"),
        ("task_changed", "pending"),
        "status_updated",
    ]
    view = tale.fold.status().tasks[0]
    assert (view.status, view.retry_count, view.last_error) == ("pending", 1, "Boom")
    tale.begin("1.1")
    last = tale.do(tale.story.report("1.1", "timed_out", error="timed out after 1 s"))
    assert short(last)[-2:] == ["status_updated", ("orchestrator_state", "stopped")]
    assert tale.words() == ["failed", "pending"]
    assert tale.fold.exit_reason == "blocked"
    assert tale.fold.document().raw["tasks"][0]["stuckDetected"] is True


def test_a_lost_attempt_is_pending_and_uses_up_no_retry() -> None:
    tale = Tale()
    tale.do(run_commands.Start())
    tale.begin("1.1")
    lost = tale.do(run_commands.Lose("1.1", 1))
    assert short(lost) == [("tool_completed", "1.1/1"), ("task_changed", "pending"), "status_updated"]
    assert lost[0].data is not None
    assert lost[0].data["success"] is False
    assert tale.fold.status().tasks[0].retry_count == 0


@pytest.mark.parametrize(
    ("command", "word", "core"),
    [
        (run_commands.Pause(), "paused", "paused"),
        (plan_run.ShutDown(), "stopping", "cancelling"),
        (run_commands.Cancel(), "stopped", "cancelled"),
    ],
)
def test_the_state_of_the_instance_is_told_last(command: run_commands.Command, word: str, core: str) -> None:
    tale = Tale()
    tale.do(run_commands.Start())
    tale.begin("1.1")
    told = tale.do(command)
    assert short(told)[-1] == ("orchestrator_state", word)
    assert (tale.fold.word, tale.fold.state) == (word, core)
    assert tale.words()[0] == ("pending" if word == "stopped" else "in_progress")


def test_what_a_person_retries_has_no_past() -> None:
    tale = Tale(retries=0)
    tale.do(run_commands.Start())
    tale.begin("1.1")
    tale.do(tale.story.report("1.1", "error", error="Boom"))
    told = tale.do(run_commands.RetryTask("1.1"))
    assert short(told) == [("task_changed", "pending"), "status_updated"]
    view = tale.fold.status().tasks[0]
    assert (view.status, view.retry_count, view.last_error, view.started_at) == ("pending", 1, None, None)
    assert tale.fold.word == "stopped"


def test_tools_of_a_task_are_told_with_numbers_of_their_own() -> None:
    tale = Tale()
    tale.do(run_commands.Start())
    tale.begin("1.1")
    story = tale.story
    started = story.note("1.1", {"call": 1, "name": "grep", "input": {"q": "y" * 200}}, "tool_started")
    ended = story.note("1.1", {"call": 1, "name": "grep", "took_ms": 12, "success": False}, "tool_completed")
    [first] = tale.do(started)
    assert first.data == {"tool_id": "1.1/1/1", "tool_name": "grep", "input_summary": {"q": "y" * 100 + "..."}}
    [second] = tale.do(ended)
    assert second.data == {
        "tool_id": "1.1/1/1",
        "tool_name": "grep",
        "duration": 0.012,
        "duration_ms": 12,
        "success": False,
    }


def test_the_document_is_what_the_facts_make_of_the_file() -> None:
    tale = Tale(done=("1.2",))
    plan = tale.fold.plan
    status = PlanStatus(msgspec.json.decode(plan.status))
    tale.do(run_commands.Start())
    tale.begin("1.1")
    at = tale.story.now
    began = AT + timedelta(seconds=1.5)
    expected = plan_status.apply(status, plan_status.RunStarted("run_1", began), plan_entry.Started("1.1", at))
    assert tale.fold.document().raw == expected.raw
    tale.do(tale.story.report("1.1", "ok", value=a_value("x")))
    done = plan_entry.Completed("1.1", tale.story.now, findings_path("p", "1.1"))
    expected = plan_status.apply(expected, done, plan_status.RunEnded("run_1", tale.story.now))
    assert tale.fold.document().raw == expected.raw


def test_what_others_wrote_is_told_and_kept() -> None:
    tale = Tale()
    tale.do(run_commands.Start())
    raw = {**tale.fold.document().raw, "extra": 1}
    raw["tasks"] = [{**entry, "notes": "mine", "status": "odd"} for entry in raw["tasks"]]
    told = tale.do(run_commands.Post(EDITED, msgspec.Raw(msgspec.json.encode(raw))))
    assert short(told) == ["status_updated"]
    after = tale.fold.document().raw
    assert (after["extra"], after["tasks"][0]["notes"], after["tasks"][0]["status"]) == (1, "mine", "pending")
    assert tale.do(run_commands.Post(EDITED, msgspec.Raw(b'{"bad": 1}'))) == []
    assert tale.do(run_commands.Post("other", msgspec.Raw(b"1"))) == []


@pytest.mark.parametrize("nothing", [None, "", {}])
def test_a_task_that_returns_nothing_leaves_no_finding(nothing: object) -> None:
    tale = Tale()
    tale.do(run_commands.Start())
    tale.begin("1.1")
    value = Value(msgspec.Raw(msgspec.json.encode(nothing)))
    tale.do(tale.story.report("1.1", "ok", value=value))
    assert tale.fold.document().raw["tasks"][0]["findingsPath"] is None


def test_findings_are_text_and_lie_where_the_store_puts_them(tmp_path: Any) -> None:
    assert finding_text("a") == "a\n"
    assert finding_text("a\n") == "a\n"
    assert finding_text({"n": [1]}) == '{\n  "n": [\n    1\n  ]\n}\n'
    assert PlanStore(tmp_path).write_finding("demo", "1.2.3", "x") == findings_path("demo", "1.2.3")


def test_an_event_tells_the_same_whatever_was_told_with_it_before() -> None:
    tale = Tale()
    for command in (run_commands.Start(), run_commands.Pause(), run_commands.Resume()):
        tale.do(command)
    again = InstanceFold("run_1")
    history: list[e.Event] = tale.story.events
    again.tell(history)
    assert again.document().raw == tale.fold.document().raw
    assert again.status() == tale.fold.status()
