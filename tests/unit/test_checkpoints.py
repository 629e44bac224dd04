"""What a run looks like by checkpoints (contracts/runs.md, section 3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import msgspec
import pytest

from orchestrator import events as e
from orchestrator.checkpoints import Checkpoints, Status, checkpoint_id
from orchestrator.definition import Window
from orchestrator.live_run_views import CheckpointView
from orchestrator.messages import Value

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
STARTED = {"definition": None, "version": None, "tasks": ["a"]}


def told(*history: e.Event, about: dict[str, Any] | None = STARTED) -> list[tuple[str, Any]]:
    """Statuses as (state, None), checkpoints as (kind, data)."""
    fold = Checkpoints("R", lambda _: about)
    return [
        (each.state, None) if isinstance(each, Status) else (each.kind, _data(each))
        for event in history
        for each in fold.tell(event)
    ]


def _data(checkpoint: CheckpointView) -> Any:
    return msgspec.json.decode(checkpoint.data) if checkpoint.data else "absent"


def created(at: datetime = AT) -> e.RunCreated:
    return e.RunCreated(at, "R", "t", "@run", 1, "manual")


def posted(at: datetime = AT, kind: str = "step") -> e.CheckpointPosted:
    return e.CheckpointPosted(at, kind)


def test_a_run_with_tasks_tells_what_they_do() -> None:
    assert told(
        created(),
        e.RunStarted(AT, 1),
        e.TaskStarted(AT, "a", 1, "w"),
        e.TaskProgressed(AT, "a", 1, msgspec.Raw(b'{"fraction":0.5,"message":"half"}')),
        e.TaskRetrying(AT, "a", 1, AT + timedelta(seconds=2.5), "ValueError: it was red"),
        e.TaskStarted(AT, "a", 2, "w"),
        e.TaskSucceeded(AT, "a", 2, Value(msgspec.Raw(b"[1,2]"), None, 5)),
        e.RunSucceeded(AT),
    ) == [
        ("running", None),
        ("started", STARTED),
        ("task.started", {"task": "a", "attempt": 1}),
        ("task.progress", {"task": "a", "attempt": 1, "progress": 0.5, "message": "half"}),
        (
            "task.retrying",
            {
                "task": "a",
                "attempt": 1,
                "error": {"code": "ValueError", "message": "it was red"},
                "retry_in_s": 2.5,
            },
        ),
        ("task.started", {"task": "a", "attempt": 2}),
        ("task.completed", {"task": "a", "attempt": 2, "result": [1, 2]}),
        ("succeeded", None),
        ("completed", "absent"),
    ]


def test_who_skipped_a_task_is_told() -> None:
    skips = [e.TaskSkipped(AT, "a", by=by) for by in ("", "task", "branch", "rule")]
    assert [data["reason"] for _, data in told(created(), *skips)] == ["skipped", "skipped", "branch", "trigger_rule"]


def test_a_run_is_cancelled_at_once_also_when_it_still_cleans_up() -> None:
    history = [created(), e.RunStarted(AT, 1), e.RunCancelling(AT), e.TaskCancelled(AT, "a"), e.RunCancelled(AT)]
    assert told(*history)[2:] == [
        ("cancelling", None),
        ("task.canceled", {"task": "a", "attempt": 0}),
        ("canceled", "absent"),
    ]


def test_a_result_that_is_kept_elsewhere_is_only_hinted_at() -> None:
    [*_, done] = told(created(), e.TaskSucceeded(AT, "a", 1, Value(artifact="R/a.1", size_bytes=10**6)))
    assert done == ("task.completed", {"task": "a", "attempt": 1, "result": {"truncated": True}})


def test_a_failure_is_told_with_what_it_takes_along() -> None:
    assert told(
        created(),
        e.TaskStarted(AT, "a", 3, "w"),
        e.TaskFailed(AT, "a", 3, "told to fail"),
        e.TaskUpstreamFailed(AT, "b"),
        e.RunFailed(AT, "a: told to fail"),
    )[1:] == [
        ("task.failed", {"task": "a", "attempt": 3, "error": {"code": "failed", "message": "told to fail"}}),
        ("task.skipped", {"task": "b", "attempt": 0, "reason": "upstream_failed"}),
        ("failed", None),
        ("failed", {"error": {"code": "task_failed", "message": "a: told to fail"}}),
    ]


def test_a_run_that_is_cancelled_ends_with_canceled() -> None:
    assert told(created(), e.RunStarted(AT, 1), e.TaskCancelled(AT, "a"), e.RunCancelled(AT))[2:] == [
        ("task.canceled", {"task": "a", "attempt": 0}),
        ("cancelled", None),
        ("canceled", "absent"),
    ]


def test_a_driven_run_starts_without_data_and_says_when_it_was_idle() -> None:
    assert told(created(), e.RunStarted(AT, 1), e.RunFailed(AT, "no checkpoint", "idle"), about=None) == [
        ("running", None),
        ("started", "absent"),
        ("failed", None),
        ("failed", {"reason": "idle", "error": {"code": "idle", "message": "no checkpoint"}}),
    ]


@pytest.mark.parametrize("raw", [b"", b"null", b'{"n": 1.0}'])
def test_what_was_posted_comes_back_as_it_was(raw: bytes) -> None:
    fold = Checkpoints("R", lambda _: None)
    fold.tell(created())
    [checkpoint] = fold.tell(e.CheckpointPosted(AT, "step", msgspec.Raw(raw)))
    assert isinstance(checkpoint, CheckpointView)
    assert (checkpoint.kind, bytes(checkpoint.data)) == ("step", raw)
    assert checkpoint.id == checkpoint_id(2)


def test_instants_are_whole_milliseconds_and_ascend_whatever_the_clock_does() -> None:
    fold = Checkpoints("R", lambda _: None)
    fold.tell(created())
    steps = (0, 0, 0.4, -60_000, 0, 59_000, 61_000)
    found = [
        each.at
        for ms in steps
        for each in fold.tell(posted(AT + timedelta(milliseconds=ms)))
        if isinstance(each, CheckpointView)
    ]
    first = AT.replace(microsecond=678_000)
    after = [0, 1, 2, 3, 4, 59_000, 61_000]
    assert found == [first + timedelta(milliseconds=ms) for ms in after]


def test_every_event_there_is_can_be_told() -> None:
    raw = msgspec.Raw(b'{"n":1}')
    values = {"at": AT, "window": Window("a", "b"), "data": raw, "due": AT, "deadline": AT}
    values |= {"until": AT, "through": 0, "attempts": 1, "task_attempts": {}}
    for kind in get_args(e.AnyEvent):
        if kind in (e.BackfillCreated, e.WindowChanged, e.RunCancelling):  # of backfills, which this surface has not
            continue
        names = [f.name for f in msgspec.structs.fields(kind) if f.required]
        event = kind(**{name: values.get(name, 1 if name in ("attempt", "dag_version") else "x") for name in names})
        fold = Checkpoints("R", lambda _: None)
        assert len(fold.tell(event)) <= 2
        assert fold.version == 1
