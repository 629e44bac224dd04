"""Requests to the dags surface that many tests make."""

from __future__ import annotations

from typing import Any

import httpx

JSON = {"Content-Type": "application/json"}
DAG = {"dag_id": "sales_gdp", "schedule": "0 2 * * *", "owner": "team-data"}
TASKS = [{"id": "extract"}, {"id": "transform", "depends_on": ["extract"]}]
BACKFILL = {"dag_id": "sales_gdp", "run_type": "backfill", "from": "2025-10-01", "to": "2025-10-04"}


async def define(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    return await client.post("/dags", json={**DAG, **changes})


async def start(client: httpx.AsyncClient, **changes: Any) -> str:
    await define(client, tasks=TASKS)
    response = await client.post("/runs", json={"dag_id": "sales_gdp", **changes})
    run_id: str = response.json()["run_id"]
    return run_id


def is_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error that has the contract's form."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    body: dict[str, Any] = response.json()
    assert set(body) <= {"error", "message", "request_id", "details"}
    assert body["error"] == code
    assert body["message"]
    assert body["request_id"] == response.headers["x-request-id"]
    assert {"x-ratelimit-limit", "x-ratelimit-remaining"} <= set(response.headers)
    return body
