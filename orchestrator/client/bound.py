"""`Client` and `AsyncClient`: every script of the surfaces as a method of each.

A method is declared once, as a script with its parameters and its docstring; here it is bound twice, by one line
each, and keeps its types: `Script[T]` becomes T or an awaitable of it, `Stream[E]` an iterator or an asynchronous one.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx

from orchestrator.client import artifacts as artifact_scripts
from orchestrator.client import dags, instances, jobs, pipelines, runs, script
from orchestrator.client import pools as pool_scripts
from orchestrator.client.clock import Clock
from orchestrator.client.drivers import AsyncDriver, Driver
from orchestrator.client.script import Script, Stream
from orchestrator.client.shapes.cluster import HealthResponse

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")


def health() -> Script[HealthResponse]:
    """How the server is."""
    return script.get("/health")


def get(path: str, **query: str | int | None) -> Script[Any]:
    """The JSON value at `path`, of any surface."""
    return script.get(path, **query)


class _Bound:
    """What blocks on one driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver


class _AsyncBound:
    """What awaits one driver."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver


def _blocking(build: Callable[P, Script[T]]) -> Callable[Concatenate[_Bound, P], T]:
    @functools.wraps(build)
    def method(self: _Bound, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._driver.run(build(*args, **kwargs))

    return method


def _iterating(build: Callable[P, Stream[E]]) -> Callable[Concatenate[_Bound, P], Generator[E, None, None]]:
    @functools.wraps(build)
    def method(self: _Bound, /, *args: P.args, **kwargs: P.kwargs) -> Generator[E, None, None]:
        return self._driver.iterate(build(*args, **kwargs))

    return method


def _awaited(build: Callable[P, Script[T]]) -> Callable[Concatenate[_AsyncBound, P], Coroutine[Any, Any, T]]:
    @functools.wraps(build)
    async def method(self: _AsyncBound, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._driver.run(build(*args, **kwargs))

    return method


def _streaming(build: Callable[P, Stream[E]]) -> Callable[Concatenate[_AsyncBound, P], AsyncGenerator[E, None]]:
    @functools.wraps(build)
    def method(self: _AsyncBound, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[E, None]:
        return self._driver.iterate(build(*args, **kwargs))

    return method


class Dags(_Bound):
    """DAGs, their runs and backfills."""

    define = _blocking(dags.define)
    get = _blocking(dags.get_dag)
    list = _iterating(dags.list_dags)
    preview = _blocking(dags.preview_dag)
    pause = _blocking(dags.pause_dag)
    resume = _blocking(dags.resume_dag)
    uncache = _blocking(dags.uncache)
    trigger = _blocking(dags.trigger)
    trigger_by_event = _blocking(dags.trigger_by_event)
    tell = _blocking(dags.tell)
    assets = _blocking(dags.list_assets)
    asset = _blocking(dags.get_asset)
    trigger_many = _blocking(dags.trigger_many)
    backfill = _blocking(dags.backfill)
    dry_run = _blocking(dags.dry_run)
    run = _blocking(dags.get_run)
    runs = _iterating(dags.list_runs)
    wait = _blocking(dags.wait)
    cancel = _blocking(dags.cancel)
    pause_run = _blocking(dags.pause_run)
    resume_run = _blocking(dags.resume_run)
    widen = _blocking(dags.widen)
    plan_widening = _blocking(dags.plan_widening)
    cap = _blocking(dags.cap)
    retry = _blocking(dags.retry)
    retry_task = _blocking(dags.retry_task)
    skip_task = _blocking(dags.skip_task)
    signal = _blocking(dags.signal)
    approvals = _blocking(dags.approvals)
    decide = _blocking(dags.decide)
    query = _blocking(dags.query)
    queries = _blocking(dags.queries)
    waiting = _blocking(dags.waiting)
    limits = _blocking(dags.list_limits)
    limit = _blocking(dags.get_limit)
    set_limit = _blocking(dags.set_limit)
    delete_limit = _blocking(dags.delete_limit)
    pools = _blocking(pool_scripts.list_pools)
    pool = _blocking(pool_scripts.get_pool)
    set_pool = _blocking(pool_scripts.set_pool)
    delete_pool = _blocking(pool_scripts.delete_pool)
    sweep_archive = _blocking(dags.sweep_archive)
    sweeps = _blocking(dags.list_sweeps)
    sweep_artifacts = _blocking(artifact_scripts.sweep_artifacts)
    artifact_sweeps = _blocking(artifact_scripts.list_artifact_sweeps)
    put_bundle = _blocking(dags.put_bundle)
    deploy_bundle = _blocking(dags.deploy_bundle)
    deploy_folder = _blocking(dags.deploy_folder)
    bundles = _blocking(dags.list_bundles)
    delete_bundle = _blocking(dags.delete_bundle)
    prune_bundles = _blocking(dags.prune_bundles)
    logs = _blocking(dags.logs)
    map_instances = _iterating(dags.map_instances)
    events = _iterating(dags.events)
    history = _iterating(dags.history)


class AsyncDags(_AsyncBound):
    """DAGs, their runs and backfills."""

    define = _awaited(dags.define)
    get = _awaited(dags.get_dag)
    list = _streaming(dags.list_dags)
    preview = _awaited(dags.preview_dag)
    pause = _awaited(dags.pause_dag)
    resume = _awaited(dags.resume_dag)
    uncache = _awaited(dags.uncache)
    trigger = _awaited(dags.trigger)
    trigger_by_event = _awaited(dags.trigger_by_event)
    tell = _awaited(dags.tell)
    assets = _awaited(dags.list_assets)
    asset = _awaited(dags.get_asset)
    trigger_many = _awaited(dags.trigger_many)
    backfill = _awaited(dags.backfill)
    dry_run = _awaited(dags.dry_run)
    run = _awaited(dags.get_run)
    runs = _streaming(dags.list_runs)
    wait = _awaited(dags.wait)
    cancel = _awaited(dags.cancel)
    pause_run = _awaited(dags.pause_run)
    resume_run = _awaited(dags.resume_run)
    widen = _awaited(dags.widen)
    plan_widening = _awaited(dags.plan_widening)
    cap = _awaited(dags.cap)
    retry = _awaited(dags.retry)
    retry_task = _awaited(dags.retry_task)
    skip_task = _awaited(dags.skip_task)
    signal = _awaited(dags.signal)
    approvals = _awaited(dags.approvals)
    decide = _awaited(dags.decide)
    query = _awaited(dags.query)
    queries = _awaited(dags.queries)
    waiting = _awaited(dags.waiting)
    limits = _awaited(dags.list_limits)
    limit = _awaited(dags.get_limit)
    set_limit = _awaited(dags.set_limit)
    delete_limit = _awaited(dags.delete_limit)
    pools = _awaited(pool_scripts.list_pools)
    pool = _awaited(pool_scripts.get_pool)
    set_pool = _awaited(pool_scripts.set_pool)
    delete_pool = _awaited(pool_scripts.delete_pool)
    sweep_archive = _awaited(dags.sweep_archive)
    sweeps = _awaited(dags.list_sweeps)
    sweep_artifacts = _awaited(artifact_scripts.sweep_artifacts)
    artifact_sweeps = _awaited(artifact_scripts.list_artifact_sweeps)
    put_bundle = _awaited(dags.put_bundle)
    deploy_bundle = _awaited(dags.deploy_bundle)
    deploy_folder = _awaited(dags.deploy_folder)
    bundles = _awaited(dags.list_bundles)
    delete_bundle = _awaited(dags.delete_bundle)
    prune_bundles = _awaited(dags.prune_bundles)
    logs = _awaited(dags.logs)
    map_instances = _streaming(dags.map_instances)
    events = _streaming(dags.events)
    history = _streaming(dags.history)


class Runs(_Bound):
    """Runs and their checkpoints."""

    create = _blocking(runs.create)
    plan = _blocking(runs.plan)
    get = _blocking(runs.get_run)
    checkpoints = _blocking(runs.checkpoints)
    post_checkpoint = _blocking(runs.post_checkpoint)
    cancel = _blocking(runs.cancel)
    events = _iterating(runs.events)


class AsyncRuns(_AsyncBound):
    """Runs and their checkpoints."""

    create = _awaited(runs.create)
    plan = _awaited(runs.plan)
    get = _awaited(runs.get_run)
    checkpoints = _awaited(runs.checkpoints)
    post_checkpoint = _awaited(runs.post_checkpoint)
    cancel = _awaited(runs.cancel)
    events = _streaming(runs.events)


class Instances(_Bound):
    """Orchestrator instances, plans and findings."""

    start = _blocking(instances.start)
    list = _blocking(instances.list_instances)
    get = _blocking(instances.get_instance)
    status = _blocking(instances.status)
    pause = _blocking(instances.pause)
    resume = _blocking(instances.resume)
    shutdown = _blocking(instances.shutdown)
    skip_task = _blocking(instances.skip_task)
    retry_task = _blocking(instances.retry_task)
    events = _iterating(instances.events)
    plans = _blocking(instances.list_plans)
    plan_status = _blocking(instances.plan_status)
    plan_tasks = _blocking(instances.plan_tasks)
    findings = _blocking(instances.list_findings)
    finding = _blocking(instances.finding)


class AsyncInstances(_AsyncBound):
    """Orchestrator instances, plans and findings."""

    start = _awaited(instances.start)
    list = _awaited(instances.list_instances)
    get = _awaited(instances.get_instance)
    status = _awaited(instances.status)
    pause = _awaited(instances.pause)
    resume = _awaited(instances.resume)
    shutdown = _awaited(instances.shutdown)
    skip_task = _awaited(instances.skip_task)
    retry_task = _awaited(instances.retry_task)
    events = _streaming(instances.events)
    plans = _awaited(instances.list_plans)
    plan_status = _awaited(instances.plan_status)
    plan_tasks = _awaited(instances.plan_tasks)
    findings = _awaited(instances.list_findings)
    finding = _awaited(instances.finding)


class Jobs(_Bound):
    """Jobs of blueprints, and workers."""

    create = _blocking(jobs.create)
    get = _blocking(jobs.get_job)
    list = _blocking(jobs.list_jobs)
    wait = _blocking(jobs.wait)
    cancel = _blocking(jobs.cancel)
    approve = _blocking(jobs.approve)
    release = _blocking(jobs.release)
    history = _blocking(jobs.history)
    workers = _blocking(jobs.workers)
    webhooks = _blocking(jobs.webhooks)
    retry_webhook = _blocking(jobs.retry_webhook)
    blueprints = _blocking(jobs.blueprints)
    graph = _blocking(jobs.graph)
    dashboard = _blocking(jobs.dashboard)


class AsyncJobs(_AsyncBound):
    """Jobs of blueprints, and workers."""

    create = _awaited(jobs.create)
    get = _awaited(jobs.get_job)
    list = _awaited(jobs.list_jobs)
    wait = _awaited(jobs.wait)
    cancel = _awaited(jobs.cancel)
    approve = _awaited(jobs.approve)
    release = _awaited(jobs.release)
    history = _awaited(jobs.history)
    workers = _awaited(jobs.workers)
    webhooks = _awaited(jobs.webhooks)
    retry_webhook = _awaited(jobs.retry_webhook)
    blueprints = _awaited(jobs.blueprints)
    graph = _awaited(jobs.graph)
    dashboard = _awaited(jobs.dashboard)


class Pipelines(_Bound):
    """CI pipelines, their jobs and logs, and runners."""

    create = _blocking(pipelines.create)
    list = _blocking(pipelines.list_pipelines)
    get = _blocking(pipelines.get_pipeline)
    delete = _blocking(pipelines.delete)
    launch = _blocking(pipelines.launch)
    job = _blocking(pipelines.get_job)
    jobs = _blocking(pipelines.list_jobs)
    cancel = _blocking(pipelines.cancel)
    wait = _blocking(pipelines.wait)
    logs = _blocking(pipelines.logs)
    follow = _iterating(pipelines.follow_logs)
    runners = _blocking(pipelines.list_runners)
    runner = _blocking(pipelines.get_runner)
    delete_runner = _blocking(pipelines.delete_runner)
    stubs = _blocking(pipelines.list_stubs)
    stub = _blocking(pipelines.get_stub)


class AsyncPipelines(_AsyncBound):
    """CI pipelines, their jobs and logs, and runners."""

    create = _awaited(pipelines.create)
    list = _awaited(pipelines.list_pipelines)
    get = _awaited(pipelines.get_pipeline)
    delete = _awaited(pipelines.delete)
    launch = _awaited(pipelines.launch)
    job = _awaited(pipelines.get_job)
    jobs = _awaited(pipelines.list_jobs)
    cancel = _awaited(pipelines.cancel)
    wait = _awaited(pipelines.wait)
    logs = _awaited(pipelines.logs)
    follow = _streaming(pipelines.follow_logs)
    runners = _awaited(pipelines.list_runners)
    runner = _awaited(pipelines.get_runner)
    delete_runner = _awaited(pipelines.delete_runner)
    stubs = _awaited(pipelines.list_stubs)
    stub = _awaited(pipelines.get_stub)


class Client(_Bound):
    """A server as one principal sees it. Methods block, and raise `orchestrator.client.errors`.

    `transport` and `clock` are for tests, proxies and the like; the defaults are the network and real time.
    """

    health = _blocking(health)
    #: the JSON value at any path, for what has no method here
    get_json = _blocking(get)

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(Driver(url, token, clock=clock, transport=transport))
        self.dags = Dags(self._driver)
        self.runs = Runs(self._driver)
        self.instances = Instances(self._driver)
        self.jobs = Jobs(self._driver)
        self.pipelines = Pipelines(self._driver)

    def close(self) -> None:
        """Its connections are closed."""
        self._driver.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncClient(_AsyncBound):
    """The same for asyncio; one event loop each. Close a stream that you leave early: `contextlib.aclosing`."""

    health = _awaited(health)
    #: the JSON value at any path, for what has no method here
    get_json = _awaited(get)

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(AsyncDriver(url, token, clock=clock, transport=transport))
        self.dags = AsyncDags(self._driver)
        self.runs = AsyncRuns(self._driver)
        self.instances = AsyncInstances(self._driver)
        self.jobs = AsyncJobs(self._driver)
        self.pipelines = AsyncPipelines(self._driver)

    async def close(self) -> None:
        """Its connections are closed."""
        await self._driver.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()
