"""Surface `instances`: orchestrator instances, plans and findings (contracts/instances.md).

Pause, resume, shutdown and skip may be repeated without harm, so a lost answer makes them be sent again. Starting
an instance and retrying a task may not: ServerUnreachable is raised, and `all` or `status` tells what is so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.client.follow import SILENCE_S, Event, Events, Following, follow, so_far
from orchestrator.client.script import ABSENT, Emit, Request, Script, get, json_of, part, path
from orchestrator.client.shapes.instances import (
    CommandResponse,
    FindingInfo,
    OrchestratorInfo,
    PlanInfo,
    StatusResponse,
    TaskInfo,
)

BASE = "/api/orchestrators"
_OVER = frozenset({"stopped", "crashed"})


# -- instances


def start(
    plan: str,
    *,
    executor: str | None = None,
    batch_size: int | None = None,
    max_iterations: int | None = None,
    max_retries: int | None = None,
) -> Script[OrchestratorInfo]:
    """An instance works on the plan. Raises Conflicting when one does already."""
    body = {"plan": plan, "executor": executor, "batch_size": batch_size}
    body |= {"max_iterations": max_iterations, "max_retries": max_retries}
    given = {name: value for name, value in body.items() if value is not None}
    return json_of(Request(method="POST", path=BASE, body=given))


def list_instances() -> Script[list[OrchestratorInfo]]:
    """Instances that live, or ended a short while ago; oldest first."""
    return get(BASE)


def get_instance(instance_id: str) -> Script[OrchestratorInfo]:
    """One of them."""
    return get(path(BASE + "/{}", instance_id))


def status(instance_id: str) -> Script[StatusResponse]:
    """How far it is."""
    return get(path(BASE + "/{}/status", instance_id))


def pause(instance_id: str) -> Script[CommandResponse]:
    """It starts no further task. Raises NotRunning when it has ended."""
    return _command(instance_id, "pause")


def resume(instance_id: str) -> Script[CommandResponse]:
    """It starts tasks again. Raises NotRunning when it has ended."""
    return _command(instance_id, "resume")


def shutdown(instance_id: str, *, force: bool = False) -> Script[CommandResponse]:
    """It ends after the current batch, or with `force` now. Raises NotRunning when it has ended."""
    return _command(instance_id, "shutdown", query={"force": "true" if force else "false"})


def skip_task(instance_id: str, task_id: str, reason: str | None = None) -> Script[CommandResponse]:
    """The task counts as done; also on an instance that has ended."""
    return _command(instance_id, "skip-task", body={"task_id": task_id, "reason": reason})


def retry_task(instance_id: str, task_id: str) -> Script[CommandResponse]:
    """A failed or skipped task is pending again."""
    return _command(instance_id, "retry-task", body={"task_id": task_id}, repeatable=False)


def events(instance_id: str, after: str | int | None = None) -> Events:
    """What happens to an instance: `initial_status`, then what changes, until it has stopped.

    With `after`, a `seq`, what came after that. On each new connection `initial_status` comes again: events so old
    that the server has dropped them are covered by it. `data` of an event is its envelope.
    """
    return follow(_InstanceEvents(instance_id, after))


def history(instance_id: str, after: str | int | None = None) -> Events:
    """What has happened to an instance so far, from its beginning or after an event on."""
    return so_far(_InstanceEvents(instance_id, after))


# -- plans


def list_plans() -> Script[list[PlanInfo]]:
    """Plan files by name."""
    return get("/api/plans")


def plan_status(plan: str) -> Script[StatusResponse]:
    """How far a plan is."""
    return get(path("/api/plans/{}/status", plan))


def plan_tasks(plan: str) -> Script[list[TaskInfo]]:
    """Its tasks, in order."""
    return get(path("/api/plans/{}/tasks", plan))


def list_findings(plan: str) -> Script[list[FindingInfo]]:
    """What its tasks left behind."""
    return get(path("/api/plans/{}/findings", plan))


def finding(plan: str, task_id: str) -> Script[str]:
    """The text of one finding."""
    return part(get(path("/api/plans/{}/findings/{}", plan, task_id)), "content")


class _InstanceEvents:
    """Ids are `seq`; a fresh connection's `initial_status` carries the latest, a resumed one's carries none."""

    def __init__(self, instance_id: str, after: str | int | None) -> None:
        self._path = path(BASE + "/{}/events-sse", instance_id)
        self._last = None if after is None else int(after)
        self._stopped = False

    def request(self) -> Request:
        headers = {} if self._last is None else {"Last-Event-ID": str(self._last)}
        return Request(method="GET", path=self._path, headers=headers, repeatable=True, timeout_s=SILENCE_S)

    def take(self, event: Event) -> Following[bool]:
        match event.kind:
            case "ping":
                return False
            case "initial_status":
                return (yield from self._snapshot(event))
        number = -1 if event.id is None else int(event.id)
        if self._last is None or number > self._last:
            self._last = number
            yield Emit(event)
        return event.kind == "orchestrator_state" and _data(event).get("new_state") in _OVER

    def ended(self) -> bool:
        return self._stopped

    def _snapshot(self, event: Event) -> Following[bool]:
        """True for an instance that had stopped before we came."""
        yield Emit(event)
        self._stopped = _data(event).get("status") in _OVER
        if event.id is None:
            return False
        self._last = int(event.id)
        return self._stopped


def _data(event: Event) -> Mapping[str, Any]:
    data = event.data.get("data")
    return data if isinstance(data, dict) else {}


def _command(
    instance_id: str,
    verb: str,
    *,
    query: Mapping[str, str] | None = None,
    body: object = ABSENT,
    repeatable: bool = True,
) -> Script[CommandResponse]:
    where = path(BASE + "/{}/" + verb, instance_id)
    request = Request(method="POST", path=where, query=query or {}, body=body, repeatable=repeatable)
    return json_of(request)
