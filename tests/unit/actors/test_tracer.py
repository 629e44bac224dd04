"""From a request over a run, its tasks and attempts to spans at an exporter: one trace."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from actors.settings import Settings
from actors.span_export import SdkExporter, installed, open_exporter
from actors.tracer import KEY, KIND, Tracer
from orchestrator import events as e
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import JournalUnavailable
from orchestrator.starts import Trigger
from orchestrator.traces import Span, span_of_attempt, trace_of
from serve_app.app import build_app
from serve_app.auth import Tokens, grant
from serve_app.options import ServerOptions
from serve_app.surfaces.dags.routes import BASE
from tests.invariants import check_versions
from tests.world import World
from tests.world_clients import TENANT

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TASKS = tuple(
    TaskSpec(name, "core.sleep", needs, retries=9, retry_delay_s=0.1)
    for name, needs in (("a", ()), ("b", ("a",)), ("c", ("b",)))
)


class Kept:
    """An exporter that keeps our spans; it refuses the first `refusals` times."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.spans: list[Span] = []

    def export(self, spans: Sequence[Span]) -> bool:
        if self.refusals:
            self.refusals -= 1
            return False
        self.spans += spans
        return True


class Server:
    """A replica over the world's first gateway."""

    def __init__(self, world: World, exporter: SdkExporter) -> None:
        options = ServerOptions(home=str(world.folder))
        self._app = build_app(
            world.clients.gateways[0],
            Tokens([grant("secret", "admin", tenant=TENANT)]),
            options,
            world.clock,
            exporter=exporter,
        )
        transport = httpx.ASGITransport(app=self._app)
        self.client = httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers={"Authorization": "Bearer secret"}
        )

    async def ends(self) -> None:
        """What it noted goes out."""
        messages = iter(("lifespan.startup", "lifespan.shutdown"))

        async def receive() -> dict[str, str]:
            return {"type": next(messages)}

        async def send(_: Any) -> None:
            return

        await self._app({"type": "lifespan", "app": self._app, "state": {}}, receive, send)


async def until(world: World, run_id: str, kind: type[e.Event]) -> None:
    async with asyncio.timeout(60.0):
        while not any(isinstance(event, kind) for event in told(world, run_id)):  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.02)


def told(world: World, run_id: str) -> list[e.Event]:
    return check_versions(world.journal.runs[run_id].events)


async def with_a_retry(world: World, traceparent: str = "") -> str:
    """A run of three tasks whose first attempt failed; it is over."""
    await world.clients.define(Definition(dag_id="d", owner="team", tasks=TASKS))
    world.character.mischief.error = 1.0
    trigger = Trigger(dag_id="d", traceparent=traceparent)
    run_id = (await world.clients.gateways[0].trigger(TENANT, trigger, None)).run_id
    await _succeeds(world, run_id)
    return run_id


async def _succeeds(world: World, run_id: str) -> None:
    await until(world, run_id, e.TaskRetrying)
    world.character.mischief.error = 0.0
    await until(world, run_id, e.RunSucceeded)


def by_name(spans: Sequence[ReadableSpan]) -> dict[str, list[ReadableSpan]]:
    found: dict[str, list[ReadableSpan]] = {}
    for span in sorted(spans, key=lambda span: span.start_time or 0):
        found.setdefault(span.name, []).append(span)
    return found


def test_one_trace_leads_from_the_request_over_run_and_tasks_to_every_attempt() -> None:
    memory = InMemorySpanExporter()

    async def course(world: World) -> str:
        await world.clients.define(Definition(dag_id="d", owner="team", tasks=TASKS))
        server = Server(world, SdkExporter(memory))
        world.character.mischief.error = 1.0
        await server.client.get("/nobody/asked")
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        answer = await server.client.post(f"{BASE}/runs", json={"dag_id": "d"}, headers=headers)
        assert answer.status_code == 200, answer.text
        run_id: str = answer.json()["run_id"]
        await _succeeds(world, run_id)
        await server.ends()
        await Tracer(world.journal, SdkExporter(memory)).follow("0-0")
        return run_id

    world = World(0)
    run_id = world.play_with(course)
    spans = memory.get_finished_spans()
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}
    names = by_name(spans)
    assert {name: len(found) for name, found in names.items()} == {
        f"POST {BASE}/runs": 1,
        "run d": 1,
        **{f"task {name}": 1 for name in "abc"},
        "attempt a": 2,
        "attempt b": 1,
        "attempt c": 1,
    }
    [request], [run] = names[f"POST {BASE}/runs"], names["run d"]
    assert (f"{request.parent.span_id:016x}", request.kind) == (CALLER, SpanKind.SERVER)
    assert run.parent.span_id == request.context.span_id
    assert run.attributes["orchestrator.state"] == "succeeded"
    assert run.resource.attributes["service.name"] == "ray-orchestrator"
    for name in "abc":
        [task] = names[f"task {name}"]
        assert task.parent.span_id == run.context.span_id
        for number, attempt in enumerate(names[f"attempt {name}"], 1):
            assert attempt.parent.span_id == task.context.span_id
            assert f"{attempt.context.span_id:016x}" == span_of_attempt(run_id, name, number), "as its worker was told"
    failed, done = names["attempt a"]
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "Boom")
    assert done.status.status_code is names["task a"][0].status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("given", ["", f"00-{TRACE}-{CALLER}-01"])
def test_a_run_that_a_task_calls_is_in_its_callers_trace_below_the_attempt(given: str) -> None:
    async def course(world: World) -> None:
        kept, gateway = Kept(), world.clients.gateways[0]
        await world.clients.define(Definition("below", "team", tasks=(TaskSpec("step", "core.sleep"),)))
        await world.clients.define(Definition("between", "team", tasks=(_call("below"),)))
        await world.clients.define(Definition("d", "team", tasks=(_call("between"),)))
        run_id = (await gateway.trigger(TENANT, Trigger(dag_id="d", traceparent=given), None)).run_id
        await until(world, run_id, e.RunSucceeded)
        await Tracer(world.journal, kept).follow("0-0")
        assert {span.trace_id for span in kept.spans} == {trace_of(run_id, given).trace_id}
        below, between, top = (found for found in kept.spans if found.name.startswith("run "))
        assert (below.name, between.name, top.name) == ("run below", "run between", "run d")
        assert top.parent_id == (CALLER if given else "")
        assert between.parent_id == span_of_attempt(run_id, "call", 1)
        assert below.parent_id == span_of_attempt(str(between.attributes["orchestrator.run_id"]), "call", 1)
        assert {each.parent_id for each in (below, between)} <= {each.span_id for each in kept.spans}

    world = World(0)
    world.settings = Settings.from_dict(world.settings.to_dict() | {"otlp_endpoint": "http://127.0.0.1:1"})
    world.play_with(course)


def test_where_nothing_is_traced_a_called_run_gets_what_its_caller_was_given() -> None:
    async def course(world: World) -> None:
        gateway = world.clients.gateways[0]
        await world.clients.define(Definition("below", "team", tasks=(TaskSpec("step", "core.sleep"),)))
        await world.clients.define(Definition("d", "team", tasks=(_call("below"),)))
        for given in ("", f"00-{TRACE}-{CALLER}-01"):
            run_id = (await gateway.trigger(TENANT, Trigger(dag_id="d", traceparent=given), None)).run_id
            await until(world, run_id, e.RunSucceeded)
            child = (await gateway.run(TENANT, run_id)).children["call"].run_id
            created = told(world, child)[0]
            assert isinstance(created, e.RunCreated)
            assert created.traceparent == given

    World(0).play_with(course)


def _call(dag_id: str) -> TaskSpec:
    return TaskSpec("call", "core.dag", params={"dag_id": dag_id})


def test_a_tracer_that_died_goes_on_and_tells_the_same_spans() -> None:
    async def course(world: World) -> None:
        first, again, later = Kept(), Kept(), Kept()
        await with_a_retry(world)
        cursor = await Tracer(world.journal, first).follow("0-0")
        await Tracer(world.journal, again).follow("0-0")
        assert first.spans == again.spans != []
        assert len({span.span_id for span in first.spans}) == len(first.spans) == 8
        assert (await world.journal.record(KIND, KEY) or b"").decode() == f'"{cursor}"'
        tracer = Tracer(world.journal, later)
        tracer.start()
        run_id = (await world.clients.gateways[0].trigger(TENANT, Trigger(dag_id="d"), None)).run_id
        await until(world, run_id, e.RunSucceeded)
        await asyncio.sleep(5.0)
        assert {span.attributes["orchestrator.run_id"] for span in later.spans} == {run_id}

    World(0).play_with(course)


def test_what_follows_the_end_of_a_run_does_not_tell_it_again() -> None:
    async def course(world: World) -> None:
        gateway = world.clients.gateways[0]
        await world.clients.define(Definition(dag_id="d", owner="team", tasks=(TaskSpec("a"), TaskSpec("c"))))
        world.character.mischief.error = 1.0
        run_id = (await gateway.trigger(TENANT, Trigger(dag_id="d"), None)).run_id
        await until(world, run_id, e.RunFailed)
        world.character.mischief.error = 0.0
        kept = Kept()
        cursor = await Tracer(world.journal, kept).follow("0-0")
        before = len(kept.spans)
        await gateway.retry_task(TENANT, run_id, "c", None)
        await until(world, run_id, e.TaskSucceeded)
        await asyncio.sleep(1.0)
        await gateway.retry_task(TENANT, run_id, "a", None)
        await until(world, run_id, e.RunSucceeded)
        await Tracer(world.journal, kept).follow(cursor)
        more = kept.spans[before:]
        lives = [["attempt c", "task c", "run d"], ["attempt a", "task a", "run d"]]
        assert [span.name for span in more] == [*lives[0], *lives[1]]
        assert not {span.span_id for span in more} & {span.span_id for span in kept.spans[:before]}
        assert {span.trace_id for span in kept.spans} == {kept.spans[0].trace_id}

    World(0).play_with(course)


def test_a_trace_that_its_caller_does_not_keep_is_not_exported() -> None:
    async def course(world: World) -> None:
        kept = Kept()
        await with_a_retry(world, f"00-{TRACE}-{CALLER}-00")
        await Tracer(world.journal, kept).follow("0-0")
        assert kept.spans == []

    World(0).play_with(course)


def test_spans_wait_for_a_collector_that_is_away_and_for_a_journal_that_is_down() -> None:
    async def course(world: World) -> None:
        kept = Kept(refusals=3)
        tracer = Tracer(world.journal, kept)
        tracer.start()
        await asyncio.sleep(0.5)
        await with_a_retry(world)
        await asyncio.sleep(60.0)
        assert len(kept.spans) == 8

    World(0).play_with(course)


async def test_the_journals_silence_is_told_to_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.tracer.BLOCK_MS", 10)
    world = World(0)
    world.journal.failing = [False]
    with pytest.raises(JournalUnavailable):
        await Tracer(world.journal, Kept()).follow("0-0")
    world.loop.close()


def test_a_collector_gets_what_opentelemetry_can_read() -> None:
    if not installed():
        pytest.skip("the exporter of the extra `otel` is not installed")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    bodies: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.handle_request, daemon=True).start()
    kept = Kept()

    async def course(world: World) -> None:
        await with_a_retry(world)
        await Tracer(world.journal, kept).follow("0-0")

    World(0).play_with(course)
    assert open_exporter(f"http://127.0.0.1:{server.server_port}/").export(kept.spans)
    server.server_close()
    [(path, body)] = bodies
    read = ExportTraceServiceRequest.FromString(body)
    found = [span for scope in read.resource_spans[0].scope_spans for span in scope.spans]
    assert path == "/v1/traces"
    assert {span.span_id.hex() for span in found} == {span.span_id for span in kept.spans}
