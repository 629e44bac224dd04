"""The whole application for clients' tests, without Ray: the real one over a gateway in memory, and beside it the
surfaces `runs` and `instances` as their contracts describe them, with what a client may rely on and no more.

    with serving() as stand_in:                     a real socket, in a thread
        stand_in.url, stand_in.description
        stand_in.cut()                              every stream and socket breaks off now; clients must resume

The same is there for a program: `POST /_test/cut`. A plan named `demo` has four tasks that take a moment each.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import typing
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pydantic
import uvicorn
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, Response, StreamingResponse

from orchestrator.client import shapes
from orchestrator.idempotency import Idempotency
from orchestrator.starts import Trigger, Triggered
from orchestrator.views import Frame
from serve_app.app import build_app, describe
from serve_app.auth import Tokens, grant
from serve_app.options import ServerOptions
from tests.fakes_gateway import FakeClock, FakeGateway
from tests.fakes_pipelines import FakePipelines
from tests.stand_in_state import START, Instance, Json, Live, Run, instant

TOKEN = "a-token-of-the-stand-in"
_ENDS = {"run.completed": "completed", "run.failed": "failed"}
_TERMINAL = {"completed", "failed", "canceled"}


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


class PromptGateway(FakeGateway):
    """A run has succeeded as soon as it was triggered."""

    async def trigger(self, tenant: str, trigger: Trigger, idem: Idempotency | None) -> Triggered:
        done = await super().trigger(tenant, trigger, idem)
        run = await self.run(tenant, done.run_id)
        if run.state == "queued":
            self.settle(tenant, done.run_id, state="succeeded", tasks=dict.fromkeys(run.tasks, "succeeded"))
            changes = [(None, "queued"), ("queued", "running"), ("running", "succeeded")]
            told = [Frame(seq, "run_state", {"seq": seq, "ts": START, "run_id": done.run_id, "from": old, "to": new})
                    for seq, (old, new) in enumerate(changes, 1)]  # fmt: skip
            end = Frame(None, "end", {"run_id": done.run_id, "state": "succeeded"})
            self.frames[tenant, done.run_id] = [*told, end]
        return done


class StandIn:
    """Everything that the two surfaces remember, and their routes."""

    def __init__(self) -> None:
        self.live = Live()
        self.runs: dict[str, Run] = {}
        self.instances: dict[str, Instance] = {}
        self.keys: dict[str, str] = {}
        self.app = FastAPI()
        self._work: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._add_runs()
        self._add_instances()
        self.app.add_exception_handler(Refused, _refuse)
        self.app.add_api_route("/_test/cut", self._cut, methods=["POST"], include_in_schema=False)
        own = self.app.openapi()
        whole = describe()
        #: of the application with what it may lack yet
        self.description: Json = {
            **whole,
            "paths": {**own["paths"], **whole["paths"]},
            "components": {
                **whole["components"],
                "schemas": {**own["components"]["schemas"], **whole["components"]["schemas"]},
            },
        }
        gateway, clock = PromptGateway(), FakeClock()
        options = ServerOptions(home="", rate_limit_rps=1e6, rate_limit_burst=10**6)
        self.gateway = gateway
        self.pipelines = FakePipelines()
        tokens = Tokens([grant(TOKEN, "admin")])
        self._rest = build_app(gateway, tokens, options, clock, pipelines=self.pipelines)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """By path: what is ours, and the real application for the rest."""
        self._loop = asyncio.get_running_loop()
        ours = scope.get("path", "").startswith(("/runs", "/api/orchestrators", "/api/plans", "/_test/"))
        await (self.app if ours else self._rest)(scope, receive, send)

    def cut(self) -> None:
        """Every stream and socket breaks off. From another thread."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(5)

    async def _cut(self) -> Json:
        self.live.cuts += 1
        await self.live.tell()
        return {}

    # -- runs

    def _add_runs(self) -> None:
        route = self.app.add_api_route
        run = _model("RunsRun", shapes.RunsRun)
        checkpoint = _model("RunsCheckpoint", shapes.RunsCheckpoint)
        one = pydantic.create_model("RunsRunAnswer", run=(run, ...))
        many = pydantic.create_model("RunsCheckpoints", runId=(str, ...), checkpoints=(list[checkpoint], ...))  # type: ignore[valid-type] # made above
        made = pydantic.create_model("RunsCreated", runId=(str, ...))
        noted = pydantic.create_model("RunsCheckpointCreated", checkpointId=(str, ...))
        canceled = pydantic.create_model("RunsCanceled", ok=(bool, ...), status=(str, ...))
        asked = pydantic.create_model("RunsCreateRequest", metadata=(Json | None, None), plan=(Json | None, None))
        posted = pydantic.create_model("RunsCheckpointRequest", type=(str, ...), data=(Any, None))
        route("/runs", self._create_run, methods=["POST"], status_code=201, operation_id="runs_create_run",
              responses={201: {"model": made}}, openapi_extra=_body(asked, required=False))  # fmt: skip
        route("/runs/{run_id}", self._get_run, methods=["GET"], operation_id="runs_get_run",
              responses={200: {"model": one}})  # fmt: skip
        route("/runs/{run_id}", self._cancel_run, methods=["DELETE"], operation_id="runs_cancel_run",
              responses={200: {"model": canceled}})  # fmt: skip
        route("/runs/{run_id}/checkpoints", self._list_checkpoints, methods=["GET"],
              operation_id="runs_list_checkpoints", responses={200: {"model": many}})  # fmt: skip
        route("/runs/{run_id}/checkpoints", self._post_checkpoint, methods=["POST"], status_code=201,
              operation_id="runs_post_checkpoint", responses={201: {"model": noted}},
              openapi_extra=_body(posted, required=True))  # fmt: skip
        route("/runs/{run_id}/events", self._run_events, methods=["GET"], operation_id="runs_run_events",
              response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})  # fmt: skip

    async def _create_run(self, request: Request, owner: str | None = None) -> Response:
        body = json.loads(await request.body() or b"{}")
        key = request.headers.get("idempotency-key", "")
        run_id = self.keys.get(key) or f"R{next(self._numbers):011}"
        if run_id not in self.runs:
            run = self.runs[run_id] = Run(run_id, self.live, owner, body.get("metadata"))
            await run.checkpoint("started")
        if key:
            self.keys[key] = run_id
        return JSONResponse({"runId": run_id}, 201)

    async def _get_run(self, run_id: str) -> Response:
        return JSONResponse({"run": self._run(run_id).view()})

    async def _cancel_run(self, run_id: str) -> Response:
        run = self._run(run_id)
        if run.status in _TERMINAL:
            raise Refused(409, {"error": "invalid status transition", "from": run.status, "to": "canceled"})
        await run.end("canceled")
        return JSONResponse({"ok": True, "status": "canceled"})

    async def _list_checkpoints(self, run_id: str, after: str = "") -> Response:
        found = [each for each in self._run(run_id).checkpoints if each["ts"] > after]
        return JSONResponse({"runId": run_id, "checkpoints": found})

    async def _post_checkpoint(self, run_id: str, request: Request) -> Response:
        run, body = self._run(run_id), await request.json()
        if not str(body.get("type") or "").strip():
            raise Refused(400, {"error": "invalid checkpoint type"})
        checkpoint_id = await run.checkpoint(body["type"].strip(), body.get("data"))
        if body["type"] in _ENDS and run.status == "running":
            await run.end(_ENDS[body["type"]])
        return JSONResponse({"checkpointId": checkpoint_id}, 201)

    async def _run_events(self, run_id: str, request: Request, replay: int = 10) -> Response:
        run = self._run(run_id)
        last = request.headers.get("last-event-id")
        return _stream(self._told_of_run(run, last, replay))

    async def _told_of_run(self, run: Run, last: str | None, replay: int) -> AsyncIterator[bytes]:
        cuts, place = self.live.cuts, len(run.told)
        yield _frame(None, "hello", {"runId": run.id})
        past = [data for _, kind, data in run.told[:place] if kind == "checkpoint"]
        for each in [one for one in past if one["ts"] > last] if last else past[-replay:]:
            yield _frame(each["ts"], "checkpoint", each)
        while await self.live.more(run.told, place, cuts):
            for id_, kind, data in run.told[place:]:
                yield _frame(id_, kind, data)
                place += 1

    def _run(self, run_id: str) -> Run:
        if run_id not in self.runs:
            raise Refused(404, {"error": "run not found"})
        return self.runs[run_id]

    # -- instances

    def _add_instances(self) -> None:
        route, base = self.app.add_api_route, "/api/orchestrators"
        info = _model("OrchestratorInfo", shapes.OrchestratorInfo)
        status = _model("StatusResponse", shapes.StatusResponse)
        command = _model("CommandResponse", shapes.CommandResponse)
        plan = _model("PlanInfo", shapes.PlanInfo)
        skip = pydantic.create_model("SkipTaskRequest", task_id=(str, ...), reason=(str | None, None))
        retry = pydantic.create_model("RetryTaskRequest", task_id=(str, ...))
        begin = pydantic.create_model("StartOrchestratorRequest", plan=(str, ...), executor=(str | None, None),
                                      batch_size=(int, 5), max_iterations=(int, 50), max_retries=(int, 2))  # fmt: skip
        route(base, self._list, methods=["GET"], name="list_orchestrators", response_model=list[info])  # type: ignore[valid-type] # made above
        route(base, self._start, methods=["POST"], name="start_orchestrator", status_code=201,
              responses={201: {"model": info}}, openapi_extra=_body(begin, required=True))  # fmt: skip
        route(base + "/{instance_id}", self._info, methods=["GET"], name="get_orchestrator", response_model=info)
        route(base + "/{instance_id}/status", self._status, methods=["GET"], name="get_orchestrator_status",
              response_model=status)  # fmt: skip
        for verb, handler in (("pause", self._pause), ("resume", self._resume), ("shutdown", self._shutdown)):
            route(f"{base}/{{instance_id}}/{verb}", handler, methods=["POST"], name=f"{verb}_orchestrator",
                  response_model=command)  # fmt: skip
        for verb, body in (("skip", skip), ("retry", retry)):
            route(f"{base}/{{instance_id}}/{verb}-task", self._skip, methods=["POST"], name=f"{verb}_task",
                  response_model=command, openapi_extra=_body(body, required=True))  # fmt: skip
        route("/api/plans", self._plans, methods=["GET"], name="list_plans", response_model=list[plan])  # type: ignore[valid-type] # made above
        route("/api/plans/{plan_name}/findings/{task_id}", self._finding, methods=["GET"], name="get_finding_content")
        route(base + "/{instance_id}/events-sse", self._events_sse, methods=["GET"], name="sse_events",
              response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})  # fmt: skip
        self.app.add_api_websocket_route(base + "/{instance_id}/events", self._events)
        self.app.add_api_websocket_route(base + "/{instance_id}/activity", self._activity)

    async def _list(self) -> list[Json]:
        return [each.info() for each in self.instances.values()]

    async def _start(self, request: Request) -> Response:
        body = await request.json()
        if body.get("plan") != "demo":
            raise Refused(404, {"detail": f"Plan '{body.get('plan')}' not found"})
        tasks = [{"id": id_, "description": f"task {id_}", "status": "pending", "phase": "Phase 1: Setup",
                  "retry_count": 0, "last_error": None, "started_at": None, "completed_at": None}
                 for id_ in ("1.1", "1.2", "1.3", "2.1")]  # fmt: skip
        instance = Instance(f"orch-{next(self._numbers)}", self.live, tasks=tasks)
        self.instances[instance.id] = instance
        task = asyncio.create_task(instance.work())
        self._work.add(task)
        return JSONResponse(instance.info(), 201)

    async def _info(self, instance_id: str) -> Json:
        return self._instance(instance_id).info()

    async def _status(self, instance_id: str) -> Json:
        return self._instance(instance_id).snapshot()

    async def _pause(self, instance_id: str) -> Json:
        return await self._command(instance_id, "pause", "paused")

    async def _resume(self, instance_id: str) -> Json:
        return await self._command(instance_id, "resume", "running")

    async def _shutdown(self, instance_id: str, force: bool = False) -> Json:
        return await self._command(instance_id, "shutdown", "stopping")

    async def _command(self, instance_id: str, verb: str, status: str) -> Json:
        instance = self._instance(instance_id)
        if instance.status == "stopped":
            raise Refused(503, {"detail": f"Orchestrator '{instance_id}' is not running (process dead)"})
        await instance.change(status)
        return {"success": True, "message": f"Orchestrator '{instance_id}' {verb} requested", "error": None}

    async def _skip(self, instance_id: str, request: Request) -> Json:
        task_id = (await request.json())["task_id"]
        for task in self._instance(instance_id).tasks:
            if task["id"] == task_id:
                task["status"] = "skipped"
                return {"success": True, "message": f"Task '{task_id}' skipped", "error": None}
        return {"success": False, "message": "Skip failed", "error": f"Failed to mark task {task_id} as skipped."}

    async def _plans(self) -> list[Json]:
        return [
            {"name": "demo", "path": "/srv/demo.md", "has_status": False, "last_modified": None, "output_dir": None}
        ]

    async def _finding(self, plan_name: str, task_id: str) -> Json:
        return {"task_id": task_id, "content": f"finding of {task_id}"}

    async def _events_sse(self, instance_id: str, request: Request, since: int | None = None) -> Response:
        instance = self._instance(instance_id)
        last = request.headers.get("last-event-id", "" if since is None else str(since))
        return _stream(self._told_of_instance(instance, int(last) if last.isdecimal() else None))

    async def _told_of_instance(self, instance: Instance, since: int | None) -> AsyncIterator[bytes]:
        place = len(instance.told) if since is None else since
        first = {"type": "initial_status", "timestamp": instant(0), "instance_id": instance.id}
        yield _frame(place if since is None else None, "initial_status", {**first, "data": instance.snapshot()})
        yield _frame(None, "ping", {"type": "ping", "timestamp": instant(0)})
        async for each in self._following(instance, place):
            yield _frame(each["seq"], each["type"], each)

    async def _following(self, instance: Instance, place: int) -> AsyncIterator[Json]:
        cuts = self.live.cuts
        while await self.live.more(instance.told, place, cuts):
            for each in instance.told[place:]:
                yield each
                place += 1
                if each["data"].get("new_state") == "stopped":
                    return

    async def _events(self, socket: WebSocket) -> None:
        if (instance := await self._accepted(socket)) is None:
            return
        since = socket.query_params.get("since")
        place = len(instance.told) if since is None else int(since)
        first = {"type": "initial_status", "timestamp": instant(0), "instance_id": instance.id}
        await self._send_all(socket, {**first, "data": instance.snapshot()}, self._following(instance, place))

    async def _activity(self, socket: WebSocket) -> None:
        if (instance := await self._accepted(socket)) is None:
            return
        first = {"type": "connected", "timestamp": instant(0), "instance_id": instance.id, "message": "connected"}
        told = self._following(instance, len(instance.told))
        calls = ({**each.pop("data"), **each} async for each in _copies(told) if each["type"].startswith("tool_"))
        await self._send_all(socket, first, calls)

    async def _accepted(self, socket: WebSocket) -> Instance | None:
        instance = self.instances.get(socket.path_params["instance_id"])
        if instance is None:
            await socket.close()  # before it was accepted: HTTP 403
        else:
            await socket.accept()
        return instance

    async def _send_all(self, socket: WebSocket, first: Json, rest: AsyncIterator[Json]) -> None:
        cuts = self.live.cuts
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await socket.send_text(json.dumps(first))
            async for each in rest:
                await socket.send_text(json.dumps(each))
            await socket.close(1012 if self.live.cuts != cuts else 1000)

    def _instance(self, instance_id: str) -> Instance:
        if instance_id not in self.instances:
            raise Refused(404, {"detail": f"Orchestrator '{instance_id}' not found"})
        return self.instances[instance_id]


@contextlib.contextmanager
def serving() -> Iterator[tuple[str, StandIn]]:
    """Its address, and itself, listening on loopback."""
    stand_in = StandIn()
    config = uvicorn.Config(stand_in, port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", stand_in
    finally:
        server.should_exit = True
        thread.join(10)


def _model(name: str, shape: Any) -> type[pydantic.BaseModel]:
    """A component from the shape that the Python client has of it."""
    fields: Json = {}
    for key, kind in typing.get_type_hints(shape).items():
        missing = key not in shape.__required_keys__
        fields[key] = (_nested(kind), None) if missing else (_nested(kind), ...)
    return pydantic.create_model(name, **fields)


def _nested(kind: Any) -> Any:
    if typing.is_typeddict(kind):
        return _model(kind.__name__, kind)
    if typing.get_origin(kind) is list:
        return list[_nested(typing.get_args(kind)[0])]  # type: ignore[misc] # a type at run time
    return kind


def _body(model: type[pydantic.BaseModel], *, required: bool) -> Json:
    return {
        "requestBody": {"required": required, "content": {"application/json": {"schema": model.model_json_schema()}}}
    }


def _frame(id_: object, kind: str, data: Mapping[str, Any]) -> bytes:
    head = "" if id_ is None else f"id: {id_}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def _stream(frames: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(frames, media_type="text/event-stream; charset=utf-8")


async def _copies(given: AsyncIterator[Json]) -> AsyncIterator[Json]:
    async for each in given:
        yield dict(each)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status)
