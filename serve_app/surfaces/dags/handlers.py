"""What each endpoint does: parse, call the gateway, translate.

A handler is called once the caller is known, within its rate and has the scope; whatever it raises is worded
by `routes`. Mutations go on to their end when the caller hangs up. The first line of a handler's docstring is
the summary of its operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestrator import fires, spec
from orchestrator.definition import Definition
from orchestrator.errors import Invalid, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.ids import DEFAULT_TENANT
from orchestrator.rows import RunFilter
from orchestrator.starts import Trigger, Triggered
from orchestrator.views import DagDefined, Frame, Page, RunChanged, RunView
from serve_app import sse
from serve_app.auth import Principal
from serve_app.options import ServerOptions
from serve_app.ports import Clock, Gateway
from serve_app.problems import problem_of
from serve_app.request_traces import traceparent_of
from serve_app.requests import idempotency, json_body, optional_json_body, unhindered, whole_number
from serve_app.surfaces.dags import paging, parse, words
from serve_app.surfaces.dags.answers import answer as _answer
from serve_app.surfaces.dags.answers import check_operator, require
from serve_app.surfaces.dags.answers import path_id as _path_id

Switch = Callable[[str, str, str | None, Idempotency | None], Coroutine[Any, Any, DagDefined]]
RunCommand = Callable[[str, str, Idempotency | None], Coroutine[Any, Any, RunChanged]]
TaskCommand = Callable[[str, str, str, Idempotency | None], Coroutine[Any, Any, RunChanged]]

#: a definition with more tasks than this is checked in a thread, so that other requests go on meanwhile
_MANY_TASKS = 200


class Handlers:
    """The endpoints over one gateway."""

    def __init__(self, gateway: Gateway, options: ServerOptions, clock: Clock, draining: asyncio.Event) -> None:
        self._gateway = gateway
        self._options = options
        self._clock = clock
        self._draining = draining

    # -- DAGs

    async def define_dag(self, request: Request, principal: Principal) -> Response:
        """Create or update a DAG"""
        body = await self._json(request)
        definition, tasks_given = await _parse_dag(body)
        spec.check_origin(
            definition,
            over_http=True,
            allow_shell=self._options.allow_shell,
            entrypoint_prefixes=self._options.entrypoint_allow,
            admin=True,
        )
        expect = parse.expected_version(body, request.headers.get("if-match"))
        idem = idempotency(request, principal.tenant, body)
        work = self._gateway.define_dag(
            principal.tenant, definition, keep_tasks=not tasks_given, expect=expect, idem=idem
        )
        defined = await unhindered(work)
        return _answer(words.dag_defined(defined), replayed=defined.replayed)

    async def list_dags(self, request: Request, principal: Principal) -> Response:
        """List DAGs by id"""
        paused, owner = parse.dags_query(request.query_params)
        where = parse.page_query("dags", request.query_params)
        page = await self._gateway.dags(
            principal.tenant, paused=paused, owner=owner, cursor=where.cursor, limit=where.limit
        )
        items = [words.dag(each) for each in page.items]
        return _answer({"items": items, "next_cursor": paging.cursor_text("dags", page.next_cursor)})

    async def get_dag(self, request: Request, principal: Principal) -> Response:
        """Fetch a DAG"""
        view = await self._gateway.dag(principal.tenant, _path_id(request, "dag", "dag_id"))
        return _answer(words.dag(view))

    async def preview_dag(self, request: Request, principal: Principal) -> Response:
        """Show when the schedule of a DAG fires next, and what its calendar skips"""
        n, start = parse.preview_query(request.query_params)
        view = await self._gateway.dag(principal.tenant, _path_id(request, "dag", "dag_id"))
        return await self._preview(principal.tenant, view.definition, n, start, paused=view.paused)

    async def preview_schedule(self, request: Request, principal: Principal) -> Response:
        """Show when a schedule would fire that is not deployed"""
        definition, n, start = parse.preview_request(await self._json(request))
        return await self._preview(principal.tenant, definition, n, start, paused=False)

    async def _preview(
        self, tenant: str, definition: Definition, n: int, start: datetime | None, *, paused: bool
    ) -> Response:
        timetable = fires.timetable_of(definition, tenant)
        if timetable is None:
            return _answer(words.ticks(None, (), paused))
        # a rare schedule has a long way to go
        found = await asyncio.to_thread(fires.preview, timetable, start or self._clock.now(), n)
        return _answer(words.ticks(timetable, found, paused))

    async def pause_dag(self, request: Request, principal: Principal) -> Response:
        """Pause a DAG: nothing of it starts"""
        return await self._switch_dag(request, principal, self._gateway.pause_dag)

    async def resume_dag(self, request: Request, principal: Principal) -> Response:
        """Resume a DAG"""
        return await self._switch_dag(request, principal, self._gateway.resume_dag)

    async def uncache_dag(self, request: Request, principal: Principal) -> Response:
        """Let tasks of a DAG compute anew: results of attempts that have begun by now are not used again"""
        dag_id, task = _path_id(request, "dag", "dag_id"), parse.task_query(request.query_params)
        return _answer(words.uncached(await unhindered(self._gateway.cache.uncache(principal.tenant, dag_id, task))))

    async def deploy_dag(self, request: Request, principal: Principal) -> Response:
        """Define a DAG that the operator's command line compiled on the server"""
        body = await self._optional_json(request)
        dag_id = _path_id(request, "dag", "dag_id")
        # what the operator deploys is the operator's: to other tenants it does not exist
        if principal.tenant != DEFAULT_TENANT:
            raise NotFound("deployed dag", dag_id)
        definition = await asyncio.to_thread(_deployed, Path(self._options.home, "deployed"), dag_id)
        spec.check_origin(definition, over_http=False, allow_shell=True, entrypoint_prefixes=(), admin=True)
        idem = idempotency(request, principal.tenant, body)
        work = self._gateway.define_dag(principal.tenant, definition, keep_tasks=False, expect=None, idem=idem)
        defined = await unhindered(work)
        return _answer(words.dag_defined(defined), replayed=defined.replayed)

    async def _switch_dag(self, request: Request, principal: Principal, switch: Switch) -> Response:
        body = await self._optional_json(request)
        why = parse.reason(body)
        dag_id = _path_id(request, "dag", "dag_id")
        idem = idempotency(request, principal.tenant, body)
        switched = await unhindered(switch(principal.tenant, dag_id, why, idem))
        return _answer(words.dag_defined(switched), replayed=switched.replayed)

    # -- runs

    async def trigger(self, request: Request, principal: Principal) -> Response:
        """Trigger a manual run or a backfill, or plan it"""
        body = await self._json(request)
        if parse.asks_for_backfill(body):
            require(principal, "admin")
        wanted = parse.trigger_request(body)
        if wanted.dry_run:
            return _answer(words.plan(await self._gateway.plan(principal.tenant, wanted.trigger)))
        idem = idempotency(request, principal.tenant, body)
        done = await unhindered(self._gateway.trigger(principal.tenant, _traced(wanted.trigger, request), idem))
        return _answer(words.triggered(done), replayed=done.replayed)

    async def trigger_by_event(self, request: Request, principal: Principal) -> Response:
        """Run a DAG because of an event, once however often it is told"""
        body = await self._optional_json(request)
        dag_id = _path_id(request, "dag", "dag_id")
        trigger = parse.event_request(dag_id, request.path_params["event_id"], body)
        idem = idempotency(request, principal.tenant, body)
        done = await unhindered(self._gateway.trigger(principal.tenant, _traced(trigger, request), idem))
        return _answer(words.triggered(done) | {"duplicate": done.existing}, replayed=done.replayed)

    async def trigger_batch(self, request: Request, principal: Principal) -> Response:
        """Trigger many manual runs in one durable step"""
        body = await self._json(request)
        entries = parse.batch_request(body)
        triggers = [_traced(each, request) for each in entries if isinstance(each, Trigger)]
        idem = idempotency(request, principal.tenant, body)
        work = self._gateway.trigger_many(principal.tenant, triggers, idem)
        answers, replayed = await unhindered(work)
        following = iter(answers)
        outcomes = [next(following) if isinstance(each, Trigger) else each for each in entries]
        return _answer({"runs": [_batch_item(each) for each in outcomes]}, replayed=replayed)

    async def list_runs(self, request: Request, principal: Principal) -> Response:
        """List runs, newest first"""
        wanted = parse.runs_query(request.query_params)
        where = parse.page_query("runs", request.query_params)
        if wanted is None:
            return _answer({"items": [], "next_cursor": None})
        pages = await asyncio.gather(*(self._runs(principal.tenant, wanted, each, where) for each in wanted.states))
        page = paging.merged(pages, where.limit)
        items = [words.run_in_list(each) for each in page.items]
        return _answer({"items": items, "next_cursor": paging.cursor_text("runs", page.next_cursor)})

    async def _runs(
        self, tenant: str, wanted: parse.RunsQuery, state: str | None, where: parse.PageQuery
    ) -> Page[RunView]:
        runs = self._gateway.archive.runs if wanted.archived else self._gateway.runs
        fitting = RunFilter(
            tenant=tenant, dag_id=wanted.dag_id, state=state, run_type=wanted.run_type, parent=wanted.parent_run_id
        )
        return await runs(fitting, where.cursor, where.limit)

    async def get_run(self, request: Request, principal: Principal) -> Response:
        """Fetch a run, at once or when it has ended"""
        wait_s = whole_number("wait_s", request.query_params.get("wait_s"), 0, parse.MOST_WAIT_S)
        run_id = _path_id(request, "run", "run_id")
        if wait_s:
            await self._gateway.wait(principal.tenant, run_id, wait_s)
        return _answer(words.run(await self._gateway.run(principal.tenant, run_id)))

    async def cancel_run(self, request: Request, principal: Principal) -> Response:
        """Cancel a run, or every window of a backfill that is not over"""
        return await self._command_run(request, principal, self._gateway.cancel_run)

    async def pause_run(self, request: Request, principal: Principal) -> Response:
        """Pause a run: no further task, or window of a backfill, starts"""
        return await self._command_run(request, principal, self._gateway.pause_run)

    async def resume_run(self, request: Request, principal: Principal) -> Response:
        """Resume a run"""
        return await self._command_run(request, principal, self._gateway.resume_run)

    async def widen_run(self, request: Request, principal: Principal) -> Response:
        """Add windows to a backfill that goes on, or plan it"""
        body = await self._json(request)
        widening, dry_run = parse.widening_request(body)
        run_id = _path_id(request, "run", "run_id")
        if dry_run:
            return _answer(words.plan(await self._gateway.plan_widening(principal.tenant, run_id, widening)))
        require(principal, "admin")
        idem = idempotency(request, principal.tenant, body)
        done = await unhindered(self._gateway.widen_run(principal.tenant, run_id, widening, idem))
        return _answer(words.wider(done), replayed=done.replayed)

    async def cap_run(self, request: Request, principal: Principal) -> Response:
        """Change how many windows of a backfill run at a time"""
        body = await self._json(request)
        limit = parse.cap_request(body)
        run_id = _path_id(request, "run", "run_id")
        idem = idempotency(request, principal.tenant, body)
        changed = await unhindered(self._gateway.cap_run(principal.tenant, run_id, limit, idem))
        return _answer({**words.run_changed(changed), "max_active_runs": limit}, replayed=changed.replayed)

    async def retry_run(self, request: Request, principal: Principal) -> Response:
        """Retry every failed task of a run"""
        return await self._command_run(request, principal, self._gateway.retry_run)

    async def _command_run(self, request: Request, principal: Principal, command: RunCommand) -> Response:
        body = await self._optional_json(request)
        run_id = _path_id(request, "run", "run_id")
        changed = await unhindered(command(principal.tenant, run_id, idempotency(request, principal.tenant, body)))
        return _answer(words.run_changed(changed), replayed=changed.replayed)

    # -- tasks of a run

    async def retry_task(self, request: Request, principal: Principal) -> Response:
        """Retry a task: it and what failed because of it are pending again"""
        return await self._command_task(request, principal, self._gateway.retry_task)

    async def skip_task(self, request: Request, principal: Principal) -> Response:
        """Skip a task: dependents proceed as if it were done"""
        return await self._command_task(request, principal, self._gateway.skip_task)

    async def map_instances(self, request: Request, principal: Principal) -> Response:
        """List the instances of a mapped task by index"""
        states, cursor, limit = parse.instances_query(request.query_params)
        run_id, task = _path_id(request, "run", "run_id"), _path_id(request, "task", "task")
        found = await self._gateway.map_instances(
            principal.tenant, run_id, task, states=states, cursor=cursor, limit=limit
        )
        next_cursor = paging.cursor_text("instances", found.next_cursor)
        return _answer({**words.map_instances(found), "next_cursor": next_cursor})

    async def task_logs(self, request: Request, principal: Principal) -> Response:
        """Fetch what a task printed"""
        attempt = parse.attempt_query(request.query_params)
        run_id, task = _path_id(request, "run", "run_id"), _path_id(request, "task", "task")
        chunks = await self._gateway.logs(principal.tenant, run_id, task, attempt)
        return _answer({"items": [words.log(each) for each in chunks]})

    async def _command_task(self, request: Request, principal: Principal, command: TaskCommand) -> Response:
        body = await self._optional_json(request)
        run_id, task = _path_id(request, "run", "run_id"), _path_id(request, "task", "task")
        idem = idempotency(request, principal.tenant, body)
        changed = await unhindered(command(principal.tenant, run_id, task, idem))
        return _answer(words.task_changed(changed, task), replayed=changed.replayed)

    # -- events

    async def run_events(self, request: Request, principal: Principal) -> Response:
        """Follow a run as server-sent events"""
        run_id = _path_id(request, "run", "run_id")
        after = sse.cursor(request.headers.get("last-event-id"), request.query_params.get("after"))
        frames = await self._gateway.open_events(principal.tenant, run_id, after)
        if frames is None:
            return Response(status_code=204)
        life_s = self._options.stream_life_s * (1 + 0.2 * self._clock.jitter())
        written = sse.written(frames, _wire, self._clock)
        return sse.EventStream(written, life_s=life_s, draining=self._draining)

    # -- shares

    async def list_shares(self, _: Request, principal: Principal) -> Response:
        """List the weights of tenants"""
        check_operator(principal, "shares")
        return _answer({"items": [words.share(each) for each in await self._gateway.shares()]})

    async def set_share(self, request: Request, principal: Principal) -> Response:
        """Set the weight of a tenant"""
        tenant, weight = parse.share(await self._json(request))
        check_operator(principal, "shares")
        return _answer(words.share(await unhindered(self._gateway.set_share(tenant, weight))))

    # -- workers

    async def list_workers(self, _: Request, __: Principal) -> Response:
        """List worker slots"""
        return _answer({"items": [words.worker(each) for each in await self._gateway.workers()]})

    async def scale_workers(self, request: Request, principal: Principal) -> Response:
        """Set the number of worker slots of a pool"""
        check_operator(principal, "workers")
        pool, n = parse.scale(await self._json(request))
        workers = await unhindered(self._gateway.scale_workers(pool, n))
        return _answer({"items": [words.worker(each) for each in workers]})

    async def drain_worker(self, request: Request, principal: Principal) -> Response:
        """Let a worker finish what it has and give it nothing more"""
        check_operator(principal, "workers")
        await self._optional_json(request)
        worker = await unhindered(self._gateway.drain_worker(_path_id(request, "worker", "worker_id")))
        return _answer(words.worker(worker))

    # -- limits

    async def waiting_tasks(self, request: Request, principal: Principal) -> Response:
        """List ready tasks of a run that have not started, and what they wait for"""
        found = await self._gateway.limit_book.waiting(principal.tenant, _path_id(request, "run", "run_id"))
        return _answer(words.run_waiting(found))

    async def list_limits(self, _: Request, principal: Principal) -> Response:
        """List limits on tasks that run, and what is in use of them"""
        found = await self._gateway.limit_book.limits(principal.tenant)
        return _answer({"items": [words.limit(each) for each in found]})

    async def get_limit(self, request: Request, principal: Principal) -> Response:
        """Read one limit"""
        found = await self._gateway.limit_book.limit(principal.tenant, _path_id(request, "limit", "name"))
        return _answer(words.limit(found))

    async def set_limit(self, request: Request, principal: Principal) -> Response:
        """Define a limit, or change it"""
        name = _path_id(request, "limit", "name")
        limit = parse.limit(await self._json(request))
        return _answer(words.limit(await unhindered(self._gateway.limit_book.set_limit(principal.tenant, name, limit))))

    async def delete_limit(self, request: Request, principal: Principal) -> Response:
        """Forget a limit: tasks that name it are only counted"""
        name = _path_id(request, "limit", "name")
        await unhindered(self._gateway.limit_book.delete_limit(principal.tenant, name))
        return _answer({"name": name, "deleted": True})

    async def _json(self, request: Request) -> object:
        return await json_body(request, self._options.max_body_bytes)

    async def _optional_json(self, request: Request) -> dict[str, Any]:
        return await optional_json_body(request, self._options.max_body_bytes)


async def _parse_dag(body: object) -> tuple[Definition, bool]:
    tasks = body.get("tasks") if isinstance(body, dict) else None
    if isinstance(tasks, list) and len(tasks) > _MANY_TASKS:
        return await asyncio.to_thread(spec.parse_dag, body)
    return spec.parse_dag(body)


def _deployed(folder: Path, dag_id: str) -> Definition:
    """The definition that the operator's command line left there."""
    try:
        found = msgspec.json.decode((folder / f"{dag_id}.json").read_bytes(), type=Definition)
    except FileNotFoundError:
        raise NotFound("deployed dag", dag_id) from None
    except msgspec.MsgspecError:
        raise Invalid(f"the deployed definition of {dag_id} cannot be read; deploy it again") from None
    if found.dag_id != dag_id:
        raise Invalid(f"the deployed definition of {dag_id} is that of {found.dag_id}")
    return found


def _wire(frame: Frame) -> bytes:
    return sse.frame(frame.seq, frame.kind, words.event(frame))


def _batch_item(outcome: Triggered | Exception) -> words.Json:
    if isinstance(outcome, Triggered):
        return {"run_id": outcome.run_id, "state": words.RUN_WORDS[outcome.state]}
    problem = problem_of(outcome)
    return {"error": words.ERROR_CODES[problem.kind], "message": problem.message}


def _traced(trigger: Trigger, request: Request) -> Trigger:
    """The same, as part of the request's trace."""
    return msgspec.structs.replace(trigger, traceparent=traceparent_of(request))
