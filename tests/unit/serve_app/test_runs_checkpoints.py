"""The runs surface: checkpoints, and how runs end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.fakes_live_runs import FakeLiveRuns
from tests.runs_requests import UNKNOWN, create, is_error, is_invalid, listed, post, shown
from tests.unit.serve_app.conftest import Connect


@pytest.fixture
def client(connect: Connect) -> httpx.AsyncClient:
    """Somebody on this machine without a token."""
    return connect(None)


async def test_a_checkpoint_is_listed_with_its_type_trimmed(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    response = await post(client, run_id, {"type": " step ", "data": {"n": 1}, "other": 1})
    assert (response.status_code, set(response.json())) == (201, {"checkpointId"})
    last = (await listed(client, run_id))[-1]
    assert (last["id"], last["type"], last["data"]) == (response.json()["checkpointId"], "step", {"n": 1})


@pytest.mark.parametrize(
    "data", ["null", "1", '"x"', "[]", "{}", "1.50", "12345678901234567890123", '"\\u0000"', "false"]
)
async def test_data_is_any_json_and_comes_back_as_it_was(client: httpx.AsyncClient, data: str) -> None:
    run_id = await create(client)
    await client.post(f"/runs/{run_id}/checkpoints", content=f'{{"type":"x","data":{data}}}'.encode())
    answer = await client.get(f"/runs/{run_id}/checkpoints")
    assert answer.content.endswith(f'"type":"x","data":{data}}}]}}'.encode())


async def test_data_that_is_not_given_is_not_told(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    await post(client, run_id, {"type": "x"})
    assert "data" not in (await listed(client, run_id))[-1]


@pytest.mark.parametrize("body", [[], {}, "x", None, 1, {"type": "  "}, {"type": ""}, {"type": 1}, {"type": None}])
async def test_a_checkpoint_needs_a_type(client: httpx.AsyncClient, body: Any) -> None:
    run_id = await create(client)
    response = await client.post(f"/runs/{run_id}/checkpoints", content=json.dumps(body).encode())
    is_error(response, 400, "invalid checkpoint type")
    assert len(await listed(client, run_id)) == 1


async def test_a_type_has_at_most_200_characters_after_trimming(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    assert (await post(client, run_id, {"type": f"  {'é' * 200}  "})).status_code == 201
    is_invalid(await post(client, run_id, {"type": "é" * 201}), "/type must NOT have more than 200 characters")


@pytest.mark.parametrize("body", [b"", b"{", b'{"type":"x","data":1e999}', b'{"type":"\\ud800"}'])
async def test_a_checkpoint_that_is_no_json_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    run_id = await create(client)
    is_error(await client.post(f"/runs/{run_id}/checkpoints", content=body), 400, "invalid json")


async def test_data_may_have_256_kib_and_no_more(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    fits = "a" * (256 * 1024 - 2)
    assert (await post(client, run_id, {"type": "x", "data": fits})).status_code == 201
    is_error(await post(client, run_id, {"type": "x", "data": fits + "a"}), 413, "payload too large")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"{}", b'{"type":"x"}', b'{"type":"x","data":"' + b"a" * 300_000 + b'"}']
)
async def test_an_unknown_run_is_told_before_a_bad_checkpoint(client: httpx.AsyncClient, body: bytes) -> None:
    is_error(await client.post(f"/runs/{UNKNOWN}/checkpoints", content=body), 404, "run not found")
    is_error(await client.post("/runs/nope/checkpoints", content=body), 404, "run not found")


@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "failed", "cancelled"])
async def test_a_checkpoint_is_taken_in_every_status(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, state: str
) -> None:
    run_id = await create(client)
    live_runs.change(run_id, state=state)
    assert (await post(client, run_id, {"type": "late"})).status_code == 201


async def test_checkpoints_posted_at_once_have_distinct_ascending_times(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    posted = await asyncio.gather(*(post(client, run_id, {"type": "t", "data": n}) for n in range(200)))
    assert len({each.json()["checkpointId"] for each in posted}) == 200
    times = [each["ts"] for each in await listed(client, run_id)]
    assert times == sorted(set(times))
    assert {len(each) for each in times} == {24}


async def test_checkpoints_can_be_listed_from_an_instant_and_so_many(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    for n in range(3):
        await post(client, run_id, {"type": f"t{n}"})
    every = await listed(client, run_id)
    for query, expected in (
        (f"?after={every[1]['ts']}", every[2:]), (f"?after={every[3]['ts']}", []), ("?limit=2", every[:2]),
        (f"?after={every[0]['ts']}&limit=1", every[1:2]), ("?limit=10000", every),
        ("?after=2026-01-02t04:04:05.6785%2B01:00", every[1:]), ("?after=2026-01-02T03:04:05Z", every),
    ):  # fmt: skip
        assert await listed(client, run_id, query) == expected


@pytest.mark.parametrize(("query", "detail"), [
    ("limit=0", "/limit 1..10000 expected"), ("limit=10001", "/limit 1..10000 expected"),
    ("limit=x", "/limit 1..10000 expected"), ("limit=", "/limit 1..10000 expected"),
    ("after=", "/after must be an RFC 3339 instant"), ("after=2026-01-02", "/after must be an RFC 3339 instant"),
    ("after=2026-13-02T03:04:05Z", "/after must be an RFC 3339 instant"),
    ("after=2026-01-02T03:04:05", "/after must be an RFC 3339 instant"),
    ("after=0001-01-01T00:00:00%2B01:00", "/after must be an RFC 3339 instant"),
])  # fmt: skip
async def test_a_bad_query_is_400_before_anything_is_looked_up(
    client: httpx.AsyncClient, query: str, detail: str
) -> None:
    is_invalid(await client.get(f"/runs/{UNKNOWN}/checkpoints?{query}"), detail)


async def test_checkpoints_of_an_unknown_run_are_404(client: httpx.AsyncClient) -> None:
    is_error(await client.get(f"/runs/{UNKNOWN}/checkpoints"), 404, "run not found")


# -- DELETE /runs/{runId} (example 8)


@pytest.mark.parametrize("held", [True, False], ids=["pending", "running"])
async def test_a_run_is_canceled_once(client: httpx.AsyncClient, live_runs: FakeLiveRuns, held: bool) -> None:
    live_runs.held = held
    run_id = await create(client)
    response = await client.delete(f"/runs/{run_id}")
    assert (response.status_code, response.json()) == (200, {"ok": True, "status": "canceled"})
    again = await client.delete(f"/runs/{run_id}")
    is_error(again, 409, "invalid status transition", **{"from": "canceled", "to": "canceled"})
    assert (await shown(client, run_id))["status"] == "canceled"
    assert (await listed(client, run_id))[-1]["type"] == "canceled"


@pytest.mark.parametrize(("core", "word"), [("succeeded", "completed"), ("failed", "failed"), ("timed_out", "failed")])
async def test_what_has_ended_cannot_be_canceled(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, core: str, word: str
) -> None:
    run_id = await create(client)
    live_runs.change(run_id, state=core)
    response = await client.delete(f"/runs/{run_id}")
    is_error(response, 409, "invalid status transition", **{"from": word, "to": "canceled"})


async def test_an_unknown_run_cannot_be_canceled(client: httpx.AsyncClient) -> None:
    for run_id in (UNKNOWN, "nope"):
        is_error(await client.delete(f"/runs/{run_id}"), 404, "run not found")


# -- taskless runs


@pytest.mark.parametrize(("kind", "status"), [("run.completed", "completed"), ("run.failed", "failed")])
async def test_its_owner_ends_a_taskless_run(client: httpx.AsyncClient, kind: str, status: str) -> None:
    run_id = await create(client)
    await post(client, run_id, {"type": kind})
    assert (await shown(client, run_id))["status"] == status
    assert [each["type"] for each in await listed(client, run_id)] == ["started", kind, status]
