"""What each endpoint does: parse, call the port, translate.

A handler is called once the caller is known, within its rate and has the scope; whatever it raises is worded
by `routes`. Mutations go on to their end when the caller hangs up. The first line of a handler's docstring is
the summary of its operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from orchestrator import spec
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import Invalid, KubernetesUnavailable, NotFound
from orchestrator.faults import refusal
from orchestrator.graph import generations
from orchestrator.live_run_views import LiveRunWanted
from serve_app import sse
from serve_app.auth import Principal
from serve_app.limits import Occupancy
from serve_app.options import ServerOptions
from serve_app.ports import Clock, Gateway, LiveRuns
from serve_app.problems import BodyTooLarge, TooManyRequests
from serve_app.request_traces import traceparent_of
from serve_app.requests import raw_body, unhindered
from serve_app.surfaces.runs import inline_plan, parse, words

JSON = "application/json; charset=utf-8"

STREAMS_MAX = 100
#: how long a reader may leave 256 frames unread before it is cut off
PATIENCE_S = 5.0
#: a plan with more nodes than this is checked in a thread, so that other requests go on meanwhile
_MANY_NODES = 200


class Handlers:
    """The endpoints over one `LiveRuns`; the gateway tells what a DAG holds."""

    def __init__(
        self, live_runs: LiveRuns, gateway: Gateway, options: ServerOptions, clock: Clock, draining: asyncio.Event
    ) -> None:
        self._live_runs = live_runs
        self._gateway = gateway
        self._options = options
        self._clock = clock
        self._draining = draining
        self._streams = Occupancy(STREAMS_MAX, options.replicas)

    async def create_run(self, request: Request, principal: Principal) -> Response:
        """Create a run, or plan it"""
        mode = parse.mode(request.query_params.get("mode"), self._options.runs_default_mode)
        owner = parse.owner(request.headers.get("x-actor-id"), request.query_params.get("owner"))
        asked = parse.run_request(await raw_body(request, self._options.max_body_bytes))
        idem = parse.idempotency(request, principal.tenant, asked)
        tasks = None if asked.graph is None else await _read_plan(*asked.graph, self._origin(principal))
        if mode == "plan":
            return _answer(await self._plan(principal, asked.dag_id, tasks))
        if mode == "k8s":
            await self._check_kubernetes(principal, asked, tasks)
        wanted = LiveRunWanted(
            mode=mode,
            owner=owner,
            metadata=asked.metadata,
            dag_id=asked.dag_id,
            tasks=tasks,
            traceparent=traceparent_of(request),
        )
        created = await unhindered(self._live_runs.create(principal.tenant, wanted, idem))
        return _answer({"runId": created.run_id}, 201, replayed=created.replayed)

    async def get_run(self, request: Request, principal: Principal) -> Response:
        """Fetch a run"""
        return _answer({"run": words.run(await self._live_runs.run(principal.tenant, _run_id(request)))})

    async def cancel_run(self, request: Request, principal: Principal) -> Response:
        """Cancel a run, at once"""
        changed = await unhindered(self._live_runs.cancel(principal.tenant, _run_id(request)))
        return _answer({"ok": True, "status": words.RUN_WORDS[changed.state]})

    async def list_checkpoints(self, request: Request, principal: Principal) -> Response:
        """List checkpoints, oldest first"""
        after, limit = parse.checkpoints_query(request.query_params)
        run_id = _run_id(request)
        found = await self._live_runs.checkpoints(principal.tenant, run_id, after, limit)
        return _answer({"runId": run_id, "checkpoints": [words.checkpoint(each) for each in found]})

    async def post_checkpoint(self, request: Request, principal: Principal) -> Response:
        """Append a checkpoint to a run, whatever its status"""
        run_id = _run_id(request)
        try:
            kind, data = parse.checkpoint(await raw_body(request, self._options.max_body_bytes))
        except (Invalid, BodyTooLarge):
            # an unknown run is told before a bad body
            await self._live_runs.run(principal.tenant, run_id)
            raise
        added = await unhindered(self._live_runs.post_checkpoint(principal.tenant, run_id, kind, data))
        return _answer({"checkpointId": added.id}, 201)

    async def run_events(self, request: Request, principal: Principal) -> Response:
        """Follow a run as server-sent events"""
        if not self._streams.enter(principal):
            raise TooManyRequests(f"{self._streams.most} streams at the same time", retry_after_s=1)
        leave = partial(self._streams.leave, principal)
        try:
            return await self._stream(request, principal, leave)
        except NotFound:
            leave()
            return Response(status_code=404)
        except BaseException:
            leave()
            raise

    async def _stream(self, request: Request, principal: Principal, leave: Callable[[], None]) -> Response:
        run_id = _run_id(request)
        query = request.query_params
        after = parse.resume_after(request.headers.get("last-event-id"), query.get("lastEventId"))
        frames = await self._live_runs.open_events(principal.tenant, run_id, after, parse.replay(query.get("replay")))
        return sse.EventStream(
            sse.written(frames, words.event, self._clock),
            opening=words.hello(run_id),
            patience_s=PATIENCE_S,
            ended=leave,
            draining=self._draining,
        )

    async def _plan(self, principal: Principal, dag_id: str | None, tasks: Sequence[TaskSpec] | None) -> words.Json:
        if dag_id is not None:
            tasks = await self._dag_tasks(principal, dag_id)
        return words.steps(None if tasks is None else generations(tasks))

    async def _check_kubernetes(
        self, principal: Principal, asked: parse.RunRequest, tasks: Sequence[TaskSpec] | None
    ) -> None:
        """Raises KubernetesUnavailable when there are tasks and no cluster, Invalid when one has no image."""
        if asked.dag_id is not None:
            tasks = await self._dag_tasks(principal, asked.dag_id)
        if not tasks:
            return
        if not self._options.kubernetes_ready:
            raise KubernetesUnavailable
        bare = [n for n, task in enumerate(tasks) if task.container is None or task.container.image is None]
        if bare and not self._options.kubernetes_image:
            at = "dag_id" if asked.graph is None else f"{asked.graph[0]}/nodes/{bare[0]}"
            raise refusal([(at, "must have an image: ORCHESTRATOR_K8S_IMAGE is not set")])

    async def _dag_tasks(self, principal: Principal, dag_id: str) -> tuple[TaskSpec, ...]:
        return (await self._gateway.dag(principal.tenant, dag_id)).definition.tasks

    def _origin(self, principal: Principal) -> Callable[[Definition], None]:
        return partial(
            spec.check_origin,
            over_http=True,
            allow_shell=self._options.allow_shell,
            entrypoint_prefixes=self._options.entrypoint_allow,
            admin="admin" in principal.scopes,
        )


def _answer(body: words.Json, status: int = 200, *, replayed: bool = False) -> Response:
    headers = {"Idempotent-Replay": "true"} if replayed else None
    return Response(words.encode(body), status, headers, JSON)


def _run_id(request: Request) -> str:
    return parse.known_form(request.path_params["run_id"])


async def _read_plan(at: str, graph: object, origin: Callable[[Definition], None]) -> tuple[TaskSpec, ...]:
    nodes = graph.get("nodes") if isinstance(graph, dict) else None
    if isinstance(nodes, list) and len(nodes) > _MANY_NODES:
        return await asyncio.to_thread(inline_plan.read, at, graph, origin)
    return inline_plan.read(at, graph, origin)
