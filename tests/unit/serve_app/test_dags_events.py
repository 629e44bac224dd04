"""The dags surface: streams of events."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from orchestrator import errors
from orchestrator.views import Frame
from tests.dags_requests import is_error, start
from tests.fakes_gateway import FakeGateway
from tests.unit.serve_app.conftest import BASE, TOKENS, Connect

# -- events


async def events(client: httpx.AsyncClient, run_id: str, **given: Any) -> httpx.Response:
    return await client.get(f"/runs/{run_id}/events", **given)


async def test_a_stream_has_the_contracts_form_and_words(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await start(admin)
    counts = {"total": 1, "queued": 0, "running": 0, "succeeded": 1, "failed": 0, "cancelled": 0, "skipped": 0}
    gateway.frames["default", run_id] = [
        Frame(1, "run_state", {"seq": 1, "run_id": run_id, "from": None, "to": "queued", "attempts": 0}),
        Frame(2, "task_state", {"seq": 2, "task": "extract", "from": "running", "to": "succeeded", "attempt": 1}),
        Frame(None, "keep_alive"),
        Frame(
            3,
            "window_state",
            {"seq": 3, "run_id": run_id, "child": "run_2", "from": "running", "to": "succeeded", "counts": counts},
        ),
        Frame(4, "run_state", {"seq": 4, "from": "running", "to": "timed_out", "attempts": 1}),
        Frame(5, "task_note", {"seq": 5, "from": "kept", "to": "as it is"}),
        Frame(None, "end", {"run_id": run_id, "state": "timed_out"}),
    ]
    response = await events(admin, run_id)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert "content-length" not in response.headers
    blocks = response.text.removesuffix("\n\n").split("\n\n")
    assert blocks[0] == "retry: 1000"
    assert blocks[3] == ": keep-alive 1767323045678"
    assert [block.splitlines()[0] for block in blocks[1:]] == [
        "id: 1", "id: 2", ": keep-alive 1767323045678", "id: 3", "id: 4", "id: 5", "event: end"
    ]  # fmt: skip
    data = [json.loads(block.rpartition("data: ")[2]) for block in blocks[1:] if not block.startswith(":")]
    assert [(each.get("from"), each.get("to")) for each in data[:5]] == [
        (None, "queued"), ("running", "done"), ("running", "success"), ("running", "failed"), ("kept", "as it is")
    ]  # fmt: skip
    assert data[2]["counts"] == {"success" if key == "succeeded" else key: each for key, each in counts.items()}
    assert (data[2]["run_id"], data[2]["backfill_run_id"]) == ("run_2", run_id)
    assert data[5] == {"run_id": run_id, "state": "failed"}


@pytest.mark.parametrize(("header", "query", "ids"), [
    (None, None, [1, 2, 3]), ("1", None, [2, 3]), (None, "2", [3]), ("1", "2", [2, 3]), ("x", "2", [1, 2, 3]),
    (None, "x", [1, 2, 3]), ("0", None, [1, 2, 3]),
])  # fmt: skip
async def test_a_stream_resumes_after_the_id(
    admin: httpx.AsyncClient, gateway: FakeGateway, header: str | None, query: str | None, ids: list[int]
) -> None:
    run_id = await start(admin)
    gateway.frames["default", run_id] = [
        Frame(seq, "run_state", {"from": "queued", "to": "running"}) for seq in (1, 2, 3)
    ]
    headers = {} if header is None else {"Last-Event-ID": header}
    response = await events(admin, run_id, headers=headers, params={} if query is None else {"after": query})
    assert [int(line[4:]) for line in response.text.splitlines() if line.startswith("id: ")] == ids


async def test_the_last_id_of_a_terminal_run_is_204(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await start(admin)
    gateway.frames["default", run_id] = [Frame(1, "run_state", {"from": None, "to": "queued"})]
    gateway.settle("default", run_id, state="succeeded")
    for after in ("1", "2", "9" * 30):
        response = await events(admin, run_id, headers={"Last-Event-ID": after})
        assert (response.status_code, response.content) == (204, b"")
        assert "x-ratelimit-limit" in response.headers
    assert (await events(admin, run_id, headers={"Last-Event-ID": "0"})).status_code == 200


async def test_a_stream_that_is_no_longer_kept_points_to_the_run(
    admin: httpx.AsyncClient, gateway: FakeGateway
) -> None:
    run_id = await start(admin)
    gateway.broken = errors.HistoryGone(run_id, 41)
    response = await events(admin, run_id, headers={"Last-Event-ID": "7"})
    is_error(response, 410, "gone")
    path = f"{BASE}/runs/{run_id}"
    assert response.headers["link"] == f'<{path}>; rel="current"'
    body = response.json()
    assert body["message"] == f"events of run {run_id} up to 41 are no longer kept"
    assert body["details"] == [{"field": "after", "message": f"the run as it is now: GET {path}"}]


async def test_a_stream_of_nothing_or_nobody_is_json(admin: httpx.AsyncClient, connect: Connect) -> None:
    is_error(await events(admin, "run_none"), 404, "not_found")
    is_error(await connect(None).get(f"{BASE}/runs/run_1/events?api_key={TOKENS['admin']}"), 401, "unauthorized")
