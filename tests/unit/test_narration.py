"""What a stream says about a run, from its events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import msgspec

from orchestrator import events as e
from orchestrator.definition import Window
from orchestrator.narration import Narrator

AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def told(*events: e.Event) -> list[dict[str, object]]:
    narrator = Narrator("run_1")
    return [{"kind": f.kind, **(f.data or {})} for f in map(narrator.tell, events)]


def test_what_took_too_long_is_told_with_its_reason() -> None:
    frames = told(
        e.RunCreated(AT, "run_1", "t", "d", 1, "manual"),
        e.SlaMissed(AT, AT),
        e.SlaMissed(AT, AT, "a"),
        e.TaskStarted(AT, "a", 1, "w"),
        e.TaskRetrying(AT, "a", 1, AT, "silent", reason="heartbeat"),
        e.TaskStarted(AT, "a", 2, "w"),
        e.TaskFailed(AT, "a", 2, "boom"),
        e.TaskFailed(AT, "b", 0, "late", timed_out=True, reason="queued"),
        e.TaskFailed(AT, "c", 1, "late", timed_out=True),  # of a journal that did not say why
        e.RunTimedOut(AT, "late", "queued"),
    )
    assert [frame["task"] for frame in frames[1:3]] == [None, "a"]
    reasons = [frame.get("timed_out") for frame in frames[3:]]
    assert reasons == [None, "heartbeat", None, None, "queued", "run", "queued"]


def test_a_stream_tells_what_is_undone_and_in_which_order() -> None:
    (frame,) = told(e.RunCompensating(AT, ("refund", "give_back")))
    assert (frame["kind"], frame["seq"], frame["tasks"]) == ("compensation", 1, ["refund", "give_back"])


def test_frames_are_numbered_without_a_gap_and_say_where_things_came_from() -> None:
    frames = told(
        e.RunCreated(AT, "run_1", "t", "d", 1, "manual"),
        e.RunStarted(AT, 1),
        e.TaskStarted(AT, "a", 1, "w"),
        e.TaskRetrying(AT, "a", 1, AT, "boom"),
        e.TaskStarted(AT, "a", 2, "w"),
        e.TaskFailed(AT, "a", 2, "late", timed_out=True),
        e.TaskUpstreamFailed(AT, "b"),
        e.RunFailed(AT, "late"),
    )
    assert [f["seq"] for f in frames] == list(range(1, 9))
    assert frames[0] == {
        "kind": "run_state",
        "seq": 1,
        "ts": "2026-01-02T03:04:05.678Z",
        "run_id": "run_1",
        "from": None,
        "to": "queued",
        "attempts": 0,
    }
    assert [(f["kind"], f["from"], f["to"]) for f in frames[1:]] == [
        ("run_state", "queued", "running"),
        ("task_state", "pending", "running"),
        ("task_state", "running", "retrying"),
        ("task_state", "retrying", "running"),
        ("task_state", "running", "timed_out"),
        ("task_state", "pending", "upstream_failed"),
        ("run_state", "running", "failed"),
    ]
    assert (frames[3]["error"], frames[5]["error"], frames[5]["attempt"]) == ("boom", "late", 2)
    assert (frames[6]["attempt"], frames[7]["attempts"]) == (0, 1)


def test_a_skip_that_no_person_made_says_whose_it_is() -> None:
    by_hand, by_rule, own = told(
        e.TaskSkipped(AT, "a", "later"), e.TaskSkipped(AT, "b", by="rule"), e.TaskSkipped(AT, "c", "no rows", by="task")
    )
    assert (by_hand["to"], by_rule["to"], own["to"]) == ("skipped",) * 3
    assert "by" not in by_hand
    assert (by_rule["by"], by_rule["reason"]) == ("rule", None)
    assert (own["by"], own["reason"]) == ("task", "no rows")


def test_the_states_of_an_instance_carry_its_index() -> None:
    frames = told(
        e.RunCreated(AT, "run_1", "t", "d", 1, "manual"),
        e.TaskExpanded(AT, "work", 1, 12),
        e.TaskStarted(AT, "work[11]", 1, "w"),
        e.TaskSucceeded(AT, "work[11]", 1),
        e.TaskReset(AT, "work"),
        e.TaskExpanded(AT, "work", 2, 12),
        e.TaskStarted(AT, "work[11]", 2, "w"),
    )
    assert [(f["from"], f["to"], f.get("map_index"), f.get("instances")) for f in frames[1:]] == [
        ("pending", "running", None, 12),
        ("pending", "running", 11, None),
        ("running", "succeeded", 11, None),
        ("running", "pending", None, None),
        ("pending", "running", None, 12),
        ("pending", "running", 11, None),
    ]


def test_a_restart_makes_every_task_pending_and_keeps_its_attempts() -> None:
    frames = told(
        e.RunCreated(AT, "run_1", "t", "d", 1, "manual"),
        e.RunStarted(AT, 1),
        e.TaskStarted(AT, "a", 1, "w"),
        e.TaskSucceeded(AT, "a", 1),
        e.RunSucceeded(AT),
        e.RunRestarted(AT, 2),
        e.RunStarted(AT, 2),
        e.TaskStarted(AT, "a", 2, "w"),
    )
    assert (frames[5]["from"], frames[5]["to"]) == ("succeeded", "queued")
    assert (frames[7]["from"], frames[7]["attempt"]) == ("pending", 2)


def test_a_backfill_tells_of_its_windows() -> None:
    window = Window("2025-10-01", "2025-10-01")
    frames = told(
        e.BackfillCreated(AT, "run_1", "t", "d", 1, Window("2025-10-01", "2025-10-02"), 2, 0),
        e.WindowChanged(AT, window, "run_2", "queued", "running", e.Counts(total=2, queued=1, running=1)),
    )
    assert frames[1]["kind"] == "window_state"
    assert frames[1]["window"] == {"from": "2025-10-01", "to": "2025-10-01"}
    assert (frames[1]["child"], frames[1]["from"], frames[1]["to"]) == ("run_2", "queued", "running")
    assert frames[1]["counts"] == {
        "total": 2,
        "queued": 1,
        "running": 1,
        "succeeded": 0,
        "failed": 0,
        "cancelled": 0,
        "skipped": 0,
    }


def test_every_event_there_is_gives_a_frame() -> None:
    values = {"at": AT, "window": Window("a", "b"), "data": msgspec.Raw(b'{"n":1}'), "due": AT, "deadline": AT}
    values |= {"until": AT, "through": 0, "attempts": 1, "task_attempts": {}, "wait": e.Wait("time", AT)}
    for kind in get_args(e.AnyEvent):
        names = [f.name for f in msgspec.structs.fields(kind) if f.required]
        event = kind(**{name: values.get(name, 1 if name in ("attempt", "dag_version") else "x") for name in names})
        frame = Narrator("run_1").tell(event)
        assert frame.seq == 1
        assert frame.data is not None
        assert frame.data["seq"] == 1
        msgspec.json.encode(frame.data)
