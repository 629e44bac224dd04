"""The runs surface: who may ask, how often, and what does not exist or breaks."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from orchestrator import errors
from serve_app.surfaces.runs.routes import ENDPOINTS
from tests.fakes_gateway import FakeClock
from tests.fakes_live_runs import FakeLiveRuns
from tests.runs_requests import KEY, KEYED, UNKNOWN, create, is_error
from tests.unit.serve_app.conftest import Connect


@pytest.fixture
def client(connect: Connect) -> httpx.AsyncClient:
    """Somebody on this machine without a token."""
    return connect(None)


EVERY_PATH = [(method, f"/runs{path.format(run_id=UNKNOWN)}") for method, path, _, _ in ENDPOINTS]


# -- who may ask


@pytest.mark.parametrize(("method", "path"), EVERY_PATH)
async def test_on_loopback_nobody_needs_a_token(client: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await client.request(method, path)).status_code not in (401, 403)


@pytest.mark.parametrize(("method", "path"), EVERY_PATH)
@pytest.mark.parametrize("options", [{"host": "10.0.0.1"}, {"allow_anonymous": False}, {"grants": KEYED}], ids=str)
async def test_elsewhere_and_where_the_operator_says_so_everybody_does(
    connect: Connect, method: str, path: str, options: dict[str, Any]
) -> None:
    nobody = await connect(None, **options).request(method, path)
    is_error(nobody, 401, "unauthorized")
    assert nobody.headers["www-authenticate"] == "Bearer"
    is_error(await connect("worker").request(method, path), 403, "forbidden")
    for who in ("client", "admin"):
        assert (await connect(who).request(method, path)).status_code not in (401, 403)


@pytest.mark.parametrize("header", [{"X-Forwarded-For": "1.2.3.4"}, {"Forwarded": "for=1.2.3.4"}, {"Host": "evil.com"}])
async def test_who_comes_through_something_in_between_needs_a_token(
    client: httpx.AsyncClient, header: dict[str, str]
) -> None:
    is_error(await client.post("/runs", headers=header), 401, "unauthorized")


@pytest.mark.parametrize(("headers", "status"), [
    ({"Authorization": f"Bearer {KEY}"}, 201), ({"Authorization": f"bearer {KEY}"}, 201), ({"x-api-key": KEY}, 201),
    ({"Authorization": f"Basic {KEY}"}, 401), ({"Authorization": KEY}, 401), ({"x-api-key": ""}, 401),
    ({"Authorization": "Bearer wrong", "x-api-key": KEY}, 401), ({"Authorization": "Basic x", "x-api-key": KEY}, 201),
    ({"Cookie": f"orchestrator_api_key={KEY}"}, 401),
])  # fmt: skip
async def test_the_first_header_with_a_token_decides(connect: Connect, headers: dict[str, str], status: int) -> None:
    response = await connect(None, grants=KEYED).post("/runs", headers=headers)
    assert response.status_code == status


async def test_a_key_in_the_query_opens_streams_only(connect: Connect) -> None:
    client = connect(None, grants=KEYED)
    for method, path in EVERY_PATH:
        response = await client.request(method, f"{path}?api_key={KEY}")
        assert (response.status_code == 401) is not path.endswith("/events")


async def test_with_a_key_set_probes_and_preflights_need_none(connect: Connect) -> None:
    client = connect(None, grants=KEYED)
    for path in ("/health", "/ready", "/metrics"):
        assert (await client.get(path)).status_code == 200
    preflight = {"Origin": "http://localhost", "Access-Control-Request-Method": "POST"}
    assert (await client.options("/runs", headers=preflight)).status_code == 200
    is_error(await client.options("/runs"), 405, "method not allowed")
    is_error(await client.get("/runs"), 401, "unauthorized")


async def test_where_nobody_needs_a_token_a_valid_one_still_counts_and_a_wrong_one_does_not(
    connect: Connect, live_runs: FakeLiveRuns
) -> None:
    run_id = await create(connect("other"))
    assert (live_runs.count("other"), live_runs.count("default")) == (1, 0)
    assert (await connect("other").get(f"/runs/{run_id}")).status_code == 200
    is_error(await connect("worker").get(f"/runs/{run_id}"), 403, "forbidden")
    wrong = await connect(None).post("/runs", headers={"x-api-key": "wrong"})
    assert (wrong.status_code, live_runs.count("default")) == (201, 1)


async def test_another_tenants_runs_do_not_exist(connect: Connect) -> None:
    run_id = await create(connect("other"))
    client = connect(None)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/checkpoints"), ("POST", "/checkpoints")):
        is_error(await client.request(method, f"/runs/{run_id}{path}"), 404, "run not found")
    assert (await client.get(f"/runs/{run_id}/events")).status_code == 404


# -- how often


async def test_the_fourth_request_within_the_window_is_too_many(connect: Connect, clock: FakeClock) -> None:
    client = connect(None, runs_rate_max=3, runs_rate_window_s=60.0)
    statuses = []
    for at_s in (0.0, 10.0, 20.0, 30.5, 60.0, 61.0):
        clock.seconds = at_s
        response = await client.get(f"/runs/{UNKNOWN}")
        statuses.append(response.status_code)
        if at_s == 30.5:
            is_error(response, 429, "rate_limited")
            assert response.headers["retry-after"] == "30"
    assert statuses == [404, 404, 404, 429, 404, 429]
    for path in ("/health", "/ready", "/metrics"):
        assert (await client.get(path)).status_code == 200
    assert (await client.options("/runs")).status_code == 405


async def test_requests_are_counted_by_token_else_by_address(connect: Connect) -> None:
    client = connect(None, runs_rate_max=1)
    callers = [{}, {"x-api-key": "a"}, {"x-api-key": "b"}, {"Authorization": "Bearer c"}]
    for headers in callers:
        assert (await client.post("/runs", headers=headers)).status_code == 201
    for headers in [*callers, {"Authorization": "Bearer c", "x-api-key": "d"}, {"Authorization": "Bearer a"}]:
        is_error(await client.post("/runs", headers=headers), 429, "rate_limited")
    assert (await client.post("/runs", headers={"x-api-key": "d"})).status_code == 201


async def test_a_request_is_checked_for_token_rate_scope_body_existence_in_this_order(connect: Connect) -> None:
    nobody = connect(None, grants=KEYED, runs_rate_max=2)
    for _ in range(3):
        is_error(await nobody.post("/runs", content=b"{"), 401, "unauthorized")
    worker = connect("worker")
    statuses = [(await worker.post("/runs", content=b"{")).status_code for _ in range(3)]
    assert statuses == [403, 403, 429]
    client = connect("client")
    is_error(await client.post("/runs", content=b"{"), 400, "invalid json")
    is_error(await client.post("/runs", json={"dag_id": "none"}), 404, "dag not found")


# -- what does not exist, and what breaks


async def test_there_is_no_list_of_runs(client: httpx.AsyncClient) -> None:
    is_error(await client.get("/runs"), 404, "not found")
    assert (await client.head("/runs")).status_code == 404


@pytest.mark.parametrize("path", ["/runs/", f"/runs/{UNKNOWN}/", f"/runs/{UNKNOWN}/x", "/runs/a/b/c", "/runs//events"])
async def test_an_unknown_path_is_404_in_our_form(client: httpx.AsyncClient, path: str) -> None:
    is_error(await client.get(path), 404, "not found")


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("PUT", "/runs", "POST"), ("DELETE", "/runs", "POST"), ("POST", f"/runs/{UNKNOWN}", "DELETE, GET"),
    ("HEAD", f"/runs/{UNKNOWN}", "DELETE, GET"), ("DELETE", f"/runs/{UNKNOWN}/checkpoints", "GET, POST"),
    ("POST", f"/runs/{UNKNOWN}/events", "GET"), ("OPTIONS", f"/runs/{UNKNOWN}/events", "GET"),
])  # fmt: skip
async def test_a_wrong_method_is_told_the_right_ones(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        is_error(response, 405, "method not allowed")


@pytest.mark.parametrize("run_id", ["nope", "a" * 33, "run_123456789", "Run%00000000", "R%C3%BCn123456789"])
async def test_an_id_that_no_run_can_have_is_404_without_asking(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, run_id: str
) -> None:
    live_runs.broken = errors.JournalUnavailable("not to be asked")
    is_error(await client.get(f"/runs/{run_id}"), 404, "run not found")
    is_error(await client.delete(f"/runs/{run_id}"), 404, "run not found")


@pytest.mark.parametrize(("error", "status", "text"), [
    (errors.JournalUnavailable("at /var/x"), 503, "dependency down"),
    (errors.ActorUnreachable("scheduler", "x"), 503, "dependency down"),
    (errors.Fenced("x", 1, 2), 503, "dependency down"),
    (errors.Broken("x"), 500, "internal error"), (ZeroDivisionError("x"), 500, "internal error"),
])  # fmt: skip
@pytest.mark.parametrize(("method", "path"), EVERY_PATH)
async def test_what_fails_behind_us_is_told_without_its_reasons(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, method: str, path: str, error: Exception, status: int, text: str
) -> None:
    live_runs.broken = error
    response = await client.request(method, path, json={"type": "x"})
    is_error(response, status, text)
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)


async def test_a_mutation_goes_on_when_the_caller_hangs_up(client: httpx.AsyncClient, live_runs: FakeLiveRuns) -> None:
    live_runs.gate = asyncio.Event()
    call = asyncio.create_task(client.post("/runs"))
    for _ in range(50):
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    live_runs.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert live_runs.count() == 1
