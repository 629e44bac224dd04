"""Requests to the pipelines surface that many tests make."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

Json = dict[str, Any]

SCRIPT = 'return { name = "Example", stages = { { name = "build", script = function() end } } }'
WORDS = "Queued, Running, Succeeded, Failed, Cancelled, TimedOut"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
TIME = "2026-01-02T03:04:05.678000Z"
LINE = {"timestamp": "2026-01-02T03:04:05.123456789Z", "level": "Info", "message": "hi"}
DONE = {"result": {"success": True, "exit_code": 0, "output": None, "error_message": None}}


@pytest.fixture
def client(anybody: httpx.AsyncClient) -> httpx.AsyncClient:
    return anybody


@pytest.fixture
async def pipeline_id(client: httpx.AsyncClient) -> str:
    return str((await ok(client.post("/api/pipeline/create", json={"script": SCRIPT})))["id"])


@pytest.fixture
async def job_id(client: httpx.AsyncClient, pipeline_id: str) -> str:
    return await launch(client, pipeline_id)


async def launch(client: httpx.AsyncClient, pipeline_id: str, **parameters: Any) -> str:
    body = {"pipeline_id": pipeline_id, "parameters": parameters}
    return str((await ok(client.post("/api/pipeline/launch", json=body)))["id"])


async def claim(client: httpx.AsyncClient, job_id: str, runner_id: str = "r1") -> Json:
    found: Json = await ok(client.post(f"/api/jobs/{job_id}/claim", json={"runner_id": runner_id}))
    return found


async def ok(asked: Any) -> Any:
    """The JSON of an answer 200."""
    response = await asked
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    return response.json()


async def refused(asked: Any, status: int, error: str) -> httpx.Response:
    """The answer is that refusal."""
    response: httpx.Response = await asked
    assert (response.status_code, response.json()) == (status, {"error": error})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    return response


async def empty(asked: Any, status: int) -> httpx.Response:
    """The answer has that status and no body."""
    response: httpx.Response = await asked
    assert (response.status_code, response.content) == (status, b"")
    return response
