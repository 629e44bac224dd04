"""The jobs surface for clients and for everybody, rule by rule, over jobs in memory (contracts/jobs.md, 1 to 3, 5).

Workers are in `test_jobs_workers.py`, their sockets in `test_jobs_sockets.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import httpx
import pytest

from orchestrator import errors
from orchestrator.job_views import HistoryEvent
from serve_app.auth import grant
from serve_app.clients import Agreement
from serve_app.surfaces.jobs.endpoints import CLIENT_ENDPOINTS, PUBLIC_ENDPOINTS, WORKER_ENDPOINTS
from serve_app.surfaces.jobs.words import STATUSES
from tests.fakes_gateway import EPOCH
from tests.fakes_jobs import FakeJobs
from tests.jobs_surface import CLIENT, CREATE, UNKNOWN, create, is_error
from tests.unit.serve_app.conftest import GRANTS, TOKENS, Connect

ACME = "token-of-acme-000000"
OF_CLIENTS = [
    *(
        (method, path.format(job_id=UNKNOWN, blueprint_name="x", webhook_id="msg_x"))
        for method, path, _, _ in CLIENT_ENDPOINTS
    ),
    ("POST", CREATE),
    ("POST", "/api/ingest/now"),
]
ELSEWHERE = [("GET", "/api/v1/nope"), ("POST", "/api/v1/jobs/nope"), ("POST", "/api/v2/x/y"), ("GET", "/api/v1/x/y")]


@pytest.fixture
def nobody(connect: Connect) -> httpx.AsyncClient:
    """Somebody on this machine without a token."""
    return connect(None)


@pytest.fixture
def client(nobody: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of the default tenant."""
    nobody.headers.update(CLIENT)
    return nobody


def acme(**agreed: Any) -> dict[str, Any]:
    """How to connect to a server that has a client `acme`."""
    agreement = Agreement(hashlib.sha256(ACME.encode()).hexdigest(), "acme", **agreed)
    return {"grants": (*GRANTS, grant(ACME, "client", tenant="t2")), "agreements": (agreement,)}


# -- who may ask


@pytest.mark.parametrize(("method", "path"), [*OF_CLIENTS, *ELSEWHERE])
async def test_clients_need_a_token_also_on_loopback(nobody: httpx.AsyncClient, method: str, path: str) -> None:
    missing = await nobody.request(method, path)
    is_error(missing, 401, "Missing X-Client-Token header")
    assert missing.headers["www-authenticate"] == "Bearer"
    for headers in ({"X-Client-Token": "zzz"}, {"Authorization": "Bearer zzz"}):
        is_error(await nobody.request(method, path, headers=headers), 401, "Unauthorized: Invalid token")
    wrong_first = {"X-Client-Token": "zzz", "Authorization": f"Bearer {TOKENS['client']}"}
    is_error(await nobody.request(method, path, headers=wrong_first), 401, "Unauthorized: Invalid token")


@pytest.mark.parametrize(("method", "path"), OF_CLIENTS)
async def test_clients_need_the_scope_and_have_two_ways_to_show_their_token(
    nobody: httpx.AsyncClient, method: str, path: str
) -> None:
    is_error(await nobody.request(method, path, headers={"X-Client-Token": TOKENS["worker"]}), 403, "Forbidden")
    for_admins = "/admin/" in path
    for headers in (CLIENT, {"Authorization": f"bearer {TOKENS['client']}"}):
        response = await nobody.request(method, path, headers=headers)
        assert (response.status_code == 403) is for_admins
    response = await nobody.request(method, path, headers={"X-Client-Token": TOKENS["admin"]})
    assert response.status_code not in (401, 403)


async def test_another_tenants_jobs_do_not_exist(client: httpx.AsyncClient) -> None:
    job_id = await create(client, headers={"X-Client-Token": TOKENS["other"]})
    for method, path in (("GET", ""), ("GET", "/history"), ("POST", "/cancel"), ("POST", "/release")):
        is_error(await client.request(method, f"/api/v1/jobs/{job_id}{path}"), 404, "Job not found")
    assert (await client.get("/api/v1/jobs")).json() == []
    assert (await client.get("/api/v1/dashboard")).json()["jobs"] == {"queued": 0}


# -- creating


@pytest.mark.parametrize(
    ("body", "initial_data", "webhook_url"),
    [
        (b"", {}, None),
        (b" \n", {}, None),
        (b"{}", {}, None),
        (b'{"clip": "a", "n": 1}', {"clip": "a", "n": 1}, None),
        (b'{"initial_data": {"clip": "a"}}', {"clip": "a"}, None),
        (b'{"initial_data": {"clip": "a"}, "more": 1}', {"clip": "a"}, None),
        (b'{"initial_data": null, "webhook_url": null}', {}, None),
        (b'{"webhook_url": "https://example.com/x?y=1"}', {}, "https://example.com/x?y=1"),
    ],
)
async def test_a_body_has_initial_data_or_is_it(
    client: httpx.AsyncClient, jobs: FakeJobs, body: bytes, initial_data: Any, webhook_url: str | None
) -> None:
    response = await client.post(CREATE, content=body)
    (view,) = jobs.created()
    assert (response.status_code, response.json()) == (202, {"status": "accepted", "job_id": view.id})
    assert (view.blueprint_name, view.initial_data, view.webhook_url) == ("simple_flow", initial_data, webhook_url)
    assert view.client_config == {"name": "default", "plan": None}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "Invalid JSON body"),
        (b"\xff", "Invalid JSON body"),
        (b'{"x": NaN}', "Invalid JSON body"),
        (b'{"x": ' + b"[" * 101 + b"]" * 101 + b"}", "Invalid JSON body"),
        (b"[]", "initial_data must be an object"),
        (b"null", "initial_data must be an object"),
        (b'{"initial_data": [1]}', "initial_data must be an object"),
        (b'{"initial_data": "x"}', "initial_data must be an object"),
        *(
            (json.dumps({"webhook_url": url}).encode(), "Invalid webhook_url")
            for url in (
                *("", "x", 5, "ftp://example.com", "http://", "http://u:p@example.com", "http://u@example.com/"),
                *("http://example.com/a b", "http://[::1", "http://example.com:99999", "//example.com", "http:\\\\x"),
                f"http://example.com/{'x' * 2000}",
            )
        ),
    ],
)
async def test_a_body_that_asks_for_no_job_is_refused(
    client: httpx.AsyncClient, jobs: FakeJobs, body: bytes, text: str
) -> None:
    is_error(await client.post(CREATE, content=body), 400, text)
    assert jobs.created() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "[::1]", "169.254.169.254", "x.localhost"])
async def test_off_loopback_a_webhook_goes_to_no_private_address(connect: Connect, host: str) -> None:
    asked: dict[str, Any] = {"json": {"webhook_url": f"http://{host}:9/x"}, "headers": CLIENT}
    is_error(await connect(None, host="0.0.0.0").post(CREATE, **asked), 400, "Invalid webhook_url")
    public = {"json": {"webhook_url": "http://8.8.8.8/x"}, "headers": CLIENT}
    assert (await connect(None).post(CREATE, **public)).status_code == 202


@pytest.mark.parametrize(
    "options", [{"host": "127.0.0.1"}, {"host": "0.0.0.0", "webhook_allow_private": True}], ids=str
)
async def test_a_webhook_may_go_to_a_private_address_where_that_is_allowed(
    connect: Connect, options: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"json": {"webhook_url": "http://127.0.0.1:9/x"}, "headers": CLIENT}
    assert (await connect(None, **options).post(CREATE, **asked)).status_code == 202


async def test_a_blueprint_is_mounted_where_it_says_and_nowhere_else(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    assert (await client.post("/api/ingest/now")).status_code == 202
    assert jobs.created()[0].blueprint_name == "ingest"
    for path in ("/api/v1/ingest/now", "/api/v1/inner", "/api/v1/jobs/inner", "/api/v1/jobs/simple_flow/", "/api/v2/x"):
        is_error(await client.post(path), 404, "Not found")
    is_error(await client.get("/api/ingest/now"), 405, "Method not allowed")


async def test_reserved_paths_are_not_taken_for_blueprints(client: httpx.AsyncClient) -> None:
    for path in ("jobs", "workers", "dashboard", "blueprints", f"jobs/{UNKNOWN}/history", "blueprints/x/graph"):
        response = await client.post(f"/api/v1/{path}")
        is_error(response, 405, "Method not allowed")
        assert response.headers["allow"] == "GET"
    is_error(await client.delete(f"/api/v1/jobs/{UNKNOWN}"), 405, "Method not allowed")


async def test_a_key_gives_the_first_answer_again_or_a_conflict(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = await client.post(CREATE, json={"a": 1, "b": 2}, headers=headers)
    again = await client.post(CREATE, json={"initial_data": {"b": 2, "a": 1}}, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    assert ("idempotent-replay" in first.headers, again.headers["idempotent-replay"]) == (False, "true")
    is_error(await client.post(CREATE, json={"a": 2}, headers=headers), 409, "Idempotency key reused")
    assert (await client.post("/api/ingest/now", json={"a": 2}, headers=headers)).status_code == 202
    other = {"Idempotency-Key": "k1", "X-Client-Token": TOKENS["other"]}
    assert (await client.post(CREATE, json={"a": 2}, headers=other)).json() != first.json()
    for blank in ("", "  "):
        await create(client, headers={"Idempotency-Key": blank})
    assert len(jobs.created()) == 4
    is_error(await client.post(CREATE, headers={"Idempotency-Key": "k" * 256}), 400, "Invalid Idempotency-Key")


async def test_a_quota_counts_jobs_and_comes_after_the_body(connect: Connect, jobs: FakeJobs) -> None:
    client = connect(None, **acme(plan="gold", monthly_attempts=1))
    client.headers["X-Client-Token"] = ACME
    is_error(await client.post(CREATE, content=b"["), 400, "Invalid JSON body")
    first = await client.post(CREATE, headers={"Idempotency-Key": "k"})
    assert first.status_code == 202
    assert jobs.created("t2")[0].client_config == {"name": "acme", "plan": "gold"}
    exhausted = await client.post(CREATE)
    is_error(exhausted, 429, "Quota exceeded or not configured")
    assert exhausted.headers["retry-after"] == "86400"
    assert (await client.post(CREATE, headers={"Idempotency-Key": "k"})).json() == first.json()
    is_error(await client.post(CREATE, content=b"["), 400, "Invalid JSON body")
    is_error(await client.post("/api/v1/jobs/nope"), 404, "Not found")
    is_error(await client.post(CREATE, headers={"X-Client-Token": "zzz"}), 401, "Unauthorized: Invalid token")
    assert (await client.get("/api/v1/jobs")).status_code == 200


async def test_without_a_number_there_is_no_quota(connect: Connect, jobs: FakeJobs) -> None:
    client = connect(None, **acme())
    for _ in range(5):
        await create(client, headers={"X-Client-Token": ACME})
    assert len(jobs.created("t2")) == 5


async def test_a_body_beyond_the_limit_is_refused(connect: Connect) -> None:
    client = connect(None, max_body_bytes=10)
    is_error(await client.post(CREATE, json={"a": "0123456789"}, headers=CLIENT), 413, "Payload too large")


async def test_a_creation_goes_on_when_the_client_hangs_up(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.gate = asyncio.Event()
    asking = asyncio.create_task(create(client))
    await asyncio.sleep(0.01)
    asking.cancel()
    jobs.gate.set()
    await asyncio.sleep(0.01)
    assert len(jobs.created()) == 1


# -- looking


async def test_a_job_has_every_key_of_the_contract(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    job_id = await create(client, {"clip": "a"})
    jobs.settle(job_id, "waiting_for_worker", task_dispatched_at=EPOCH, progress=0.5, data_metadata={"x": 1})
    job = (await client.get(f"/api/v1/jobs/{job_id}")).json()
    assert job == {
        "id": job_id,
        "blueprint_name": "simple_flow",
        "current_state": "start",
        "status": "waiting_for_worker",
        "initial_data": {"clip": "a"},
        "state_history": {},
        "webhook_url": None,
        "error_message": None,
        "parent_job_id": None,
        "child_job_id": None,
        "current_task_id": None,
        "task_worker_id": None,
        "retry_count": 0,
        "progress": 0.5,
        "progress_message": "",
        "current_task_info": None,
        "current_task_transitions": {"success": "finished", "needs_review": "review"},
        "aggregation_target": None,
        "active_branches": [],
        "aggregation_results": {},
        "data_metadata": {"x": 1},
        "tracing_context": {},
        "client_config": {"name": "default", "plan": None},
        "task_dispatched_at": 1767323045.678,
        "cancel_requested": False,
        "created_at": "2026-01-02T03:04:05.678000+00:00",
        "updated_at": "2026-01-02T03:04:05.678000+00:00",
        "finished_at": None,
        "waiting_reason": None,
    }
    jobs.settle(job_id, "waiting_for_worker", waiting_reason="no live worker offers 'video_processing'")
    waiting = (await client.get(f"/api/v1/jobs/{job_id}")).json()
    assert waiting["waiting_reason"] == "no live worker offers 'video_processing'"
    jobs.settle(job_id, "finished", finished_at=EPOCH)
    ended = (await client.get(f"/api/v1/jobs/{job_id}")).json()
    assert (ended["status"], ended["current_state"]) == ("finished", "finished")
    assert ended["finished_at"] == "2026-01-02T03:04:05.678000+00:00"


@pytest.mark.parametrize("job_id", [UNKNOWN, "nope", UNKNOWN.replace("-", ""), "%00", "x" * 5000, UNKNOWN + "x"])
async def test_an_unknown_job_is_not_found_whatever_its_form(client: httpx.AsyncClient, job_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/history"), ("POST", "/cancel"), ("POST", "/release")):
        is_error(await client.request(method, f"/api/v1/jobs/{job_id}{path}"), 404, "Job not found")


async def test_jobs_are_listed_newest_first_in_pages(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    made = [await create(client) for _ in range(5)]
    jobs.settle(made[1], "quarantined")

    async def listed(query: str) -> list[str]:
        return [each["id"] for each in (await client.get(f"/api/v1/jobs{query}")).json()]

    assert await listed("") == made[::-1]
    assert await listed("?limit=2&offset=1") == [made[3], made[2]]
    assert await listed("?status=quarantined") == [made[1]]
    assert await listed("?status=error") == []
    for status in STATUSES:
        assert (await client.get(f"/api/v1/jobs?status={status}")).status_code == 200
    is_error(await client.get("/api/v1/jobs?status=done"), 400, "Invalid status")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=", "offset=-1", "offset=1.5", "offset=9e9"]
)
async def test_a_page_that_cannot_be_is_refused(client: httpx.AsyncClient, query: str) -> None:
    is_error(await client.get(f"/api/v1/jobs?{query}"), 400, "Invalid limit or offset")


async def test_history_has_every_key_and_none_when_it_is_off(connect: Connect, jobs: FakeJobs) -> None:
    client = connect(None, job_history=True)
    client.headers.update(CLIENT)
    job_id = await create(client)
    assert (await client.get(f"/api/v1/jobs/{job_id}/history")).json() == []
    jobs.tell(HistoryEvent(event_id="e1", job_id=job_id, timestamp=EPOCH, event_type="job_created", state="start"))
    assert (await client.get(f"/api/v1/jobs/{job_id}/history")).json() == [
        {
            "event_id": "e1",
            "job_id": job_id,
            "timestamp": "2026-01-02T03:04:05.678000+00:00",
            "state": "start",
            "event_type": "job_created",
            "duration_ms": None,
            "previous_state": None,
            "next_state": None,
            "worker_id": None,
            "attempt_number": None,
            "context_snapshot": {},
        }
    ]


async def test_a_history_that_is_off_is_empty_but_only_of_jobs_that_there_are(connect: Connect, jobs: FakeJobs) -> None:
    client = connect(None, job_history=False)
    client.headers.update(CLIENT)
    job_id = await create(client)
    jobs.tell(HistoryEvent(event_id="e1", job_id=job_id, timestamp=EPOCH, event_type="job_created"))
    assert (await client.get(f"/api/v1/jobs/{job_id}/history")).json() == []
    is_error(await client.get(f"/api/v1/jobs/{UNKNOWN}/history"), 404, "Job not found")


async def test_blueprints_are_listed_and_drawn(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/api/v1/blueprints")).json()
    assert listed[2] == {"name": "simple_flow", "api_version": "v1", "api_endpoint": "/jobs/simple_flow", "version": 2}
    assert listed[1] == {"name": "inner", "api_version": None, "api_endpoint": None, "version": 1}
    graph = await client.get("/api/v1/blueprints/simple_flow/graph")
    assert (graph.status_code, graph.headers["content-type"]) == (200, "text/vnd.graphviz; charset=utf-8")
    assert "digraph" in graph.text
    assert "start -> review" in graph.text
    is_error(await client.get("/api/v1/blueprints/nope/graph"), 404, "Blueprint not found")


async def test_workers_and_the_dashboard_are_counted(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    assert (await client.get("/api/v1/dashboard")).json() == {"workers": {"total": 0}, "jobs": {"queued": 0}}
    jobs.live = [{"worker_id": "w1", "reputation": 1.0}, {"worker_id": "worker-0", "worker_type": "ray"}]
    for status in ("pending", "waiting_for_worker", "running", "finished", "finished"):
        jobs.settle(await create(client), status)
    assert (await client.get("/api/v1/workers")).json() == jobs.live
    counts = {"queued": 2, "running": 1, "finished": 2}
    assert (await client.get("/api/v1/dashboard")).json() == {"workers": {"total": 2}, "jobs": counts}


# -- commands


async def test_a_job_is_cancelled_while_it_goes_on(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    job_id = await create(client)
    path = f"/api/v1/jobs/{job_id}/cancel"
    for sends, word in ((False, "accepted"), (True, "sent")):
        jobs.sends_cancel = sends
        response = await client.post(path)
        assert (response.status_code, response.json()) == (200, {"status": f"cancellation_request_{word}"})
    jobs.settle(job_id, "finished")
    is_error(await client.post(path), 409, "Job is not in a state that can be cancelled (status: finished).")


async def test_a_quarantined_job_is_released_once(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    job_id = await create(client)
    path = f"/api/v1/jobs/{job_id}/release"
    is_error(await client.post(path), 409, "Job is not quarantined (status: waiting_for_worker).")
    jobs.settle(job_id, "quarantined")
    response = await client.post(path)
    assert (response.status_code, response.json()) == (200, {"status": "released", "job_id": job_id})
    is_error(await client.post(path), 409, "Job is not quarantined (status: running).")
    is_error(await client.get(path), 405, "Method not allowed")


async def test_a_release_goes_on_when_the_client_hangs_up(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    job_id = await create(client)
    jobs.settle(job_id, "quarantined")
    jobs.gate = asyncio.Event()
    asking = asyncio.create_task(client.post(f"/api/v1/jobs/{job_id}/release"))
    await asyncio.sleep(0.01)
    asking.cancel()
    jobs.gate.set()
    await asyncio.sleep(0.01)
    assert jobs.created()[0].status == "running"


async def test_a_human_decides_once(nobody: httpx.AsyncClient, jobs: FakeJobs) -> None:
    job_id = await create(nobody, headers=CLIENT)
    path = f"/_public/webhooks/approval/{job_id}"
    is_error(await nobody.post(path, json={"decision": "approved"}), 409, "Job is not in a state that can be approved")
    jobs.settle(job_id, "waiting_for_human", current_task_transitions={"approved": "finished"})
    for body, text in (
        (b"", "Invalid JSON body"),
        (b"{", "Invalid JSON body"),
        (b"[]", "Invalid JSON body"),
        (b"{}", "decision is required in body"),
        (b'{"decision": ""}', "decision is required in body"),
        (b'{"decision": 5}', "decision is required in body"),
        (b'{"decision": "zzz"}', "Invalid decision 'zzz' for this job"),
    ):
        is_error(await nobody.post(path, content=body), 400, text)
    response = await nobody.post(path, json={"decision": "approved"})
    assert (response.status_code, response.json()) == (200, {"status": "approval_received", "job_id": job_id})
    is_error(await nobody.post(path, json={"decision": "approved"}), 409, "Job is not in a state that can be approved")
    for unknown in (UNKNOWN, "nope"):
        answer = await nobody.post(f"/_public/webhooks/approval/{unknown}", json={"decision": "approved"})
        is_error(answer, 404, "Job not found")


async def test_only_an_admin_has_the_workers_tokens_read_again(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    is_error(await client.post("/api/v1/admin/reload-workers"), 403, "Forbidden")
    response = await client.post("/api/v1/admin/reload-workers", headers={"X-Client-Token": TOKENS["admin"]})
    assert (response.status_code, response.json()) == (200, {"status": "worker_configs_reloaded"})
    assert jobs.reloads == 1


# -- for everybody


async def test_nobody_needs_a_token_to_see_that_the_server_runs(nobody: httpx.AsyncClient) -> None:
    response = await nobody.get("/_public/status")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_the_page_lists_endpoints_and_blueprints(nobody: httpx.AsyncClient) -> None:
    page = await nobody.get("/_public/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for _, path, *_ in (*PUBLIC_ENDPOINTS, *CLIENT_ENDPOINTS, *WORKER_ENDPOINTS):
        assert f"<code>{path}</code>" in page.text
    for text in ("/api/v1/jobs/simple_flow", "/api/ingest/now", "inner, version 1", "simple_flow, version 2"):
        assert text in page.text


async def test_a_private_page_needs_any_token(connect: Connect) -> None:
    is_error(await connect(None, private_docs=True).get("/_public/docs"), 401, "Unauthorized: Invalid token")
    assert (await connect("worker").get("/_public/docs")).status_code == 200


async def test_everything_is_erased_only_where_that_is_allowed(connect: Connect, jobs: FakeJobs) -> None:
    for method in ("POST", "GET"):
        is_error(await connect(None).request(method, "/_public/debug/flush_db"), 404, "Not found")
    assert jobs.flushed == 0


async def test_with_debug_set_anybody_erases_everything(
    connect: Connect, jobs: FakeJobs, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(None, debug=True)
    assert "ORCHESTRATOR_DEBUG is set" in caplog.text
    job_id = await create(client, headers=CLIENT)
    response = await client.post("/_public/debug/flush_db")
    assert (response.status_code, response.json(), jobs.flushed) == (200, {"status": "db_flushed"}, 1)
    is_error(await client.get(f"/api/v1/jobs/{job_id}", headers=CLIENT), 404, "Job not found")


async def test_ids_are_leaked_nowhere_below_public(nobody: httpx.AsyncClient) -> None:
    is_error(await nobody.get("/_public/jobs/quarantined"), 404, "Not found")
    is_error(await nobody.get("/_public/nope"), 404, "Not found")
    is_error(await nobody.post("/_public/metrics"), 405, "Method not allowed")


# -- when something else is wrong


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_down_is_told_and_when_to_try_again(
    client: httpx.AsyncClient, jobs: FakeJobs, method: str
) -> None:
    for error in (errors.JournalUnavailable("secret"), errors.ActorUnreachable("gateway-0", "secret")):
        jobs.broken = error
        response = await client.request(method, CREATE if method == "POST" else "/api/v1/dashboard")
        is_error(response, 503, "Service unavailable")
        assert response.headers["retry-after"] == "1"


async def test_a_bug_is_told_without_its_text(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.broken = ZeroDivisionError("secret")
    is_error(await client.get("/api/v1/jobs"), 500, "Internal server error")


async def test_other_surfaces_keep_their_paths_below_api(nobody: httpx.AsyncClient) -> None:
    assert (await nobody.get("/api/orchestrators")).status_code == 200
    assert (await nobody.get("/api/plans/nope/nope")).json() == {"detail": "Not Found"}
    dags = await nobody.get("/api/v1/runtime/orchestrator/nope")
    assert dags.json()["error"] == "unauthorized"


async def test_every_operation_is_described_with_examples_and_errors(nobody: httpx.AsyncClient) -> None:
    document = (await nobody.get("/openapi.json")).json()
    every = [*PUBLIC_ENDPOINTS, *CLIENT_ENDPOINTS, *WORKER_ENDPOINTS]
    every.append(("POST", "/api/{api_version}/{api_endpoint}", "create_job"))
    for method, path, name, *_ in every:
        operation = document["paths"][path][method.lower()]
        assert operation["operationId"] == f"jobs_{name}"
        needed = {"500", "503"} if path.startswith("/_public") else {"401", "403", "500", "503"}
        assert needed <= set(operation["responses"]), name
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                assert "example" in content, (name, status)
    assert CREATE not in document["paths"]
    assert "/_public/debug/flush_db" not in document["paths"]
