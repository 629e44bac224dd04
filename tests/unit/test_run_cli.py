"""The commands on DAGs and runs against a scripted HTTP server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.run_screen import Tally
from tests.cli_stub import DAG, HISTORY, REST, RUN, Json, Stub, call, frames, stub

__all__ = ["call", "stub"]


# ------------------------------------------------------------------ commands


def test_a_list_is_a_table_or_json_and_uses_the_operators_token(call: Any, stub: Stub) -> None:
    stub.on("GET", "/dags?limit=200", {"items": [DAG], "next_cursor": None})
    status, out, _ = call("dags", "list")
    assert status == 0
    assert out.splitlines()[0].split() == ["dag_id", "status", "version", "schedule", "owner", "next_run_at"]
    assert out.splitlines()[1].split() == ["d", "active", "3", "me"]
    assert stub.headers[0]["authorization"] == "Bearer adm"
    assert json.loads(call("dags", "list", "--json")[1]) == {"items": [DAG]}


def test_a_long_list_is_read_page_by_page(call: Any, stub: Stub) -> None:
    stub.on("GET", "/runs?limit=200", {"items": [RUN] * 200, "next_cursor": "c"})
    stub.on("GET", "/runs?limit=50&cursor=c", {"items": [RUN] * 50, "next_cursor": "e"})
    _, out, _ = call("runs", "list", "--limit", "250", "--json")
    assert len(json.loads(out)["items"]) == 250


def test_a_preview_is_a_table_of_both_clocks_with_what_is_skipped(call: Any, stub: Stub) -> None:
    tick = {"at": "2026-03-29T01:00:00.000Z", "local": "2026-03-29T03:00:00+02:00", "moved": True, "skipped": None}
    window = {"from": "2026-03-29", "to": "2026-03-29"}
    skipped = {**tick, "moved": False, "skipped": "excluded", "runs_at": None, "window": None}
    told = {
        "timezone": "Europe/Berlin",
        "paused": True,
        "items": [{**tick, "runs_at": "2026-03-29T01:00:42.120Z", "window": window}, skipped],
    }
    stub.on("GET", "/dags/d/schedule/preview?n=2&from=2026-03-28T00%3A00%3A00Z", told)
    stub.on("GET", "/dags/d/schedule/preview?n=10", {"timezone": None, "paused": False, "items": []})
    status, out, _ = call("dags", "preview", "d", "-n", "2", "--from", "2026-03-28T00:00:00Z")
    assert status == 0
    words = " ".join(out.split())
    for word in (
        "Europe/Berlin",
        "2026-03-29 03:00",
        "01:00:42",
        "clocks change",
        "skipped: excluded",
        "d is paused",
    ):
        assert word in words
    assert "no schedule" in call("dags", "preview", "d")[1]
    assert json.loads(call("dags", "preview", "d", "--json")[1])["items"] == []


def test_a_run_carries_its_parameters_and_a_request_id(call: Any, stub: Stub) -> None:
    stub.on("POST", "/runs", {"run_id": "run_1", "state": "queued"})
    status, out, err = call("run", "d", "--param", "n=3", "--param", "name=x y", "--param", 'tags=["a"]')
    assert (status, out.split()) == (0, ["run_1", "queued"])
    assert "orchestrator runs events run_1 -f" in err
    assert stub.asked == [("POST", "/runs", {"dag_id": "d", "params": {"n": 3, "name": "x y", "tags": ["a"]}})]
    assert stub.headers[0]["x-request-id"].startswith("cli-")


def test_a_parameter_without_a_value_is_refused_before_anything_is_sent(call: Any, stub: Stub) -> None:
    status, _, err = call("run", "d", "--param", "n")
    assert status == 1
    assert "k=v expected" in err
    assert stub.asked == []


@pytest.mark.parametrize(("state", "expected"), [("success", 0), ("failed", 3), ("cancelled", 4)])
def test_the_exit_status_of_wait_is_the_end_of_the_run(call: Any, stub: Stub, state: str, expected: int) -> None:
    stub.on("POST", "/runs", {"run_id": "run_1", "state": "queued"})
    stub.on("GET", "/runs/run_1", RUN | {"state": "running"}, RUN | {"state": state})
    stub.on("GET", "/runs/run_1/events", HISTORY + frames((None, "end", {"state": state})))
    status, out, _ = call("run", "d", "--wait", "--json")
    assert status == expected
    assert json.loads(out)["state"] == state


def test_wait_outlives_a_cut_stream_and_goes_on_after_the_last_event(call: Any, stub: Stub) -> None:
    stub.on("POST", "/runs", {"run_id": "run_1", "state": "queued"})
    stub.on("GET", "/runs/run_1", RUN)
    stub.on("GET", "/runs/run_1/events", HISTORY, REST)
    status, _, _ = call("run", "d", "--wait")
    assert status == 0
    streams = [h for (_, path, _), h in zip(stub.asked, stub.headers, strict=True) if path.endswith("/events")]
    assert [each.get("last-event-id") for each in streams] == [None, "3"]


def test_a_backfill_says_which_days_and_what_to_redo(call: Any, stub: Stub) -> None:
    stub.on("POST", "/runs", {"run_id": "run_1", "state": "queued"})
    call("backfill", "d", "--from", "2025-10-01", "--to", "2025-10-04", "--reprocess", "failed", "--backwards")
    assert stub.asked[0][2] == {
        "dag_id": "d",
        "run_type": "backfill",
        "from": "2025-10-01",
        "to": "2025-10-04",
        "params": {},
        "reprocess": "failed",
        "run_backwards": True,
    }


def test_a_run_because_of_an_event_names_it(call: Any, stub: Stub) -> None:
    stub.on("POST", "/dags/d/trigger/order-7", {"run_id": "run_1", "state": "queued"})
    assert call("run", "d", "--event", "order-7", "--param", "n=1")[0] == 0
    assert stub.asked[0][2] == {"n": 1}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ((), None),
        (("--partition", "eu", "--partition", "us"), ["eu", "us"]),
        (("--partition", "r=eu", "--partition", "d=1", "--partition", "r=us"), {"r": ["eu", "us"], "d": ["1"]}),
    ],
)
def test_a_backfill_is_over_partitions_where_no_days_are_given(
    call: Any, stub: Stub, given: tuple[str, ...], sent: object
) -> None:
    stub.on("POST", "/runs", {"run_id": "run_1", "state": "queued"})
    assert call("backfill", "d", *given)[0] == 0
    assert stub.asked[0][2].get("partitions") == sent
    assert "from" not in stub.asked[0][2]


def test_values_with_and_without_a_name_are_refused(call: Any, stub: Stub) -> None:
    status, _, err = call("backfill", "d", "--partition", "eu", "--partition", "r=us")
    assert status != 0
    assert "name=value" in err
    assert stub.asked == []


def test_a_backfill_is_made_wider_and_tells_by_how_much(call: Any, stub: Stub) -> None:
    answer = {"run_id": "run_1", "state": "running", "added": 3, "counts": {"total": 7}}
    stub.on("POST", "/runs/run_1/widen", answer)
    status, out, _ = call("runs", "widen", "run_1", "--to", "2025-10-07", "--plan-hash", "sha256:3f")
    assert (status, out) == (0, "run_1 running: 3 more, 7 windows\n")
    assert stub.asked[0][2] == {"to": "2025-10-07", "params": {}, "reprocess": "none", "plan_hash": "sha256:3f"}


def test_the_tally_tells_when_a_backfill_will_be_through() -> None:
    counts = {"total": 4, "queued": 3, "running": 0, "success": 0, "failed": 0, "cancelled": 0, "skipped": 1}
    tally = Tally(RUN | {"state": "running", "counts": counts, "eta": "2026-01-02T03:04:05.000Z"})
    assert tally.note == "running, until 2026-01-02 03:04:05 UTC"
    tally.count("backfill_widened", {"total": 7, "added": 3, "skipped": 2})
    assert (tally.done, tally.total) == (2, 7)
    tally.count("run_state", {"to": "running"})
    assert tally.note == "running"


def test_a_dry_run_shows_the_windows_and_the_hash_that_pins_them(call: Any, stub: Stub) -> None:
    day = {"from": "2025-10-01", "to": "2025-10-01"}
    plan = {
        "plan_hash": "sha256:3f",
        "counts": {"total": 1, "create": 1, "restart": 0, "skip": 0},
        "windows": [{"window": day, "action": "create"}],
        "task_groups": [["a"], ["b", "c"]],
    }
    stub.on("POST", "/runs", plan)
    status, out, _ = call("backfill", "d", "--from", "2025-10-01", "--to", "2025-10-01", "--dry-run")
    assert status == 0
    assert stub.asked[0][2]["dry_run"] is True
    assert "--plan-hash sha256:3f" in out
    assert "a > b, c" in out


def test_the_tally_of_a_backfill_follows_its_counts() -> None:
    counts = {"total": 4, "queued": 2, "running": 1, "success": 1, "failed": 0, "cancelled": 0, "skipped": 0}
    tally = Tally(RUN | {"state": "queued", "counts": counts | {"queued": 4, "running": 0, "success": 0}})
    assert (tally.done, tally.total) == (0, 4)
    tally.count("window_state", {"counts": counts})
    assert (tally.done, tally.note) == (1, "running")
    tally.count("window_state", {"counts": counts | {"queued": 1, "failed": 1}})
    assert (tally.done, tally.note) == (2, "1 failed")


def test_the_tally_of_a_run_counts_tasks_that_are_over() -> None:
    tally = Tally(RUN | {"state": "queued"})
    for state in ("running", "retrying", "running", "done"):
        assert tally.done == 0
        tally.count("task_state", {"task": "a", "to": state})
    assert (tally.done, tally.total) == (1, 2)


def test_events_are_one_a_line_and_in_json_one_object_a_line(call: Any, stub: Stub) -> None:
    stub.on("GET", "/runs/run_1/events", HISTORY + REST)
    _, out, _ = call("runs", "events", "run_1", "-f")
    assert [line.split()[0] for line in out.splitlines()] == ["1", "2", "3", "4"]
    _, out, _ = call("runs", "events", "run_1", "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == [1, 2, 3, 4, None]


def test_a_line_that_is_followed_is_printed_once_it_is_whole(call: Any, stub: Stub, monkeypatch: Any) -> None:
    monkeypatch.setattr("serve_app.run_commands.time.sleep", lambda _: None)
    stub.on(
        "GET", "/runs/run_1", *({**RUN, "state": state, "tasks": {"a": "done"}} for state in ("running", "success"))
    )
    kept = ({"items": [{"task": "a", "attempt": 1, "text": text}]} for text in ("one\ntw", "one\ntwo\nend"))
    stub.on("GET", "/runs/run_1/tasks/a/logs", *kept)
    assert call("runs", "logs", "run_1", "-f")[1] == "a/1 | one\na/1 | two\na/1 | end\n"


def test_logs_name_the_task_and_its_attempt(call: Any, stub: Stub) -> None:
    stub.on("GET", "/runs/run_1", RUN | {"tasks": {"a": "done", "b": "pending"}})
    chunk = {"task": "a", "attempt": 2, "text": "one\ntwo\n", "truncated": False}
    stub.on("GET", "/runs/run_1/tasks/a/logs", {"items": [chunk]})
    assert call("runs", "logs", "run_1")[1] == "a/2 | one\na/2 | two\n"


def test_instances_are_listed_page_by_page_with_a_summary(call: Any, stub: Stub) -> None:
    page = {"task": "w", "state": "running", "total": 2, "counts": {"done": 1, "pending": 1}, "next_cursor": None}
    items = [{"map_index": n, "task": f"w[{n}]", "state": state} for n, state in enumerate(("done", "pending"))]
    stub.on("GET", "/runs/run_1/tasks/w/instances?limit=200", {**page, "items": items})
    lines = call("runs", "instances", "run_1", "w")[1].splitlines()
    assert [line.split() for line in lines[:2]] == [["w[0]", "done"], ["w[1]", "pending"]]
    assert lines[2] == "w is running: 1 done, 1 pending"
    _, out, _ = call("runs", "instances", "run_1", "w", "--json")
    assert [json.loads(line) for line in out.splitlines()] == items


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (("dags", "pause", "d"), "/dags/d/pause", {}),
        (("dags", "resume", "d"), "/dags/d/resume", {}),
        (("runs", "cancel", "r"), "/runs/r/cancel", {}),
        (("runs", "pause", "r"), "/runs/r/pause", {}),
        (("runs", "resume", "r"), "/runs/r/resume", {}),
        (("runs", "cap", "r", "2"), "/runs/r/cap", {"max_active_runs": 2}),
        (("runs", "cap", "r"), "/runs/r/cap", {"max_active_runs": None}),
        (("runs", "retry", "r"), "/runs/r/retry", {}),
        (("runs", "retry", "r", "t"), "/runs/r/tasks/t/retry", {}),
        (("workers", "scale", "4"), "/workers/scale", {"pool": "default", "n": 4}),
        (("workers", "drain", "w"), "/workers/w/drain", {}),
    ],
)
def test_a_command_is_one_post(call: Any, stub: Stub, arguments: tuple[str, ...], path: str, body: Json) -> None:
    answer = {"dag_id": "d", "run_id": "r", "worker_id": "w", "status": "active", "state": "running", "items": []}
    stub.on("POST", path, answer)
    assert call(*arguments)[0] == 0
    assert json.loads(call(*arguments, "--json")[1]) == answer
    assert stub.asked[0] == ("POST", path, body)


@pytest.mark.parametrize(("more", "query", "shown"), [((), "", "all tasks of d"), (("t",), "?task=t", "task t of d")])
def test_an_uncache_names_the_dag_and_perhaps_a_task(
    call: Any, stub: Stub, more: tuple[str, ...], query: str, shown: str
) -> None:
    stub.on("DELETE", f"/dags/d/cache{query}", {"dag_id": "d", "task": None, "uncached_at": "2026-01-02T03:04:05Z"})
    code, out, _ = call("dags", "uncache", "d", *more)
    assert (code, out.startswith(f"{shown}: results from before 2026-01-02T03:04:05Z")) == (0, True)


def test_a_signal_carries_json_or_text_and_an_id(call: Any, stub: Stub) -> None:
    stub.on("POST", "/runs/r/signals/go", {"run_id": "r", "name": "go", "signal_id": "x", "state": "running"})
    code, out, _ = call("runs", "signal", "r", "go", "--data", '{"n": 1}', "--id", "x")
    assert (code, "running" in out) == (0, True)
    call("runs", "signal", "r", "go", "--data", "not json")
    call("runs", "signal", "r", "go")
    assert [body for _, _, body in stub.asked] == [
        {"data": {"n": 1}, "signal_id": "x"},
        {"data": "not json"},
        {"data": None},
    ]


def test_approvals_are_listed_and_decided(call: Any, stub: Stub) -> None:
    approval = {"run_id": "r", "task": "ask", "prompt": "Well?", "choices": ["yes", "no"], "votes": [1], "quorum": 2}
    stub.on("GET", "/approvals", {"items": [{**approval, "expires_at": "2026-01-02T03:04:05Z"}]})
    out = call("approvals", "list")[1]
    assert [part for part in ("ask", "Well?", "1/2") if part not in out] == []
    assert json.loads(call("approvals", "list", "--json")[1])["items"][0]["choices"] == ["yes", "no"]
    stub.on("POST", "/runs/r/tasks/ask/decision", {"run_id": "r", "task": "ask", "state": "done", "attempts": 1})
    code, out, _ = call("approvals", "decide", "r", "ask", "yes", "--comment", "fine", "--by", "ada")
    assert (code, "done" in out) == (0, True)
    assert stub.asked[-1][2] == {"choice": "yes", "comment": "fine", "by": "ada"}


def test_a_run_is_asked_for_one_value_or_all(call: Any, stub: Stub) -> None:
    stub.on("GET", "/runs/r/query/rows", {"name": "rows", "value": [4]})
    stub.on("GET", "/runs/r/query", {"items": [{"name": "rows", "value": [4]}, {"name": "progress", "value": {}}]})
    assert "[4]" in call("runs", "query", "r", "rows")[1]
    assert json.loads(call("runs", "query", "r", "rows", "--json")[1]) == {"name": "rows", "value": [4]}
    assert "progress" in call("runs", "query", "r")[1]


def test_a_tree_shows_what_a_run_called_and_what_that_called(call: Any, stub: Stub) -> None:
    child = {"run_id": "r2", "dag_id": "sales", "state": "failed"}
    lowest = {"run_id": "r3", "dag_id": "load", "state": "success"}
    stub.on("GET", "/runs/r", {"run_id": "r", "dag_id": "report", "state": "running", "children": {"south": child}})
    stub.on("GET", "/runs/r2", {**child, "children": {"rows": lowest}})
    stub.on("GET", "/runs/r3", lowest)
    told = call("runs", "tree", "r")[1].splitlines()
    assert told == ["report  running  r", "  south: sales  failed  r2", "    rows: load  success  r3"]
    tree = json.loads(call("runs", "tree", "r", "--json")[1])
    assert tree["children"]["south"]["children"]["rows"]["run_id"] == "r3"
