"""The dags surface: workers and their pools."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.dags_requests import is_error
from tests.unit.serve_app.conftest import BASE, Connect

# -- workers


async def test_workers_are_listed_scaled_and_drained(admin: httpx.AsyncClient) -> None:
    first = (await admin.get("/workers")).json()["items"][0]
    where = {"node": "n1", "node_id": "a1b2", "pid": 42}
    assert first == {"worker_id": "worker-default-0", "pool": "default", "state": "idle", **where}
    scaled = (await admin.post("/workers/scale", json={"n": 3})).json()["items"]
    assert [each["worker_id"] for each in scaled] == [f"worker-default-{number}" for number in range(3)]
    assert (await admin.post("/workers/worker-default-2/drain")).json()["state"] == "draining"
    is_error(await admin.post("/workers/none/drain"), 404, "not_found")
    for bad in ({}, {"n": -1}, {"n": "1"}, {"n": 1001}, {"n": 1, "pool": ""}, {"n": 1, "pool": 1}):
        is_error(await admin.post("/workers/scale", json=bad), 400, "invalid_request")


async def test_pools_are_defined_read_and_forgotten(admin: httpx.AsyncClient, connect: Connect) -> None:
    assert [each["name"] for each in (await admin.get("/pools")).json()["items"]] == ["default"]
    body = {"max": 4, "num_gpus": 1, "resources": {"tpu": 2}, "labels": {"tier": "a"}, "memory_bytes": 1024}
    defined = (await admin.put("/pools/gpu", json=body)).json()
    assert {key: defined[key] for key in body} == body
    assert (defined["name"], defined["min"], defined["idle_timeout_s"], defined["wanted"]) == ("gpu", 0, 60.0, 0)
    assert "generation" not in defined
    assert (await connect("client").get(f"{BASE}/pools/gpu")).json() == defined
    is_error(await connect("client").put(f"{BASE}/pools/gpu", json=body), 403, "forbidden")
    assert (await admin.delete("/pools/gpu")).json() == {"name": "gpu", "deleted": True}
    for response in (await admin.get("/pools/gpu"), await admin.delete("/pools/gpu"), await admin.get("/pools/a b")):
        is_error(response, 404, "not_found")


async def test_pools_are_for_every_tenant_and_the_operators_to_define(
    admin: httpx.AsyncClient, connect: Connect
) -> None:
    other = connect("other")
    await admin.put("/pools/gpu", json={"max": 4})
    assert (await other.get(f"{BASE}/pools/gpu")).status_code == 200
    is_error(await other.put(f"{BASE}/pools/gpu", json={"max": 1}), 404, "not_found")
    is_error(await other.delete(f"{BASE}/pools/gpu"), 404, "not_found")
    assert (await admin.get("/pools/gpu")).json()["max"] == 4


async def test_workers_are_for_every_tenant_and_the_operators_to_scale_and_drain(
    admin: httpx.AsyncClient, connect: Connect
) -> None:
    other = connect("other")
    before = (await admin.get("/workers")).json()
    assert (await other.get(f"{BASE}/workers")).status_code == 200
    is_error(await other.post(f"{BASE}/workers/scale", json={"n": 0}), 404, "not_found")
    worker = before["items"][0]["worker_id"]
    is_error(await other.post(f"{BASE}/workers/{worker}/drain", json={}), 404, "not_found")
    assert (await admin.get("/workers")).json() == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "max"),
        ({"max": 513}, "max"),
        ({"max": 1, "min": 2}, "min"),
        ({"max": 1, "num_gpus": "1"}, "num_gpus"),
        ({"max": 1, "num_gpus": 1.5}, "num_gpus"),
        ({"max": 1, "resources": {"x": None}}, "resources/x"),
        ({"max": 1, "resources": {"CPU": 1}}, "resources/CPU"),
        ({"max": 1, "labels": {"a": 1}}, "labels/a"),
        ({"max": 1, "labels": {"a": "b c"}}, "labels/a"),
        ({"max": 1, "memory_bytes": -1}, "memory_bytes"),
        ({"max": 1, "idle_timeout_s": 1e9}, "idle_timeout_s"),
    ],
)
async def test_a_pool_that_cannot_be_so_is_refused(admin: httpx.AsyncClient, body: dict[str, Any], field: str) -> None:
    wrong = is_error(await admin.put("/pools/gpu", json=body), 400, "invalid_request")
    assert field in [each["field"] for each in wrong["details"]]
