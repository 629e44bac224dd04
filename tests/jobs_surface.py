"""What tests of the jobs surface over jobs in memory share: how callers say who they are, and how refusals look."""

from __future__ import annotations

from typing import Any

import httpx

from tests.unit.serve_app.conftest import TOKENS

CLIENT = {"X-Client-Token": TOKENS["client"]}
WORKER = {"X-Worker-Token": TOKENS["worker"]}
CREATE = "/api/v1/jobs/simple_flow"
#: an id that no job has
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def is_error(response: httpx.Response, status: int, text: str) -> None:
    """The response is that error, in the contract's form, and says nothing else."""
    assert (response.status_code, response.json()) == (status, {"error": text})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.headers["x-request-id"]


async def create(client: httpx.AsyncClient, body: Any = None, **given: Any) -> str:
    """Id of a new job."""
    response = await client.post(CREATE, json={} if body is None else body, **given)
    assert response.status_code == 202, response.text
    answer = response.json()
    assert answer == {"status": "accepted", "job_id": answer["job_id"]}
    job_id: str = answer["job_id"]
    return job_id
