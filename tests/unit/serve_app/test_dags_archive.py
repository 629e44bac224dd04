"""The dags surface about the archive, over a gateway in memory."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from tests.dags_requests import is_error, start
from tests.fakes_gateway import FakeGateway
from tests.unit.serve_app.conftest import Connect


async def test_a_sweep_is_asked_for_and_told(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    made = await admin.post("/archive", json={"older_than_s": 60, "to": "s3://bucket/x"}, headers={"X-Request-Id": "k"})
    assert made.status_code == 200
    body: dict[str, Any] = made.json()
    assert (body["state"], body["to"], body["runs"], body["error"]) == ("wanted", "s3://bucket/x", 0, None)
    assert body["before"] == "2033-05-18T03:32:20.000Z"
    gateway.sweeps[0] = msgspec.structs.replace(gateway.sweeps[0], state="done", runs=7, updated_ms=5)
    again = await admin.post(
        "/archive", json={"older_than_s": 60, "to": "s3://bucket/x"}, headers={"X-Request-Id": "k"}
    )
    assert (again.json()["state"], again.json()["runs"]) == ("done", 7)
    assert (await admin.get("/archive")).json() == {"items": [again.json()]}


@pytest.mark.parametrize(
    "body",
    [{}, {"older_than_s": -1}, {"older_than_s": "30d"}, {"older_than_s": 1, "to": "x"}, {"older_than_s": 1, "to": ""}],
)
async def test_a_sweep_that_cannot_be_understood_is_400(admin: httpx.AsyncClient, body: dict[str, Any]) -> None:
    is_error(await admin.post("/archive", json=body), 400, "invalid_request")


async def test_it_is_the_operators(connect: Connect) -> None:
    base = "/api/v1/runtime/orchestrator/archive"
    is_error(await connect("client").post(base, json={"older_than_s": 0}), 403, "forbidden")
    is_error(await connect("other").post(base, json={"older_than_s": 0}), 404, "not_found")
    is_error(await connect("other").get(base), 404, "not_found")


async def test_lists_tell_what_left_only_when_asked(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    here, gone = await start(admin), await start(admin)
    for key, view in list(gateway._runs.items()):
        if view.run_id == gone:
            gateway._runs[key] = msgspec.structs.replace(view, archived=True)

    async def listed(query: str) -> list[str]:
        return [run["run_id"] for run in (await admin.get(f"/runs{query}")).json()["items"]]

    assert await listed("") == [here]
    assert await listed("?archived=false") == [here]
    assert await listed("?archived=true") == [gone]
    assert await listed("?archived=true&state=success") == []
    assert (await admin.get(f"/runs/{gone}")).json()["archived"] is True
    assert "archived" not in (await admin.get(f"/runs/{here}")).json()
    is_error(await admin.get("/runs?archived=yes"), 400, "invalid_request")
