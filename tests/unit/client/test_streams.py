"""Streams resume: each event once, in order, whatever happens to the connection, and they end when it is over."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from orchestrator.client import NotThere, ServerBroken, ServerUnreachable
from orchestrator.client.sse import KEEP_ALIVE, Decoder, Frame
from tests.unit.client.conftest import Both, FakeClock, Pieces, Wire, event, refusal, stream

BASE = "/api/v1/runtime/orchestrator"
DAG_EVENTS = f"GET {BASE}/runs/r/events"
RUN_EVENTS = "GET /runs/R/events"
INSTANCE_EVENTS = "GET /api/orchestrators/o/events-sse"
CUT = httpx.ReadError("cut")


def state(number: int) -> str:
    return event("task_state", {"seq": number}, number)


END = event("end", {"run_id": "r", "state": "success"})


def kinds(events: list[Any]) -> list[str]:
    return [each.kind for each in events]


def ids(events: list[Any]) -> list[str | None]:
    return [each.id for each in events]


# -- dags


def test_a_stream_is_read_to_its_end(client: Both, wire: Wire) -> None:
    wire.on(DAG_EVENTS, stream("retry: 1000\n\n: keep-alive 1\n\n", state(1), state(2), END))
    events = client("dags.events", "r")
    assert [(each.id, each.kind, each.data) for each in events] == [
        ("1", "task_state", {"seq": 1}),
        ("2", "task_state", {"seq": 2}),
        (None, "end", {"run_id": "r", "state": "success"}),
    ]
    assert wire.headers("last-event-id") == [None]


@pytest.mark.parametrize("cut", [None, CUT, httpx.ReadTimeout("silent"), httpx.RemoteProtocolError("incomplete")])
def test_after_a_cut_it_goes_on_behind_the_last_id(client: Both, wire: Wire, cut: Exception | None) -> None:
    wire.on(DAG_EVENTS, stream(state(1), state(2), state(3)[:9], cut=cut), stream(state(3), END))
    assert ids(client("dags.events", "r")) == ["1", "2", "3", None]
    assert wire.headers("last-event-id") == [None, "2"]


def test_what_comes_twice_is_given_once(client: Both, wire: Wire) -> None:
    wire.on(DAG_EVENTS, stream(state(4), state(5), cut=CUT), stream(state(4), state(5), state(6), END))
    assert ids(client("dags.events", "r", after=3)) == ["4", "5", "6", None]
    assert wire.headers("last-event-id") == ["3", "5"]


def test_a_run_that_is_over_and_read_ends_the_stream(client: Both, wire: Wire) -> None:
    wire.on(DAG_EVENTS, stream(state(1), cut=CUT), httpx.Response(204))
    assert ids(client("dags.events", "r")) == ["1"]


def test_a_restart_is_waited_out_as_long_as_the_server_asks(client: Both, wire: Wire, clock: FakeClock) -> None:
    down = (httpx.ConnectError("refused"), httpx.Response(503, text="starting"))
    busy = refusal(429, {"Retry-After": "3"}, error="rate_limited")
    wire.on(DAG_EVENTS, stream(state(1), cut=CUT), *down, busy, stream(state(2), END))
    assert ids(client("dags.events", "r")) == ["1", "2", None]
    assert clock.waits == [0.25, 0.5, 1.0, pytest.approx(3.3)]


def test_progress_renews_patience_and_its_absence_uses_it_up(client: Both, wire: Wire, clock: FakeClock) -> None:
    wire.on(DAG_EVENTS, *(stream(": keep-alive 1\n\n", cut=CUT) for _ in range(200)), stream(state(1), END))
    assert ids(client("dags.events", "r")) == ["1", None]
    wire.answers.clear()
    clock.waits.clear()
    wire.on(DAG_EVENTS, stream("retry: 1000\n\n", cut=CUT))
    with pytest.raises(ServerUnreachable, match="cut"):
        client("dags.events", "r")
    assert max(clock.waits) == 5.0
    assert 25 < sum(clock.waits) < 40


def test_a_greeting_is_no_progress(client: Both, wire: Wire) -> None:
    wire.on("GET /runs/R", run("running"))
    wire.on(RUN_EVENTS, *(stream(HELLO, cut=CUT) for _ in range(50)), refusal(404, error="run not found"))
    with pytest.raises(ServerUnreachable):
        client("runs.events", "R")


def test_a_stream_of_nothing_there_raises(client: Both, wire: Wire) -> None:
    wire.on(DAG_EVENTS, refusal(404, error="not_found", message="run r not found"))
    with pytest.raises(NotThere, match="run r not found"):
        client("dags.events", "r")


@pytest.mark.parametrize("answer", [{"not": "a stream"}, stream("data: no json\n\n"), stream("data: [1]\n\n")])
def test_a_stream_that_cannot_be_understood_raises(client: Both, wire: Wire, answer: Any) -> None:
    wire.on(DAG_EVENTS, answer)
    with pytest.raises(ServerBroken):
        client("dags.events", "r")


def test_leaving_the_loop_closes_the_connection(client: Both, wire: Wire) -> None:
    body = Pieces([state(1).encode(), state(2).encode(), END.encode()])
    wire.on(DAG_EVENTS, lambda _: httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=body))
    assert ids(client.first(1, "dags.events", "r")) == ["1"]
    assert body.closed


def test_history_is_what_comes_before_the_stream_falls_silent(client: Both, wire: Wire) -> None:
    wire.on(DAG_EVENTS, stream(state(2), state(3), cut=httpx.ReadTimeout("silent")), httpx.Response(204))
    assert ids(client("dags.history", "r", after=1)) == ["2", "3"]
    assert wire.asked[0].extensions["timeout"]["read"] == 1.0
    assert client("dags.history", "r") == []


# -- runs


def ts(number: int) -> str:
    return f"2026-01-02T03:04:05.{number:03}Z"


def checkpoint(number: int, kind: str = "step") -> dict[str, Any]:
    return {"id": f"cp-{number:03}", "runId": "R", "ts": ts(number), "type": kind}


def told(number: int, kind: str = "step") -> str:
    return event("checkpoint", checkpoint(number, kind), ts(number))


HELLO = event("hello", {"runId": "R"})


def status(word: str) -> str:
    return event("status", {"runId": "R", "status": word})


def run(word: str) -> dict[str, Any]:
    return {"run": {"id": "R", "status": word}}


def test_a_run_is_followed_from_its_first_checkpoint_to_its_last(client: Both, wire: Wire) -> None:
    wire.on("GET /runs/R", run("running"))
    wire.on(RUN_EVENTS, stream(HELLO, told(1, "started"), told(2), status("completed"), told(3, "completed"), told(4)))
    assert ids(client("runs.events", "R")) == [ts(1), ts(2), None, ts(3)]
    assert wire.headers("last-event-id")[0] == "1970-01-01T00:00:00.000Z"


def test_a_checkpoint_that_comes_twice_is_given_once(client: Both, wire: Wire) -> None:
    wire.on("GET /runs/R", run("running"))
    wire.on(RUN_EVENTS, stream(HELLO, told(1), told(2), cut=CUT),
            stream(HELLO, told(2), status("failed"), told(3, "failed")))  # fmt: skip
    assert ids(client("runs.events", "R")) == [ts(1), ts(2), None, ts(3)]


def test_a_callers_checkpoint_named_like_an_end_ends_nothing(client: Both, wire: Wire) -> None:
    wire.on("GET /runs/R", run("running"))
    wire.on(RUN_EVENTS, stream(HELLO, told(1, "completed"), status("failed"), told(2, "failed")))
    assert ids(client("runs.events", "R")) == [ts(1), None, ts(2)]


def test_a_run_that_ended_while_we_were_away_is_read_to_its_end(client: Both, wire: Wire) -> None:
    wire.on(RUN_EVENTS, stream(HELLO, told(1), cut=CUT), stream(HELLO))
    wire.on("GET /runs/R", run("running"), run("canceled"))
    wire.on("GET /runs/R/checkpoints", {"checkpoints": [checkpoint(2), checkpoint(3, "canceled")]})
    assert ids(client("runs.events", "R")) == [ts(1), ts(2), ts(3)]
    listed = [each for each in wire.asked if each.url.path.endswith("checkpoints")]
    assert [each.url.params["after"] for each in listed] == [ts(1)]


def test_a_run_that_ended_before_the_cut_is_over(client: Both, wire: Wire) -> None:
    wire.on(RUN_EVENTS, stream(HELLO, told(1), status("failed"), cut=CUT), stream(HELLO, told(2, "failed")))
    wire.on("GET /runs/R", run("running"), run("failed"))
    wire.on("GET /runs/R/checkpoints", {"checkpoints": [checkpoint(2, "failed")]})
    assert kinds(client("runs.events", "R")) == ["checkpoint", "status", "checkpoint"]


def test_following_an_ended_run_from_its_end_brings_nothing_and_does_not_hang(client: Both, wire: Wire) -> None:
    wire.on(RUN_EVENTS, stream(HELLO))
    wire.on("GET /runs/R", run("completed"))
    wire.on("GET /runs/R/checkpoints", {"checkpoints": []})
    assert client("runs.events", "R", after=ts(9)) == []


# -- instances


def snapshot(word: str, id: int | None = None) -> str:
    data = {"type": "initial_status", "timestamp": ts(0), "instance_id": "o", "data": {"status": word}}
    return event("initial_status", data, id)


def change(number: int, kind: str = "task_changed", **data: Any) -> str:
    return event(kind, {"type": kind, "timestamp": ts(0), "instance_id": "o", "seq": number, "data": data}, number)


PING = event("ping", {"type": "ping", "timestamp": ts(0)})


def test_an_instance_is_followed_until_it_has_stopped(client: Both, wire: Wire) -> None:
    stop = change(43, "orchestrator_state", old_state="running", new_state="stopped")
    wire.on(INSTANCE_EVENTS, stream(snapshot("running", 41), PING, change(42), stop, change(44)))
    events = client("instances.events", "o")
    assert ids(events) == ["41", "42", "43"]
    assert kinds(events) == ["initial_status", "task_changed", "orchestrator_state"]


def test_after_a_cut_the_snapshot_comes_again_and_then_what_was_missed(client: Both, wire: Wire) -> None:
    stop = change(44, "orchestrator_state", new_state="stopped")
    wire.on(INSTANCE_EVENTS, stream(snapshot("running", 41), change(42), cut=CUT),
            stream(snapshot("stopped"), change(42), change(43), stop))  # fmt: skip
    assert ids(client("instances.events", "o")) == ["41", "42", None, "43", "44"]
    assert wire.headers("last-event-id") == [None, "42"]


def test_an_instance_that_had_stopped_before_is_only_shown(client: Both, wire: Wire) -> None:
    wire.on(INSTANCE_EVENTS, stream(snapshot("stopped", 41), cut=CUT))
    assert kinds(client("instances.events", "o")) == ["initial_status"]


def test_resuming_behind_the_end_of_an_instance_is_the_end(client: Both, wire: Wire) -> None:
    wire.on(INSTANCE_EVENTS, stream(snapshot("stopped")))
    assert kinds(client("instances.events", "o", after=44)) == ["initial_status"]
    assert wire.headers("last-event-id") == ["44"]


def test_a_resume_from_the_beginning_is_one_from_zero(client: Both, wire: Wire) -> None:
    wire.on(INSTANCE_EVENTS, stream(snapshot("stopped"), change(1, "orchestrator_state", new_state="crashed")))
    assert ids(client("instances.events", "o", after=0)) == [None, "1"]
    assert wire.headers("last-event-id") == ["0"]


# -- the decoder


FRAMES = [Frame("1", "a", "x\ny"), KEEP_ALIVE, Frame(None, "message", "ä€𝄞"), Frame("", "b", "")]
TEXT = (
    "\ufeffid: 1\nevent: a\ndata: x\ndata:y\nretry: 5\nfoo: bar\n\n: c\n\n"
    "data: ä€𝄞\n\nevent: no data\n\nid\nevent: b\ndata\n\n"
)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_frames_do_not_depend_on_where_bytes_are_cut(newline: str) -> None:
    text = TEXT.replace("\n", newline).encode()
    for size in range(1, len(text) + 1):
        decoder = Decoder()
        pieces = (text[start : start + size] for start in range(0, len(text), size))
        assert [frame for piece in pieces for frame in decoder.feed(piece)] == FRAMES, size


def test_an_id_with_nul_is_none(wire: Wire) -> None:
    assert Decoder().feed(b"id: 1\0\ndata: x\n\n") == [Frame(None, "message", "x")]
