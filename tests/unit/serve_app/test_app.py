"""What belongs to no surface: health, metrics, descriptions, CORS, unknown paths, and the layers around."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from starlette.types import Message

from actors.settings import read_settings
from orchestrator import errors
from serve_app.deployer import READY_S
from serve_app.edge import Edge, middlewares, serve_environment
from serve_app.observations import KEPT, Observations
from serve_app.options import ServerOptions
from serve_app.ports import Observation
from serve_app.surfaces.dags.routes import ENDPOINTS
from serve_app.surfaces.instances.models import COMPONENTS
from serve_app.surfaces.runs import routes as runs
from tests import ray_names
from tests.fakes_gateway import FakeGateway
from tests.unit.serve_app.conftest import BASE, Connect

SCHEMAS = [f"/schemas/{name}.schema.json" for name in ("run", "checkpoint", "event")]
OPEN = ["/docs", "/redoc", "/openapi.json", "/metrics", "/_public/metrics", *SCHEMAS]


# -- liveness and readiness


async def test_health_is_200_whatever_happens_behind_it(connect: Connect, gateway: FakeGateway) -> None:
    client = connect(None)
    healthy = (await client.get("/health")).json()
    assert healthy == {
        "ok": True,
        "service": "orchestrator",
        "status": "healthy",
        "version": "1.0.0",
        "timestamp": "2026-01-02T03:04:05.678000Z",
        "orchestrators_running": 0,
    }
    for down in ("journal", "ray"):
        gateway.down = down
        assert (await client.get("/health")).json()["status"] == "degraded"
    gateway.broken = errors.JournalUnavailable("x")
    response = await client.get("/health")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")


async def test_ready_tells_why_not(connect: Connect, gateway: FakeGateway) -> None:
    client = connect(None)
    assert (await client.get("/ready")).json() == {"ok": True}
    gateway.down = "journal"
    response = await client.get("/ready")
    assert (response.status_code, response.json()) == (503, {"ok": False, "reason": "journal"})
    assert response.headers["retry-after"] == "1"


async def test_shared_routes_are_never_rate_limited(connect: Connect) -> None:
    client = connect(None, rate_limit_rps=1, rate_limit_burst=1)
    assert {(await client.get("/health")).status_code for _ in range(5)} == {200}


# -- metrics


async def test_metrics_are_the_gateways_families_in_text_format(connect: Connect) -> None:
    response = await connect(None).get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'runs_total{dag="sales_gdp",state="succeeded"} 3.0' in response.text
    assert (await connect(None).get("/_public/metrics")).text == response.text


async def test_requests_are_counted_by_pattern_before_a_scrape(connect: Connect, gateway: FakeGateway) -> None:
    client = connect("client")
    await client.get(f"{BASE}/runs/run_1")
    await client.get(f"{BASE}/nope/run_1")
    await client.request("BREW", "/health")
    await client.get("/api/runners/eu%2F1")
    await client.get("/metrics")
    seen = [(each.method, each.route, each.status) for each in gateway.observed]
    assert seen == [
        ("GET", f"{BASE}/runs/{{run_id}}", 404),
        ("GET", "unmatched", 404),
        ("OTHER", "/health", 405),
        ("GET", "/api/runners/{runner_id}", 404),
    ]


async def test_observations_survive_a_journal_that_is_down_in_bounded_memory() -> None:
    gateway = FakeGateway(broken=errors.JournalUnavailable("x"))
    observations = Observations(gateway.count_http)
    for number in range(KEPT + 5):
        observations.add(Observation("GET", "/", 200, number))
    await observations.flush()
    observations.add(Observation("GET", "/", 200, -1))
    gateway.broken = None
    await observations.flush()
    assert [len(gateway.observed), gateway.observed[0].seconds, gateway.observed[-1].seconds] == [KEPT, 6, -1]
    await observations.flush()
    assert len(gateway.observed) == KEPT


async def test_metrics_say_when_the_journal_is_down(connect: Connect, gateway: FakeGateway) -> None:
    gateway.broken = errors.JournalUnavailable("x")
    response = await connect(None).get("/metrics")
    assert (response.status_code, response.json()) == (503, {"ok": False, "reason": "journal"})


# -- descriptions


@pytest.mark.parametrize("path", OPEN)
async def test_descriptions_are_open_unless_told_otherwise(connect: Connect, path: str) -> None:
    assert (await connect(None).get(path)).status_code == 200


@pytest.mark.parametrize("path", OPEN)
async def test_private_descriptions_want_any_token(connect: Connect, path: str) -> None:
    response = await connect(None, private_docs=True).get(path)
    assert (response.status_code, response.json()) == (401, {"detail": "Not authenticated"})
    assert response.headers["www-authenticate"] == "Bearer"
    assert (await connect("worker").get(path)).status_code == 200
    assert (await connect(None).get("/health")).status_code == 200


async def test_openapi_describes_every_endpoint_with_prefixed_components(connect: Connect) -> None:
    document = (await connect(None).get("/openapi.json")).json()
    assert (document["info"]["title"], document["info"]["version"]) == ("Orchestrator API", "1.0.0")
    assert document["openapi"].startswith("3.")
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described >= {(method, BASE + path.replace(":path", "")) for method, path, _, _ in ENDPOINTS}
    schemas = document["components"]["schemas"]
    assert described >= {(method, runs.BASE + path) for method, path, _, _ in runs.ENDPOINTS}
    assert {"DagsRun", "DagsDag", "DagsError", "RunsRun", "RunsCheckpoint", "RunsEvent", "RunsError"} <= set(schemas)
    of_instances = {each.__name__ for each in COMPONENTS} | {"HealthResponse"}
    assert all(name.startswith(("Dags", "Runs", "Jobs", "Pipelines")) for name in set(schemas) - of_instances)
    text = str(document)
    referred = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert {"DagsRun", "DagsError", "RunsRun", "RunsCheckpoint", "RunsError"} <= referred <= set(schemas)


async def test_every_operation_has_examples_and_every_error(connect: Connect) -> None:
    document = (await connect(None).get("/openapi.json")).json()
    for method, path, _, name in ENDPOINTS:
        operation = document["paths"][BASE + path.replace(":path", "")][method.lower()]
        assert operation["operationId"] == f"dags_{name}"
        assert {"200", "401", "403", "429", "500", "503"} <= set(operation["responses"])
        if "requestBody" in operation and name != "put_bundle":  # that one takes bytes
            assert operation["requestBody"]["content"]["application/json"]["examples"], name
    for method, path, status, name in runs.ENDPOINTS:
        operation = document["paths"][runs.BASE + path][method.lower()]
        assert operation["operationId"] == f"runs_{name}"
        assert {str(status), "401", "403", "429", "500", "503"} <= set(operation["responses"])
        if "requestBody" in operation:
            assert operation["requestBody"]["content"]["application/json"]["examples"], name


# -- what does not exist, and what broke


async def test_a_path_under_no_surface_is_404_in_the_form_of_two(connect: Connect) -> None:
    for path in ("/nope", "/", "/apix", "/_publicx", "/health/"):
        response = await connect(None).get(path)
        assert (response.status_code, response.json()) == (404, {"error": "not found", "detail": "Not Found"})


async def test_a_wrong_method_on_a_shared_route_is_405(connect: Connect) -> None:
    response = await connect(None).post("/health")
    assert (response.status_code, response.headers["allow"]) == (405, "GET")


async def test_an_unforeseen_error_is_told_without_its_text(connect: Connect, gateway: FakeGateway) -> None:
    gateway.broken = ZeroDivisionError("secret")
    response = await connect(None).get("/ready")
    assert (response.status_code, response.json()) == (
        500,
        {"error": "internal error", "detail": "Internal Server Error"},
    )
    assert response.headers["x-request-id"]


async def test_every_answer_has_an_id(connect: Connect) -> None:
    for path in ("/health", "/nope", "/docs", "/metrics"):
        response = await connect(None).get(path, headers={"X-Request-Id": "r-7"})
        assert response.headers.get_list("x-request-id") == ["r-7"]


# -- CORS


@pytest.mark.parametrize(("origins", "origin", "allowed"), [
    ((), "http://localhost:5173", True), ((), "https://127.0.0.1", True), ((), "http://[::1]:80", True),
    ((), "https://evil.example", False), ((), "http://localhost.evil.example", False),
    (("https://app.example",), "https://app.example", True), (("https://app.example",), "http://localhost", False),
    (("*",), "https://evil.example", True),
])  # fmt: skip
async def test_origins_are_loopback_unless_named(
    connect: Connect, origins: tuple[str, ...], origin: str, allowed: bool
) -> None:
    client = connect(None, cors_origins=origins)
    response = await client.get("/health", headers={"Origin": origin})
    assert ("access-control-allow-origin" in response.headers) is allowed
    preflight = await client.options(
        f"{BASE}/runs",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    assert (preflight.status_code == 200) is allowed
    assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize(("origins", "origin", "cookies"), [
    ((), "http://localhost:5173", False), ((), "https://evil.example", False),
    (("https://app.example",), "https://app.example", True), (("https://app.example",), "http://localhost", False),
    (("*",), "https://evil.example", False),
    (("*", "https://app.example"), "https://app.example", True),
    (("*", "https://app.example"), "https://b.example", False),
])  # fmt: skip
async def test_only_pages_of_origins_that_were_listed_may_send_cookies(
    connect: Connect, origins: tuple[str, ...], origin: str, cookies: bool
) -> None:
    client = connect(None, cors_origins=origins)
    plain = await client.get("/health", headers={"Origin": origin})
    preflight = await client.options("/runs", headers={"Origin": origin, "Access-Control-Request-Method": "DELETE"})
    for response in (plain, preflight):
        assert ("access-control-allow-credentials" in response.headers) is cookies


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_pages_may_use_every_method_and_header_that_some_surface_has(connect: Connect, method: str) -> None:
    sent = (
        "Content-Type, Accept, Origin, X-Requested-With, Authorization, x-api-key, x-actor-id, Idempotency-Key, "
        "Last-Event-ID, X-Request-Id, If-Match, X-Client-Token, X-Worker-Token, X-Runner-Token"
    )
    headers = {
        "Origin": "http://localhost",
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": sent,
    }
    preflight = await connect(None).options("/runs", headers=headers)
    assert preflight.status_code == 200
    assert method in preflight.headers["access-control-allow-methods"].split(", ")
    assert set(sent.split(", ")) <= set(preflight.headers["access-control-allow-headers"].split(", "))
    stranger = await connect(None).options("/runs", headers=headers | {"Access-Control-Request-Headers": "x-other"})
    assert stranger.status_code == 400


async def test_pages_may_read_our_own_headers(connect: Connect) -> None:
    response = await connect(None).get("/health", headers={"Origin": "http://localhost"})
    assert "X-Request-Id" in response.headers["access-control-expose-headers"].split(", ")


# -- the edge


async def through_edge(headers: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Request headers as the application gets them, and the ids on the response."""
    seen: dict[bytes, bytes] = {}
    sent: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope["headers"])
        ids = [(b"x-request-id", b"ours"), (b"X-Request-ID", b"serves")]
        await send({"type": "http.response.start", "status": 200, "headers": ids})

    async def send(message: Message) -> None:
        sent.append(message)

    await Edge(app)({"type": "http", "headers": headers}, None, send)  # type: ignore[arg-type]  # nothing is received
    return seen, [value for name, value in sent[0]["headers"] if name.lower() == b"x-request-id"]


async def test_the_edge_drops_control_headers_and_keeps_one_id() -> None:
    control = (
        b"x-request-timeout-seconds",
        b"X-Request-Disconnect-Disabled",
        b"serve_multiplexed_model_id",
        b"x-session-id",
    )
    seen, ids = await through_edge(
        [*((name, b"1") for name in control), (b"accept", b"*/*"), (b"x-request-id", b"r-1")]
    )
    assert seen == {b"accept": b"*/*", b"x-request-id": b"r-1"}
    assert ids == [b"ours"]


@pytest.mark.parametrize("given", [[], [(b"x-request-id", b"not valid")], [(b"x-orchestrator-fresh-id", b"1")]])
async def test_the_edge_marks_the_ids_it_made_up(given: list[tuple[bytes, bytes]]) -> None:
    seen, _ = await through_edge(given)
    assert seen[b"x-orchestrator-fresh-id"] == b"1"
    assert len(seen[b"x-request-id"]) >= 32


async def test_nobody_else_can_set_the_mark() -> None:
    seen, _ = await through_edge([(b"x-request-id", b"r-1"), (b"x-orchestrator-fresh-id", b"1")])
    assert seen == {b"x-request-id": b"r-1"}


async def test_an_id_made_up_by_the_edge_is_no_key(connect: Connect) -> None:
    client = connect("admin")
    await client.post(f"{BASE}/dags", json={"dag_id": "d", "owner": "o"})
    headers = {"X-Request-Id": "r-1", "X-Orchestrator-Fresh-Id": "1"}
    ids = {(await client.post(f"{BASE}/runs", json={"dag_id": "d"}, headers=headers)).json()["run_id"] for _ in "ab"}
    assert len(ids) == 2


def test_a_proxy_has_as_long_to_start_as_a_slow_machine_needs() -> None:
    """Serve ends one that is not ready by then, and `up` with it: it waits for the one that it saw first."""
    name = "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"
    assert ray_names.unread([name]) == []
    assert READY_S / 2 <= float(serve_environment()[name]) < READY_S


def test_serve_finds_the_edge_by_its_import_path() -> None:
    module, _, name = serve_environment()["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].partition(":")
    assert getattr(sys.modules[module], name) is middlewares
    assert [each.cls for each in middlewares()] == [Edge]


# -- options and imports


def test_options_are_the_http_part_of_the_settings() -> None:
    environ = {
        "ORCHESTRATOR_HOME": "/data",
        "DAGS_RATE_LIMIT_RPS": "5",
        "DAGS_RATE_LIMIT_BURST": "7",
        "CORS_ORIGINS": "https://a.example,https://b.example",
        "ORCHESTRATOR_PRIVATE_DOCS": "1",
        "ORCHESTRATOR_MAX_BODY_BYTES": "1000",
        "ORCHESTRATOR_ENTRYPOINT_ALLOW": "team.",
        "ORCHESTRATOR_RUNS_DEFAULT_MODE": "plan",
        "ORCHESTRATOR_K8S_IMAGE": "task:1",
        "ORCHESTRATOR_ACCESS_LOG": "0",
        "RATE_LIMIT_MAX": "9",
        "RATE_LIMIT_WINDOW_MS": "1500",
    }
    options = ServerOptions.from_environ(environ)
    assert options == ServerOptions.from_settings(read_settings(environ))
    assert (options.home, options.rate_limit_rps, options.rate_limit_burst, options.max_body_bytes) == (
        "/data",
        5,
        7,
        1000,
    )
    assert options.cors_origins == ("https://a.example", "https://b.example")
    assert (options.private_docs, options.entrypoint_allow) == (True, ("team.",))
    assert (options.runs_default_mode, options.kubernetes_image, options.access_log) == ("plan", "task:1", False)
    assert (options.runs_rate_max, options.runs_rate_window_s) == (9, 1.5)
    assert ServerOptions.from_environ({}).access_log


def test_the_application_needs_no_ray() -> None:
    code = "import sys, serve_app.app; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
