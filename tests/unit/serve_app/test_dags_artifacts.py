"""The dags surface about artifacts, over a gateway in memory."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from orchestrator.reclaim import Tally
from tests.dags_requests import is_error
from tests.fakes_gateway import FakeGateway
from tests.unit.serve_app.conftest import Connect

KEY = {"X-Request-Id": "k"}


async def test_a_sweep_is_asked_for_and_told(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    made = await admin.post("/artifacts", json={"older_than_s": 60, "dry_run": True}, headers=KEY)
    assert made.status_code == 200
    body: dict[str, Any] = made.json()
    assert (body["state"], body["dry_run"], body["files"], body["there_files"]) == ("wanted", True, 0, None)
    assert body["before"] == "2033-05-18T03:32:20.000Z"
    told = gateway.artifacts.told
    told[0] = msgspec.structs.replace(told[0], state="done", gone=Tally(7, 70), there=Tally(3, 30), updated_ms=5)
    again = (await admin.post("/artifacts", json={"older_than_s": 60, "dry_run": True}, headers=KEY)).json()
    assert (again["files"], again["size_bytes"], again["there_files"], again["there_bytes"]) == (7, 70, 3, 30)
    assert (await admin.get("/artifacts")).json() == {"items": [again]}


async def test_something_goes_unless_it_is_a_dry_run(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    assert (await admin.post("/artifacts", json={"older_than_s": 60})).json()["dry_run"] is False


@pytest.mark.parametrize("body", [{}, {"older_than_s": -1}, {"older_than_s": "30d"}, {"older_than_s": 1, "dry_run": 1}])
async def test_a_sweep_that_cannot_be_understood_is_400(admin: httpx.AsyncClient, body: dict[str, Any]) -> None:
    is_error(await admin.post("/artifacts", json=body), 400, "invalid_request")


async def test_it_is_the_operators(connect: Connect) -> None:
    base = "/api/v1/runtime/orchestrator/artifacts"
    is_error(await connect("client").post(base, json={"older_than_s": 0}), 403, "forbidden")
    is_error(await connect("other").post(base, json={"older_than_s": 0}), 404, "not_found")
    is_error(await connect("other").get(base), 404, "not_found")
