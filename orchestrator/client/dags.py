"""Surface `dags`: definitions, runs, backfills (contracts/dags.md).

Every command carries an `X-Request-Id`, so it may be sent again after a lost answer and still is done once. Days
are `date`s or text `YYYY-MM-DD`, both inclusive; a manual run may have instants instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from orchestrator import bundle
from orchestrator.bundle_folder import read_folder
from orchestrator.client.follow import SILENCE_S, Event, Events, Following, follow, so_far
from orchestrator.client.script import (
    TIMEOUT_S,
    Emit,
    Request,
    Script,
    Stream,
    Wait,
    get,
    json_of,
    keyed,
    now,
    part,
    path,
)
from orchestrator.client.shapes.cluster import (
    DagsBundleDeployed,
    DagsBundleStored,
    DagsBundleView,
    DagsLimitDeleted,
    DagsLimitView,
    DagsPlane,
    DagsSweepView,
)
from orchestrator.client.shapes.dag_runs import (
    DagsApproval,
    DagsBatchItem,
    DagsEventTold,
    DagsLog,
    DagsMapInstance,
    DagsPlan,
    DagsPublished,
    DagsRun,
    DagsRunChanged,
    DagsRunSummary,
    DagsSignalSent,
    DagsTaskChanged,
    DagsTriggered,
    DagsWaiting,
    DagsWider,
)
from orchestrator.client.shapes.dags import DagsAsset, DagsDagDefined, DagsDagView, DagsPreview, DagsUncached

BASE = "/api/v1/runtime/orchestrator"
ENDED = frozenset({"success", "failed", "cancelled"})

Day: TypeAlias = str | date
#: a value, or values by name; values, or lists of them by name whose product is meant
Partition: TypeAlias = str | Mapping[str, str]
Partitions: TypeAlias = Sequence[str] | Mapping[str, Sequence[str]]
Reprocess: TypeAlias = Literal["none", "failed", "completed"]

#: the longest wait a server takes upon itself, in whole seconds
_LONG_POLL_S = 60
_PAGE = 200
#: a server may install and import a bundle for so long
_CHECK_S = 420.0


# -- definitions


def define(dag: Mapping[str, Any]) -> Script[DagsDagDefined]:
    """The DAG is the current one of its `dag_id`; the same content keeps the version."""
    return _post("/dags", dag)


def get_dag(dag_id: str) -> Script[DagsDagView]:
    """The current version of a DAG."""
    return get(path(BASE + "/dags/{}", dag_id))


def list_dags(*, status: Literal["active", "paused"] | None = None, owner: str | None = None) -> Stream[DagsDagView]:
    """DAGs by id, page by page."""
    return _pages("/dags", status=status, owner=owner)


def preview_dag(dag_id: str, *, n: int = 10, start: datetime | None = None) -> Script[DagsPreview]:
    """When its schedule fires next, from `start` (aware; None = now), and what its calendar skips."""
    since = None if start is None else _day(start)
    return get(path(BASE + "/dags/{}/schedule/preview", dag_id), n=n, **_given(**{"from": since}))


def pause_dag(dag_id: str, reason: str | None = None) -> Script[DagsDagDefined]:
    """Nothing of the DAG starts any more."""
    return _post(path("/dags/{}/pause", dag_id), _given(reason=reason))


def resume_dag(dag_id: str, reason: str | None = None) -> Script[DagsDagDefined]:
    """Runs of the DAG start again."""
    return _post(path("/dags/{}/resume", dag_id), _given(reason=reason))


def uncache(dag_id: str, task: str | None = None) -> Script[DagsUncached]:
    """Its tasks, or one of them, use no result of an attempt that has begun by now."""
    where = path(BASE + "/dags/{}/cache", dag_id)
    return json_of(Request(method="DELETE", path=where, query=_given(task=task), repeatable=True))


# -- starting runs


def trigger(
    dag_id: str,
    *,
    params: Mapping[str, Any] | None = None,
    start: Day | None = None,
    end: Day | None = None,
    partition: Partition | None = None,
    reprocess: Reprocess | None = None,
    key: str | None = None,
) -> Script[DagsTriggered]:
    """A manual run exists, durably. `key` names the command: the same key gives the same run for 24 h."""
    wanted = _trigger(dag_id, start, end, partition=partition, params=params, reprocess=reprocess)
    return _post("/runs", wanted, key)


def trigger_by_event(dag_id: str, event_id: str, data: Mapping[str, Any] | None = None) -> Script[DagsTriggered]:
    """The run of that event exists, durably; told again, at whatever time, the event starts nothing (`duplicate`)."""
    return _post(path("/dags/{}/trigger/{}", dag_id, event_id), data)


def tell(name: str, event_id: str, payload: Mapping[str, Any] | None = None) -> Script[DagsEventTold]:
    """Every DAG with `on_event=name` has a run because of the event; told again, however late, it starts nothing."""
    return _post("/events", _given(name=name, id=event_id, payload=payload))


def list_assets() -> Script[list[DagsAsset]]:
    """Assets that DAGs name, or that were updated: who updates and who consumes them, and their latest updates."""
    return part(get(f"{BASE}/assets"), "items")


def get_asset(name: str) -> Script[DagsAsset]:
    """One of them."""
    return get(path(BASE + "/assets/{}", name))


def trigger_many(runs: Iterable[Mapping[str, Any]], *, key: str | None = None) -> Script[list[DagsBatchItem]]:
    """Many manual runs (`{"dag_id": …, "params": …}`) in one durable step; a bad entry fails alone."""
    return part(_post("/runs/batch", {"runs": list(runs)}, key), "runs")


def backfill(
    dag_id: str,
    start: Day | None = None,
    end: Day | None = None,
    *,
    partitions: Partitions | None = None,
    params: Mapping[str, Any] | None = None,
    reprocess: Reprocess | None = None,
    backwards: bool = False,
    max_active_runs: int | None = None,
    plan_hash: str | None = None,
    key: str | None = None,
) -> Script[DagsTriggered]:
    """A run for each window from `start` to `end`; the same days again are the same backfill.

    Without days it is over `partitions`, or over those that the DAG declares.

    With the `plan_hash` of a dry run it does exactly what that said, or raises Conflicting.
    """
    more: dict[str, Any] = {"partitions": partitions, "params": params, "reprocess": reprocess}
    more |= {"max_active_runs": max_active_runs, "plan_hash": plan_hash}
    wanted = _trigger(dag_id, start, end, run_type="backfill", run_backwards=backwards or None, **more)
    return _post("/runs", wanted, key)


def dry_run(
    dag_id: str,
    start: Day | None = None,
    end: Day | None = None,
    *,
    partitions: Partitions | None = None,
    reprocess: Reprocess | None = None,
    backwards: bool = False,
) -> Script[DagsPlan]:
    """What the backfill would do; nothing is stored."""
    more = {"run_type": "backfill", "dry_run": True, "reprocess": reprocess, "run_backwards": backwards or None}
    return _post("/runs", _trigger(dag_id, start, end, partitions=partitions, **more))


# -- runs


def get_run(run_id: str) -> Script[DagsRun]:
    """A run as it is now."""
    return get(path(BASE + "/runs/{}", run_id))


def list_runs(
    *,
    dag_id: str | None = None,
    state: str | None = None,
    run_type: str | None = None,
    parent_run_id: str | None = None,
    archived: bool = False,
) -> Stream[DagsRunSummary]:
    """Runs, newest first, page by page; those that left for the archive, or those that did not."""
    filters = {"dag_id": dag_id, "state": state, "run_type": run_type, "parent_run_id": parent_run_id}
    return _pages("/runs", **filters, archived="true" if archived else None)


def wait(run_id: str, timeout_s: float | None = None) -> Script[DagsRun]:
    """The run once it has ended. Raises TimeoutError after `timeout_s`; the run goes on."""
    until = None if timeout_s is None else (yield from now()) + timeout_s
    while True:
        asked_at = yield from now()
        left_s = _LONG_POLL_S if until is None else max(0, min(_LONG_POLL_S, round(until - asked_at)))
        run: DagsRun = yield from _long_poll(run_id, left_s)
        if run["state"] in ENDED:
            return run
        passed_at = yield from now()
        if until is not None and passed_at >= until:
            raise TimeoutError(f"{run_id} is still {run['state']} after {timeout_s} s")
        if passed_at - asked_at < left_s / 2 or not left_s:  # the server could not wait
            yield Wait(0.1, 0.2)


def cancel(run_id: str) -> Script[DagsRunChanged]:
    """The run, or every unfinished window of a backfill, ends as cancelled."""
    return _post(path("/runs/{}/cancel", run_id))


def pause_run(run_id: str) -> Script[DagsRunChanged]:
    """No further task of the run, or window of the backfill, starts; what runs goes on."""
    return _post(path("/runs/{}/pause", run_id))


def resume_run(run_id: str) -> Script[DagsRunChanged]:
    """Tasks of the run start again."""
    return _post(path("/runs/{}/resume", run_id))


def widen(
    run_id: str,
    start: Day | None = None,
    end: Day | None = None,
    *,
    partitions: Partitions | None = None,
    params: Mapping[str, Any] | None = None,
    reprocess: Reprocess | None = None,
    plan_hash: str | None = None,
    key: str | None = None,
) -> Script[DagsWider]:
    """A backfill that goes on is over these days, or partitions, too; what it has already stays as it is."""
    more = {"params": params, "reprocess": reprocess, "plan_hash": plan_hash}
    return _post(path("/runs/{}/widen", run_id), _widening(start, end, partitions, **more), key)


def plan_widening(
    run_id: str,
    start: Day | None = None,
    end: Day | None = None,
    *,
    partitions: Partitions | None = None,
    reprocess: Reprocess | None = None,
) -> Script[DagsPlan]:
    """What `widen` would do; nothing is stored."""
    body = _widening(start, end, partitions, reprocess=reprocess, dry_run=True)
    return _post(path("/runs/{}/widen", run_id), body)


def cap(run_id: str, max_active_runs: int | None) -> Script[DagsRunChanged]:
    """At most so many windows of the backfill run at a time from now on; None = as many as the DAG allows."""
    return _post(path("/runs/{}/cap", run_id), {"max_active_runs": max_active_runs})


def retry(run_id: str) -> Script[DagsRunChanged]:
    """Every failed task of the run is pending again; what is done is kept."""
    return _post(path("/runs/{}/retry", run_id))


def retry_task(run_id: str, task: str) -> Script[DagsTaskChanged]:
    """The task, and what failed because of it, is pending again."""
    return _post(path("/runs/{}/tasks/{}/retry", run_id, task))


def skip_task(run_id: str, task: str) -> Script[DagsTaskChanged]:
    """Dependents proceed as if the task were done."""
    return _post(path("/runs/{}/tasks/{}/skip", run_id, task))


def map_instances(run_id: str, task: str, *, state: str | None = None) -> Stream[DagsMapInstance]:
    """Instances of a mapped task by index, page by page; with `state` only those in it. Ids such as `work[3]` are
    accepted wherever a task's is.
    """
    return _pages(path("/runs/{}/tasks/{}/instances", run_id, task), state=state)


def signal(
    run_id: str, name: str, data: Any = None, *, signal_id: str | None = None, key: str | None = None
) -> Script[DagsSignalSent]:
    """The run has the signal, durably, for the next task that waits for that name.

    A second one with the same `signal_id`, in this life of the run, is the first one.
    """
    return _post(path("/runs/{}/signals/{}", run_id, name), _given(signal_id=signal_id) | {"data": data}, key)


def approvals(*, dag_id: str | None = None, run_id: str | None = None) -> Script[list[DagsApproval]]:
    """Open approvals, oldest first."""
    return part(get(BASE + "/approvals", dag_id=dag_id, run_id=run_id), "items")


def decide(
    run_id: str,
    task: str,
    choice: str,
    *,
    comment: str | None = None,
    by: str | None = None,
    attempt: int | None = None,
    key: str | None = None,
) -> Script[DagsTaskChanged]:
    """A vote on an approval. `by` names whose it is, which needs scope admin. Raises Conflicting when it is late."""
    told = _given(choice=choice, comment=comment, by=by, attempt=attempt)
    return _post(path("/runs/{}/tasks/{}/decision", run_id, task), told, key)


def query(run_id: str, name: str) -> Script[DagsPublished]:
    """What the run's tasks published under a name last; `progress` and `waiting_for` are built in."""
    return get(path(BASE + "/runs/{}/query/{}", run_id, name))


def queries(run_id: str) -> Script[list[DagsPublished]]:
    """Everything the run answers, by name."""
    return part(get(path(BASE + "/runs/{}/query", run_id)), "items")


def logs(run_id: str, task: str, attempt: int | None = None) -> Script[list[DagsLog]]:
    """What a task has written, oldest attempt first."""
    return part(get(path(BASE + "/runs/{}/tasks/{}/logs", run_id, task), attempt=attempt), "items")


def events(run_id: str, after: str | int | None = None) -> Events:
    """What happens to a run, from its beginning or after an event on: run_state, task_state, …, at last `end`."""
    return follow(_RunEvents(run_id, after))


def history(run_id: str, after: str | int | None = None) -> Events:
    """What has happened to a run so far, from its beginning or after an event on."""
    return so_far(_RunEvents(run_id, after))


class _RunEvents:
    """Ids count 1, 2, 3…; `end` comes last, and after that the answer is 204."""

    def __init__(self, run_id: str, after: str | int | None) -> None:
        self._path = path(BASE + "/runs/{}/events", run_id)
        self._last = 0 if after is None else int(after)

    def request(self) -> Request:
        headers = {"Last-Event-ID": str(self._last)} if self._last else {}
        return Request(method="GET", path=self._path, headers=headers, repeatable=True, timeout_s=SILENCE_S)

    def take(self, event: Event) -> Following[bool]:
        number = None if event.id is None else int(event.id)
        if number is None or number > self._last:
            self._last = self._last if number is None else number
            yield Emit(event)
        return event.kind == "end"

    def ended(self) -> bool:
        return False


# -- limits on tasks that run


def waiting(run_id: str) -> Script[list[DagsWaiting]]:
    """Ready tasks of a run that have not started, and what each waits for."""
    return part(get(path(BASE + "/runs/{}/waiting", run_id)), "items")


def list_limits() -> Script[list[DagsLimitView]]:
    """Limits that are defined or in use, with what is in use of them and how many tasks wait."""
    return part(get(f"{BASE}/limits"), "items")


def get_limit(name: str) -> Script[DagsLimitView]:
    """One that is defined."""
    return get(path(BASE + "/limits/{}", name))


def set_limit(
    name: str, *, max_running: int | None = None, rate: tuple[int, float] | None = None
) -> Script[DagsLimitView]:
    """At most `max_running` permits in use; with `rate` (n, seconds) at most n starts in any span of that length."""
    body = {"max_running": max_running, "rate": {"count": rate[0], "per_s": rate[1]} if rate is not None else None}
    where = path(BASE + "/limits/{}", name)
    return json_of(Request(method="PUT", path=where, body=body, repeatable=True))


def delete_limit(name: str) -> Script[DagsLimitDeleted]:
    """Forget a limit: tasks that name it are only counted."""
    return json_of(Request(method="DELETE", path=path(BASE + "/limits/{}", name)))


# -- the archive


def sweep_archive(older_than_s: int, to: str | None = None, *, key: str | None = None) -> Script[DagsSweepView]:
    """Runs that ended longer ago leave for the archive, at an absolute folder or fsspec URL; this does not wait."""
    return _post("/archive", {"older_than_s": older_than_s} | ({} if to is None else {"to": to}), key)


def list_sweeps() -> Script[list[DagsSweepView]]:
    """What is under way to the archive, and what went there last; the latest first."""
    return part(get(f"{BASE}/archive"), "items")


# -- bundles of code


def put_bundle(packed: bytes) -> Script[DagsBundleStored]:
    """Keep a bundle (`orchestrator.bundle.pack`) on the server, which has to allow it; nothing of it runs yet."""
    where = path(BASE + "/bundles/{}", bundle.id_of(packed))
    headers = {"Content-Type": "application/octet-stream"}
    request = Request(method="PUT", path=where, headers=headers, content=packed, repeatable=True, timeout_s=_CHECK_S)
    return json_of(request)


def deploy_bundle(bundle_id: str, *, key: str | None = None) -> Script[DagsBundleDeployed]:
    """A bundle that is there is checked by importing it, and its DAGs are the current ones."""
    where = path(BASE + "/bundles/{}/deploy", bundle_id)
    return keyed(Request(method="POST", path=where, body={}, timeout_s=_CHECK_S), "X-Request-Id", key)


def deploy_folder(folder: str | Path, *, key: str | None = None) -> Script[DagsBundleDeployed]:
    """The DAGs in a folder of this machine, with the code there, are the server's current ones."""
    stored = yield from put_bundle(bundle.pack(read_folder(Path(folder))))
    return (yield from deploy_bundle(stored["bundle"], key=key))


def list_bundles() -> Script[list[DagsBundleView]]:
    """Bundles that are kept, those last sent or deployed first."""
    return part(get(f"{BASE}/bundles"), "items")


def delete_bundle(bundle_id: str) -> Script[bool]:
    """A bundle that nobody needs is gone: True. Refused with 409 when a version or a run needs it."""
    return part(json_of(Request(method="DELETE", path=path(BASE + "/bundles/{}", bundle_id))), "deleted")


def prune_bundles(older_than_s: int | None = None) -> Script[list[str]]:
    """Bundles that nobody needs, and nobody touched for so long (an hour), are gone; their ids."""
    query = {} if older_than_s is None else {"older_than_s": older_than_s}
    return part(json_of(Request(method="DELETE", path=f"{BASE}/bundles", query=query, repeatable=True)), "items")


# -- control planes


def plane() -> Script[DagsPlane]:
    """Which control plane is in charge of the journal, and whether it is the one asked."""
    return get(f"{BASE}/plane")


def take_over(*, key: str | None = None) -> Script[DagsPlane]:
    """Let the server asked be in charge; this does not wait."""
    return _post("/plane/takeover", None, key)


# -- inside


def _post(below: str, body: Mapping[str, Any] | None = None, key: str | None = None) -> Script[Any]:
    request = Request(method="POST", path=BASE + below, body=body or {})
    return keyed(request, "X-Request-Id", key)


def _long_poll(run_id: str, wait_s: int) -> Script[DagsRun]:
    where = path(BASE + "/runs/{}", run_id)
    request = Request(method="GET", path=where, query={"wait_s": wait_s}, repeatable=True, timeout_s=TIMEOUT_S + wait_s)
    return json_of(request)


def _pages(below: str, **filters: str | None) -> Stream[Any]:
    cursor: str | None = None
    while True:
        page = yield from get(BASE + below, limit=_PAGE, cursor=cursor, **filters)
        for item in page["items"]:
            yield Emit(item)
        cursor = page.get("next_cursor")
        if cursor is None:
            return


def _trigger(dag_id: str, start: Day | None, end: Day | None, **more: object) -> dict[str, Any]:
    return _given(dag_id=dag_id, to=_day(end), **{"from": _day(start)}, **more)


def _widening(start: Day | None, end: Day | None, partitions: Partitions | None, **more: object) -> dict[str, Any]:
    return _given(to=_day(end), partitions=partitions, **{"from": _day(start)}, **more)


def _given(**body: object) -> dict[str, Any]:
    """`body` without what was not given."""
    return {name: value for name, value in body.items() if value is not None}


def _day(day: Day | None) -> str | None:
    """RFC 3339: a date, or for a datetime an instant in UTC."""
    match day:
        case datetime():
            return day.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return day.isoformat()
    return day
