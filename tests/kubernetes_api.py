"""A stand-in for the part of the Kubernetes API that runs Jobs: batch/v1 Jobs and v1 Pods of one cluster, over HTTP.

    with KubernetesApi() as api:        a server on loopback, in a thread of its own
        api.url                         for ORCHESTRATOR_K8S_API_URL
        api.plays("extract", FAILS)     how the next Job of task `extract` goes; core.* types need no script

Jobs are checked against the published OpenAPI types (PyPI package `kubernetes-validate`, release 1.37, unknown fields
refused) and against what the API demands beyond types; what is wrong is answered 422 as the API does. Versions, watches
with bookmarks, pages, 410, background deletion and `AlreadyExists` are as documented in
https://kubernetes.io/docs/reference/using-api/api-concepts/. Nothing runs: a Job ends when its play says so.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TypeVar

import kubernetes_validate
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]
T = TypeVar("T")

RELEASE = "1.37"
#: seconds between bookmarks of a silent watch
BOOKMARK_S = 0.5
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class Play:
    """What a Job's container does. `runs_s` None: it runs until the test ends it."""

    runs_s: float | None = 0.0
    exit_code: int = 0
    message: str = ""
    log: str = ""


ENDS_WELL, HANGS = Play(), Play(runs_s=None)


@dataclass
class Fault:
    """Requests that go wrong. With `done` they are carried out, and only the answer is not what it should be."""

    method: str
    path: re.Pattern[str]
    status: int
    reason: str
    message: str
    times: int
    done: bool


@dataclass
class _State:
    """The cluster, touched by the server's thread only."""

    version: int = 100
    #: versions up to this one are forgotten
    compacted: int = 0
    jobs: dict[str, Json] = field(default_factory=dict)
    pods: dict[str, Json] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    plays: dict[str, Play] = field(default_factory=dict)
    history: list[tuple[int, str, Json]] = field(default_factory=list)


class KubernetesApi:
    """One cluster and its server. Methods may be called from any thread while it runs."""

    def __init__(self) -> None:
        self._state = _State()
        self._scripts: dict[str, list[Play]] = {}
        self._faults: list[Fault] = []
        self._news = asyncio.Event()
        #: grows when open watches are cut
        self._cut = 0
        #: every Job that was asked for, as it came
        self.posted: list[Json] = []
        #: "METHOD path?query" of every request
        self.requests: list[str] = []
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(128)  # who comes before the server is ready waits
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        config = uvicorn.Config(
            self._app(), log_level="critical", lifespan="off", http="h11", ws="none", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="kubernetes-api", daemon=True)

    def __enter__(self) -> KubernetesApi:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cut_watches()
        self._server.should_exit = True  # within 0.2 s, for which nobody waits; it closes the socket

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._server.serve([self._socket]))
        self._loop.close()

    # ── what a test does ──────────────────────────────────────────────────────────────────────────

    def plays(self, task: str, *plays: Play) -> None:
        """How the next Jobs of that task go, one after another; the last play stays."""
        self._scripts[task] = list(plays)

    def fails(
        self,
        method: str,
        path: str,
        status: int,
        *,
        reason: str = "InternalError",
        message: str = "told to fail",
        times: int = 1,
        done: bool = False,
    ) -> None:
        """The next `times` requests like this are answered so. `path` is a regular expression, searched for."""
        self._faults.append(Fault(method, re.compile(path), status, reason, message, times, done))

    def ends(self, name: str, play: Play = ENDS_WELL) -> None:
        """The Job's container ends now, as the play says."""
        self._do(lambda: self._finish(name, play))

    def overruns(self, name: str) -> None:
        """The Job's active deadline passes now."""
        self._do(lambda: self._expire(name))

    def removes(self, name: str) -> None:
        """Somebody deletes the Job."""
        self._do(lambda: self._delete(name))

    def forgets(self) -> None:
        """Watches from versions of the past are answered 410."""
        self._do(self._compact)

    def cut_watches(self) -> None:
        """Every open watch breaks off in the middle."""
        self._do(self._break_off)

    @property
    def jobs(self) -> dict[str, Json]:
        """The Jobs there are."""
        return self._do(lambda: copy.deepcopy(self._state.jobs))

    @property
    def pods(self) -> dict[str, Json]:
        """The pods there are."""
        return self._do(lambda: copy.deepcopy(self._state.pods))

    def asked(self, pattern: str) -> list[str]:
        """The requests that match."""
        return [request for request in list(self.requests) if re.search(pattern, request)]

    def _do(self, work: Callable[[], T]) -> T:
        async def done() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(5.0)

    # ── HTTP ──────────────────────────────────────────────────────────────────────────────────────

    def _app(self) -> Starlette:
        jobs, pods = "/apis/batch/v1/namespaces/{namespace}/jobs", "/api/v1/namespaces/{namespace}/pods"
        return Starlette(
            routes=[
                Route(jobs, self._guarded(self._post_job), methods=["POST"]),
                Route(jobs, self._guarded(self._list_jobs), methods=["GET"]),
                Route(jobs + "/{name}", self._guarded(self._get_job), methods=["GET"]),
                Route(jobs + "/{name}", self._guarded(self._delete_job), methods=["DELETE"]),
                Route(pods, self._guarded(self._list_pods), methods=["GET"]),
                Route(pods + "/{name}/log", self._guarded(self._get_log), methods=["GET"]),
            ]
        )

    def _guarded(self, handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def handled(request: Request) -> Response:
            query = f"?{request.url.query}" if request.url.query else ""
            line = f"{request.method} {request.url.path}{query}"
            self.requests.append(line)
            fault = next((f for f in self._faults if f.method == request.method and f.path.search(line)), None)
            if fault is None:
                return await handle(request)
            fault.times -= 1
            if not fault.times:
                self._faults.remove(fault)
            if fault.done:
                await handle(request)
            return _status(fault.status, fault.reason, fault.message)

        return handled

    async def _post_job(self, request: Request) -> Response:
        job = await request.json()
        self.posted.append(copy.deepcopy(job))
        if wrong := faults_of(job):
            return _status(422, "Invalid", f'Job.batch "{job["metadata"].get("name")}" is invalid: {wrong}')
        name = job["metadata"]["name"]
        if name in self._state.jobs:
            return _status(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
        job["metadata"] |= {"namespace": request.path_params["namespace"], "uid": f"uid-{name}", "generation": 1}
        job["metadata"]["creationTimestamp"] = _now()
        self._put("ADDED", job)
        self._loop.call_soon(self._begin, name)
        return JSONResponse(job, 201)

    async def _list_jobs(self, request: Request) -> Response:
        selector = request.query_params.get("labelSelector", "")
        if request.query_params.get("watch") == "true":
            return StreamingResponse(self._events(request, selector), media_type="application/json")
        found = [job for job in self._state.jobs.values() if _selected(job, selector)]
        first = int(request.query_params.get("continue") or 0)
        last = first + int(request.query_params.get("limit") or 1_000_000)
        about: Json = {"resourceVersion": str(self._state.version)}
        if last < len(found):
            about["continue"] = str(last)
        return JSONResponse(
            {"apiVersion": "batch/v1", "kind": "JobList", "metadata": about, "items": found[first:last]}
        )

    async def _get_job(self, request: Request) -> Response:
        name = request.path_params["name"]
        job = self._state.jobs.get(name)
        return JSONResponse(job) if job else _status(404, "NotFound", f'jobs.batch "{name}" not found')

    async def _delete_job(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._state.jobs:
            return _status(404, "NotFound", f'jobs.batch "{name}" not found')
        self._delete(name, orphans=request.query_params.get("propagationPolicy") not in ("Background", "Foreground"))
        return JSONResponse({"apiVersion": "v1", "kind": "Status", "status": "Success"})

    async def _list_pods(self, request: Request) -> Response:
        selector = request.query_params.get("labelSelector", "")
        found = [pod for pod in self._state.pods.values() if _selected(pod, selector)]
        about = {"resourceVersion": str(self._state.version)}
        return JSONResponse({"apiVersion": "v1", "kind": "PodList", "metadata": about, "items": found})

    async def _get_log(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._state.pods:
            return _status(404, "NotFound", f'pods "{name}" not found')
        containers = [each["name"] for each in self._state.pods[name]["spec"]["containers"]]
        if request.query_params.get("container") not in containers:
            return _status(400, "BadRequest", f"a container name must be specified for pod {name}: {containers}")
        log = self._state.logs.get(name, "").encode()
        limit = int(request.query_params.get("limitBytes") or len(log))
        return PlainTextResponse(log[:limit])

    async def _events(self, request: Request, selector: str) -> AsyncIterator[bytes]:
        """A watch from `resourceVersion`: what came since, what comes, and bookmarks in between."""
        seen, cut = int(request.query_params["resourceVersion"]), self._cut
        ends_s = self._loop.time() + float(request.query_params.get("timeoutSeconds") or 1800)
        if seen < self._state.compacted:
            gone = _status_object(410, "Expired", f"too old resource version: {seen} ({self._state.compacted})")
            yield _line("ERROR", gone)
            return
        while self._loop.time() < ends_s:
            news = self._news
            for version, kind, job in [each for each in self._state.history if each[0] > seen]:
                seen = version
                if _selected(job, selector):
                    yield _line(kind, job)
            try:
                await asyncio.wait_for(news.wait(), min(BOOKMARK_S, max(0.0, ends_s - self._loop.time())))
            except TimeoutError:
                seen = max(seen, self._state.version)
                about = {"resourceVersion": str(seen), "creationTimestamp": None}
                yield _line("BOOKMARK", {"apiVersion": "batch/v1", "kind": "Job", "metadata": about})
            if self._cut != cut:
                yield b'{"type": "MODI'
                raise ConnectionResetError("told to break off")

    # ── the cluster ───────────────────────────────────────────────────────────────────────────────

    def _begin(self, name: str) -> None:
        """The Job controller has seen the Job: a pod runs."""
        job = self._state.jobs.get(name)
        if job is None:
            return
        pod = self._pod_of(job)
        self._state.pods[pod["metadata"]["name"]] = pod
        job["status"] = {"active": 1, "startTime": _now()}
        self._put("MODIFIED", job)
        play = self._state.plays[name] = self._play_of(job)
        if play.runs_s is not None:
            self._loop.call_later(play.runs_s, self._finish, name, play)
        self._loop.call_later(job["spec"]["activeDeadlineSeconds"], self._expire, name)

    def _play_of(self, job: Json) -> Play:
        """As scripted; else what the type says."""
        told = environment_of(job)
        script = self._scripts.get(told["ORCH_TASK_ID"])
        if script:
            return script.pop(0) if len(script) > 1 else script[0]
        params = json.loads(told["ORCH_PARAMS"])
        match told["ORCH_TYPE"]:
            case "core.sleep":
                return Play(float(params.get("seconds", 0)))
            case "core.fail" if int(told["ORCH_ATTEMPT"]) <= params.get("times", 1_000_000):
                return Play(exit_code=1, message="told to fail")
            case "core.noop" | "core.echo" | "core.fail":
                return Play(log=told["ORCH_PARAMS"] + "\n")
        return HANGS

    def _pod_of(self, job: Json) -> Json:
        name = job["metadata"]["name"]
        labels = job["spec"]["template"]["metadata"]["labels"]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-x7k2p",
                "namespace": job["metadata"]["namespace"],
                "creationTimestamp": _now(),
                "labels": labels | {"job-name": name, "batch.kubernetes.io/job-name": name},
            },
            "spec": copy.deepcopy(job["spec"]["template"]["spec"]),
            "status": {"phase": "Running"},
        }

    def _finish(self, name: str, play: Play) -> None:
        job, pod = self._state.jobs.get(name), self._state.pods.get(f"{name}-x7k2p")
        if job is None or pod is None or has_ended(job):
            return
        well = play.exit_code == 0
        ended: Json = {"exitCode": play.exit_code, "reason": "Completed" if well else "Error"}
        if play.message:
            ended["message"] = play.message
        container = {"name": "task", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        container["state"] = {"terminated": ended}
        pod["status"] = {"phase": "Succeeded" if well else "Failed", "containerStatuses": [container]}
        self._state.logs[pod["metadata"]["name"]] = play.log
        if well:
            self._conclude(job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
        else:
            self._conclude(job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")

    def _expire(self, name: str) -> None:
        job = self._state.jobs.get(name)
        if job is not None and not has_ended(job):
            self._state.pods.pop(f"{name}-x7k2p", None)  # the controller deletes what still runs
            self._conclude(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")

    def _conclude(self, job: Json, kind: str, reason: str, message: str) -> None:
        """As the controller does since 1.31: first it says what it is about to say."""
        earlier = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[kind]
        job["status"]["conditions"] = [_condition(earlier, reason, message)]
        self._put("MODIFIED", job)
        job = self._state.jobs[job["metadata"]["name"]]
        job["status"] = {
            "startTime": job["status"]["startTime"],
            "succeeded" if kind == "Complete" else "failed": 1,
            "conditions": [*job["status"]["conditions"], _condition(kind, reason, message)],
        }
        if kind == "Complete":
            job["status"]["completionTime"] = _now()
        self._put("MODIFIED", job)

    def _delete(self, name: str, orphans: bool = False) -> None:
        job = self._state.jobs.pop(name, None)
        if job is not None:
            if not orphans:
                self._state.pods.pop(f"{name}-x7k2p", None)
            self._put("DELETED", job)

    def _put(self, kind: str, job: Json) -> None:
        state = self._state
        state.version += 1
        job["metadata"]["resourceVersion"] = str(state.version)
        if kind != "DELETED":
            state.jobs[job["metadata"]["name"]] = job
        state.history.append((state.version, kind, copy.deepcopy(job)))
        self._wake()

    def _compact(self) -> None:
        self._state.version += 1
        self._state.compacted = self._state.version
        self._state.history.clear()

    def _break_off(self) -> None:
        self._cut += 1
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def faults_of(job: Json) -> str:
    """What the API would refuse about a Job; empty = nothing."""
    try:
        kubernetes_validate.validate(job, RELEASE, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(str(step) for step in error.path)}: {error.message}"
    about, spec = job["metadata"], job["spec"]["template"]["spec"]
    if not _NAME.fullmatch(about["name"]) or len(about["name"]) > 63:
        return f"metadata.name: {about['name']!r} is no DNS label"
    for labels in (about.get("labels", {}), job["spec"]["template"]["metadata"].get("labels", {})):
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value) or len(value) > 63:
                return f"metadata.labels: {key}={value!r}"
    if spec.get("restartPolicy") not in ("Never", "OnFailure"):
        return "spec.template.spec.restartPolicy: Required value"
    if any(not container.get("image") for container in spec["containers"]):
        return "spec.template.spec.containers[0].image: Required value"
    return ""


def environment_of(job: Json) -> dict[str, str]:
    """What the Job's container sees: `$(NAME)` replaced, `$$` read as `$`."""
    seen: dict[str, str] = {}
    for each in job["spec"]["template"]["spec"]["containers"][0]["env"]:
        seen[each["name"]] = _expanded(each["value"], seen)
    return seen


def _expanded(value: str, seen: dict[str, str]) -> str:
    """https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/"""

    def meant(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else seen.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", meant, value)


def has_ended(job: Json) -> bool:
    """Is one of its final conditions true?"""
    return any(each["type"] in ("Complete", "Failed") for each in job.get("status", {}).get("conditions", ()))


def _condition(kind: str, reason: str, message: str) -> Json:
    moment = {"lastProbeTime": _now(), "lastTransitionTime": _now()}
    return {"type": kind, "status": "True", "reason": reason, "message": message} | moment


def _selected(thing: Json, selector: str) -> bool:
    labels = thing["metadata"].get("labels", {})
    key, equals, value = selector.partition("=")
    return not selector or (labels.get(key) == value if equals else key in labels)


def _status_object(code: int, reason: str, message: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }


def _status(code: int, reason: str, message: str) -> Response:
    return JSONResponse(_status_object(code, reason, message), code)


def _line(kind: str, thing: Json) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode() + b"\n"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
