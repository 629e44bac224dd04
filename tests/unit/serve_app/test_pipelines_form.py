"""The pipelines surface: bodies and ids without sense, what breaks, and its description."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from orchestrator import errors
from serve_app.surfaces.pipelines import models as m
from serve_app.surfaces.pipelines.routes import ENDPOINTS
from tests.fakes_pipelines import FakePipelines
from tests.pipelines_requests import DONE, LINE, UNKNOWN, client, ok, pipeline_id, refused
from tests.unit.serve_app.conftest import Connect

__all__ = ["client", "pipeline_id"]


# -- bodies, ids, what does not exist


def every_body() -> list[tuple[str, str]]:
    """Method and path of what takes a body."""
    named = {"{job_id}": UNKNOWN, "{pipeline_id}": UNKNOWN, "{runner_id:path}": "r1"}
    found = []
    for method, path, _, _, name in ENDPOINTS:
        if method in ("POST", "PUT") and name not in ("heartbeat", "cancel_job"):
            for parameter, value in named.items():
                path = path.replace(parameter, value)
            found.append((method, path))
    return found


@pytest.mark.parametrize(("method", "path"), every_body())
async def test_a_body_that_is_no_json_is_refused_in_words(client: httpx.AsyncClient, method: str, path: str) -> None:
    for content in (b"", b"{", b"\xff", b"[" * 5000 + b"]" * 5000, b'{"a":' * 101 + b"1" + b"}" * 101):
        response = await client.request(method, path, content=content)
        assert response.status_code == 400
        assert response.json()["error"].startswith("Invalid request body: ")


async def test_a_body_beyond_the_limit_is_413(connect: Connect) -> None:
    client = connect(None, max_body_bytes=100)
    body = {"script": "x" * 100}
    await refused(client.post("/api/pipeline/create", json=body), 413, "body is larger than 100 bytes")
    await refused(client.post(f"/api/jobs/{UNKNOWN}/logs", json=[LINE] * 9), 413, "body is larger than 100 bytes")


@pytest.mark.parametrize(("method", "path", "error"), [
    ("GET", "/api/jobs/not-a-uuid", "Invalid job id"),
    ("GET", "/api/jobs/not-a-uuid/logs", "Invalid job id"),
    ("GET", "/api/jobs/not-a-uuid/logs/stream", "Invalid job id"),
    ("POST", "/api/jobs/not-a-uuid/claim", "Invalid job id"),
    ("POST", "/api/jobs/execute/claim", "Invalid job id"),
    ("PUT", "/api/jobs/not-a-uuid/status", "Invalid job id"),
    ("POST", "/api/jobs/not-a-uuid/complete", "Invalid job id"),
    ("POST", "/api/jobs/not-a-uuid/logs", "Invalid job id"),
    ("POST", "/api/jobs/not-a-uuid/cancel", "Invalid job id"),
    ("GET", f"/api/jobs/{{{UNKNOWN}}}", "Invalid job id"),
    ("GET", "/api/jobs/pipeline/logs", "Invalid pipeline id"),
    ("GET", "/api/pipeline/not-a-uuid", "Invalid pipeline id"),
])  # fmt: skip
async def test_an_id_in_a_path_is_a_uuid(client: httpx.AsyncClient, method: str, path: str, error: str) -> None:
    await refused(client.request(method, path), 400, error)


@pytest.mark.parametrize(("method", "path", "body"), [
    ("GET", "", None), ("GET", "/logs", None), ("GET", "/logs/stream", None), ("POST", "/cancel", None),
    ("POST", "/claim", {"runner_id": "r"}), ("PUT", "/status", {"status": "Running"}), ("POST", "/complete", DONE),
    ("POST", "/logs", [LINE]),
])  # fmt: skip
async def test_a_job_that_there_is_not_is_404(client: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    asked = client.request(method, f"/api/jobs/{UNKNOWN}{path}", json=body)
    await refused(asked, 404, f"Job {UNKNOWN} not found")


@pytest.mark.parametrize("path", ["/api/pipeline", "/api/jobs/scheduled/x", "/api/stubs/log/x", "/api/health/x"])
async def test_a_path_that_there_is_not_is_404(client: httpx.AsyncClient, path: str) -> None:
    await refused(client.get(path), 404, "Not found")


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("POST", "/api/pipeline/list", "GET"), ("PATCH", f"/api/pipeline/{UNKNOWN}", "DELETE, GET"),
    ("PUT", f"/api/jobs/{UNKNOWN}/claim", "POST"), ("DELETE", "/api/jobs", "GET"), ("POST", "/api/health", "GET"),
    ("PUT", "/api/runners", "GET"), ("GET", "/api/pipeline/create", "POST"), ("DELETE", "/api/pipeline/list", "GET"),
    ("GET", "/api/pipeline/launch", "POST"), ("POST", "/api/jobs/scheduled", "GET"),
])  # fmt: skip
async def test_a_method_that_there_is_not_is_405(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await refused(client.request(method, path), 405, "Method not allowed")
    assert response.headers["allow"] == allowed


# -- what breaks


@pytest.mark.parametrize(("broken", "status", "error"), [
    (errors.JournalUnavailable("x"), 503, "Service unavailable"),
    (errors.ActorUnreachable("gateway-0", "gone"), 503, "Service unavailable"),
    (ZeroDivisionError("secret"), 500, "Internal server error"),
])  # fmt: skip
async def test_an_outage_is_told_without_its_reason(
    client: httpx.AsyncClient, pipelines: FakePipelines, broken: Exception, status: int, error: str
) -> None:
    pipelines.broken = broken
    response = await refused(client.get("/api/pipeline/list"), status, error)
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)
    assert (await client.get("/api/health")).text == "OK"


async def test_a_command_goes_on_when_its_caller_hangs_up(
    client: httpx.AsyncClient, pipelines: FakePipelines, pipeline_id: str
) -> None:
    pipelines.gate = asyncio.Event()
    before = pipelines.mutations
    asking = asyncio.create_task(client.post("/api/pipeline/launch", json={"pipeline_id": pipeline_id}))
    for _ in range(20):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    pipelines.gate.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert pipelines.mutations == before + 1
    assert len(await ok(client.get("/api/jobs"))) == 1


# -- OpenAPI


async def test_the_description_has_every_endpoint_with_examples(connect: Connect) -> None:
    document = (await connect(None).get("/openapi.json")).json()
    for method, path, status, _, name in ENDPOINTS:
        operation = document["paths"][path.replace(":path", "")][method.lower()]
        assert operation["operationId"] == f"pipelines_{name}"
        assert {str(status), "401", "403", "500", "503"} <= set(operation["responses"])
        if "requestBody" in operation:
            assert operation["requestBody"]["content"]["application/json"]["examples"]
            assert "413" in operation["responses"]
    assert document["paths"]["/api/health"]["get"]["responses"]["200"]["content"]["text/plain"]["example"] == "OK"


@pytest.mark.parametrize("model", m.ANSWERS)
def test_examples_are_what_they_describe(model: Any) -> None:
    assert set(m.ANSWERS[model]) == set(model.model_fields)
    model.model_validate(m.ANSWERS[model])
