"""The actor that runs attempts as Kubernetes Jobs: any number at once, each for as long as its Job lasts.

    RunActor ── exchange(JobOrder) ──▶ create the Job, or adopt the one that has its name ──▶ wait for its end
             ◀─ Settled(one report) ── log into the journal, last words into the report ◀── one watch for all
             ── cancel ──────────────▶ delete it, background propagation

What is durable is the Job itself, under a name that follows from the attempt. So nothing has to be remembered here,
and nothing is claimed back: whoever finds out that this actor or its caller was replaced sends the same order again,
and the Job is adopted, running or ended. An order that comes twice waits for the same Job.

Until a Job exists, silence of the API and 5xx are met again and again, for as long as the attempt may last; 4xx is
final. After that only the watch tells (`kubernetes_watch.py`): nothing is polled. `activeDeadlineSeconds` ends a Job
that takes too long; should the cluster not do so, this actor does, OVERDUE_S later. Contract: `runs.md`, section 3.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import msgspec

from actors.attempt_log import LOG_MAX, AttemptLog, LogSink, Shipper
from actors.clock import Clock
from actors.kubernetes_cluster import Cluster, ClusterRefused, ClusterUnavailable
from actors.kubernetes_watch import JobWatch
from actors.names import KUBERNETES
from actors.settings import Settings
from orchestrator import actor_codec
from orchestrator.errors import PermanentFailure
from orchestrator.kubernetes_job import End, Json, Key, end_of, job_name, job_of, told
from orchestrator.messages import JobOrder, Report, Settled, Value

_log = logging.getLogger(__name__)
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

#: calls to the API at a time, the watch apart
CALLS_MAX = 8
#: pause before a call is made again; doubles up to the cap
PAUSE_S, PAUSE_MAX_S = 0.2, 10.0
#: seconds after its limit at which a Job that the cluster does not end is given up
OVERDUE_S = 60.0
#: for how long the API is asked to delete a Job
DELETE_FOR_S = 600.0
#: tries to get the log and the last words of an ended Job
READ_TRIES = 3
#: what is remembered at most: how attempts ended, cancels of attempts that have not arrived, and callers
REPORTS_MAX, EARLY_MAX, OWNERS_MAX = 1000, 10_000, 10_000

_NULL = Value(msgspec.Raw(b"null"), None, 4)


@dataclass(frozen=True, slots=True)
class Stopped:
    """We end the attempt ourselves. `outcome` is what its report will say."""

    #: cancelled | timed_out
    outcome: str
    why: str


@dataclass(slots=True, eq=False)
class _Attempt:
    """An order and the Job it became."""

    order: JobOrder
    name: str
    over: asyncio.Future[End | Stopped | ClusterRefused]
    #: when the Job was known to exist, monotonic seconds; None = it is not yet
    exists_s: float | None = None
    #: what the API said last
    trouble: str = ""
    limit: asyncio.TimerHandle | None = None
    outcome: asyncio.Task[Report] = field(init=False)

    def end(self, how: End | Stopped | ClusterRefused) -> bool:
        """Once: what comes later has no effect, and is answered False."""
        if self.over.done():
            return False
        self.over.set_result(how)
        return True

    def report(self, outcome: str, error: str | None = None, *, permanent: bool = False) -> Report:
        """What the caller is told."""
        task = self.order.task
        value = _NULL if outcome == "ok" else Value()
        return Report(task.run_id, task.task, task.attempt, outcome, value, error, permanent)


class KubernetesActor:
    """`start` returns at once; the watch begins in its own thread."""

    def __init__(self, cluster: Cluster, logs: LogSink, clock: Clock, settings: Settings) -> None:
        self._cluster = cluster
        self._shipper = Shipper(logs)
        self._clock = clock
        self._image = settings.k8s_image
        self._calls = ThreadPoolExecutor(CALLS_MAX, "kubernetes")
        #: attempts that have not ended, by key and by the name of their Job
        self._attempts: dict[Key, _Attempt] = {}
        self._by_name: dict[str, _Attempt] = {}
        #: how attempts ended, for callers that were replaced meanwhile
        self._reports: dict[Key, Report] = {}
        #: cancelled before they arrived -> why
        self._early: dict[Key, str] = {}
        #: caller -> its latest incarnation
        self._epochs: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopped = threading.Event()
        self._watch = JobWatch(cluster, self, clock.monotonic, self._stopped.wait)
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Begin to watch."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch_on, name="kubernetes-watch", daemon=True).start()

    def stop(self) -> None:
        """End all that goes on here, once the open watch ends; the Jobs go on."""
        self._stopped.set()
        self._calls.shutdown(wait=False, cancel_futures=True)
        for task in self._tasks:
            task.cancel()

    # ── what RunActors call ───────────────────────────────────────────────────────────────────────

    async def exchange(self, blob: bytes) -> bytes:
        """Run one attempt (messages.JobOrder); answers a Settled once it has ended."""
        order = actor_codec.decode_job_order(blob)
        key = (order.task.run_id, order.task.task, order.task.attempt)
        if self._is_late(order):
            return actor_codec.encode_settled(Settled(KUBERNETES, KUBERNETES, 0, (), (key,)))
        report = self._reports.get(key)
        if report is None:
            attempt = self._attempts.get(key) or self._begin(key, order)
            report = await asyncio.shield(attempt.outcome)
        return actor_codec.encode_settled(Settled(KUBERNETES, KUBERNETES, 0, (report,)))

    async def cancel(self, run_id: str, task: str, attempt: int, reason: str) -> bool:
        """Delete the attempt's Job. True when its report will say `reason` (`cancelled`, `timed_out`)."""
        key = (run_id, task, attempt)
        known = self._attempts.get(key)
        if known is not None:
            return known.end(Stopped(reason, reason))
        if key not in self._reports:
            _keep(self._early, key, reason, EARLY_MAX)
            self._spawn(self._delete(job_name(key)))
        return False

    async def ping(self) -> int:
        """Number of attempts that run."""
        return len(self._attempts)

    def _is_late(self, order: JobOrder) -> bool:
        """Does it come from a former incarnation of its caller?"""
        known = self._epochs.pop(order.owner, 0)
        _keep(self._epochs, order.owner, max(known, order.epoch), OWNERS_MAX)
        return order.epoch < known

    # ── one attempt ───────────────────────────────────────────────────────────────────────────────

    def _begin(self, key: Key, order: JobOrder) -> _Attempt:
        attempt = _Attempt(order, job_name(key), asyncio.get_running_loop().create_future())
        self._attempts[key] = self._by_name[attempt.name] = attempt
        if (reason := self._early.pop(key, None)) is not None:
            attempt.end(Stopped(reason, f"{reason} before it started"))
        attempt.outcome = self._spawn(self._see_through(key, attempt))
        return attempt

    async def _see_through(self, key: Key, attempt: _Attempt) -> Report:
        """How the attempt ended; an error that nobody foresaw fails this one only."""
        began_s = self._clock.monotonic()
        try:
            report = await self._run(attempt)
        except Exception as error:
            _log.exception("attempt %s", key)
            report = attempt.report("error", f"{type(error).__name__}: {error}")
        finally:
            del self._attempts[key], self._by_name[attempt.name]
        report = msgspec.structs.replace(report, took_s=self._clock.monotonic() - began_s)
        _keep(self._reports, key, report, REPORTS_MAX)
        return report

    async def _run(self, attempt: _Attempt) -> Report:
        try:
            job = job_of(attempt.order, self._image)
        except PermanentFailure as failure:
            return attempt.report("error", str(failure), permanent=True)
        timeout_s = attempt.order.task.timeout_s
        self._limit(attempt, timeout_s, "the cluster had no Job by then")
        await self._create(attempt, job)
        self._limit(attempt, timeout_s + OVERDUE_S, "the cluster did not end the Job")
        how = await attempt.over
        if attempt.limit is not None:
            attempt.limit.cancel()
        return await self._conclude(attempt, how)

    def _limit(self, attempt: _Attempt, seconds: float, why: str) -> None:
        if attempt.limit is not None:
            attempt.limit.cancel()

        def overrun() -> None:
            trouble = attempt.trouble or self._watch.trouble
            attempt.end(Stopped("timed_out", f"timed out after {seconds:g} s: {why}{trouble and f'; {trouble}'}"))

        attempt.limit = asyncio.get_running_loop().call_later(seconds, overrun)

    async def _create(self, attempt: _Attempt, job: Json) -> None:
        """The Job exists, or the attempt is over."""
        for pause_s in _pauses():
            if attempt.over.done():
                return
            try:
                made = await self._call(self._cluster.create, job)
                known = job if made else await self._call(self._cluster.read, attempt.name)
            except ClusterRefused as refused:
                attempt.end(refused)
            except ClusterUnavailable as unavailable:
                attempt.trouble = str(unavailable)
                _log.warning("Job %s: %s", attempt.name, unavailable)
                await asyncio.wait({attempt.over}, timeout=pause_s)
            else:
                attempt.exists_s, attempt.trouble = self._clock.monotonic(), ""
                self._look(attempt, known)
                return

    async def _conclude(self, attempt: _Attempt, how: End | Stopped | ClusterRefused) -> Report:
        match how:
            case Stopped():
                await self._delete(attempt.name)
                await self._last_of(attempt)
                return attempt.report(how.outcome, how.why)
            case ClusterRefused():
                return attempt.report("error", f"the Kubernetes API refused the Job: {how}", permanent=True)
            case End(kind="complete"):
                await self._last_of(attempt)
                return attempt.report("ok")
            case End():
                outcome = "timed_out" if how.kind == "timed_out" else "error"
                return attempt.report(outcome, told(how, await self._last_of(attempt)))

    async def _last_of(self, attempt: _Attempt) -> Json | None:
        """The pod, if it is still there; its log is kept."""
        pod = await self._read(partial(self._cluster.pod_of, attempt.name))
        if pod is not None:
            await self._read(partial(self._keep_log, attempt, pod))
        return pod

    async def _delete(self, name: str) -> None:
        deadline_s = self._clock.monotonic() + DELETE_FOR_S
        for pause_s in _pauses():
            try:
                return await self._call(self._cluster.delete, name)
            except ClusterUnavailable as unavailable:
                if self._clock.monotonic() >= deadline_s:
                    return _log.error("Job %s stays until its deadline: %s", name, unavailable)
            except ClusterRefused as refused:
                return _log.error("Job %s stays until its deadline: %s", name, refused)
            await asyncio.sleep(pause_s)

    async def _read(self, read: Callable[[], T]) -> T | None:
        """Something that is good to know, and that no report waits for long; None when it cannot be had."""
        for pause_s, _ in zip(_pauses(), range(READ_TRIES), strict=False):
            try:
                return await self._call(read)
            except ClusterUnavailable as unavailable:
                _log.warning("%s", unavailable)
                await asyncio.sleep(pause_s)
            except ClusterRefused as refused:
                _log.warning("%s", refused)
                break
        return None

    def _keep_log(self, attempt: _Attempt, pod: Json) -> None:
        """The pod's log is the attempt's log. Runs in a thread."""
        text = self._cluster.log_of(pod, LOG_MAX + 1)
        task = attempt.order.task
        log = AttemptLog(task.run_id, task.task, task.attempt, self._shipper)
        log.write(text)
        log.close()

    # ── what the watch tells ──────────────────────────────────────────────────────────────────────

    def _watch_on(self) -> None:
        try:
            self._watch.run()
        except Exception:
            if not self._stopped.is_set():
                _log.critical("the watch of Jobs failed", exc_info=True)
                self.on_crash()

    def listed(self, jobs: list[Json], asked_s: float) -> None:
        """`kubernetes_watch.Listener`, from the watching thread into the event loop."""
        self._loop.call_soon_threadsafe(self.take_list, jobs, asked_s)

    def changed(self, kind: str, job: Json) -> None:
        """As `listed`."""
        self._loop.call_soon_threadsafe(self.take_change, kind, job)

    def take_list(self, jobs: list[Json], asked_s: float) -> None:
        """All Jobs there are; asked for at that monotonic instant."""
        present = {job["metadata"]["name"]: job for job in jobs}
        for name, attempt in list(self._by_name.items()):
            if name in present:
                self._look(attempt, present[name])
            elif attempt.exists_s is not None and attempt.exists_s < asked_s:
                self._look(attempt, None)

    def take_change(self, kind: str, job: Json) -> None:
        """What became of one Job."""
        attempt = self._by_name.get(job["metadata"]["name"])
        if attempt is not None and not self._look(attempt, job) and kind == "DELETED":
            self._look(attempt, None)

    def _look(self, attempt: _Attempt, job: Json | None) -> bool:
        """Has the attempt's Job ended?"""
        end = End("gone", "the Job was deleted before it had ended") if job is None else end_of(job)
        return end is not None and attempt.end(end)

    # ── small things ──────────────────────────────────────────────────────────────────────────────

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._calls, function, *args)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def on_crash(self) -> None:
        """An unforeseen error: let the process end and be restarted (set by whoever made this actor)."""


def _keep(remembered: dict[K, V], key: K, value: V, most: int) -> None:
    remembered[key] = value
    if len(remembered) > most:
        del remembered[next(iter(remembered))]


def _pauses() -> Iterator[float]:
    pause_s = PAUSE_S
    while True:
        yield pause_s
        pause_s = min(PAUSE_MAX_S, 2 * pause_s)
