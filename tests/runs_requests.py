"""Requests to the runs surface that many tests make."""

from __future__ import annotations

from typing import Any

import httpx

from orchestrator.definition import Definition, TaskSpec
from serve_app.auth import Grant, grant
from serve_app.surfaces.runs import published
from tests.fakes_gateway import FakeGateway
from tests.fakes_live_runs import FakeLiveRuns
from tests.runs_schemas import Schemas
from tests.unit.serve_app.conftest import GRANTS

KEY = "k3y-for-tests-0001"
KEYED: tuple[Grant, ...] = (*GRANTS, grant(KEY, "client", name="ORCHESTRATOR_API_KEY"))
UNKNOWN = "Run999999999"

SCHEMAS = Schemas(published.documents())


async def create(client: httpx.AsyncClient, body: Any = None, **given: Any) -> str:
    response = await client.post("/runs", json={} if body is None else body, **given)
    assert response.status_code == 201, response.text
    run_id: str = response.json()["runId"]
    return run_id


async def shown(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """The run, which keeps to the published schema."""
    body = (await client.get(f"/runs/{run_id}")).json()
    assert set(body) == {"run"}
    run: dict[str, Any] = SCHEMAS.check("run", body["run"])
    return run


async def listed(client: httpx.AsyncClient, run_id: str, query: str = "") -> list[dict[str, Any]]:
    """Its checkpoints, each of which keeps to the published schema."""
    body = (await client.get(f"/runs/{run_id}/checkpoints{query}")).json()
    assert (set(body), body["runId"]) == ({"runId", "checkpoints"}, run_id)
    return [SCHEMAS.check("checkpoint", each) for each in body["checkpoints"]]


def is_error(response: httpx.Response, status: int, error: str, **more: Any) -> None:
    """The response is that error, in the contract's form, and says nothing else."""
    assert (response.status_code, response.json()) == (status, {"error": error, **more})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.headers["x-request-id"]


def is_invalid(response: httpx.Response, *details: str) -> None:
    is_error(response, 400, "validation failed", details=list(details))


# -- runs of a DAG


async def define(gateway: FakeGateway, live_runs: FakeLiveRuns, *tasks: TaskSpec, tenant: str = "default") -> None:
    definition = Definition("sales", "me", tasks=tasks)
    await gateway.define_dag(tenant, definition, keep_tasks=False, expect=None, idem=None)
    live_runs.dags.add((tenant, "sales"))


# -- checkpoints (examples 6, 7)


async def post(client: httpx.AsyncClient, run_id: str, body: Any) -> httpx.Response:
    return await client.post(f"/runs/{run_id}/checkpoints", json=body)
