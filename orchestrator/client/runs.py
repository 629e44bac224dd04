"""Surface `runs`: runs and their checkpoints (contracts/runs.md).

A run is created with an `Idempotency-Key`, so it may be asked for again after a lost answer. A checkpoint has
none: when its answer is lost, ServerUnreachable is raised and the caller looks whether it is there.

Following a run. The server's stream goes on when the run has ended and tells changes of status only live, so the
end is told from two things: a `status` that is terminal, after which comes one checkpoint of that name; or, on each
connection, the run itself, of which the rest is then read as a list. That misses nothing and cannot hang.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from orchestrator.client.follow import SILENCE_S, Event, Events, Following, follow
from orchestrator.client.script import ABSENT, Emit, Request, Script, get, json_of, keyed, part, path
from orchestrator.client.shapes.runs import RunsCheckpoint, RunsRun

ENDED = frozenset({"completed", "failed", "canceled"})
#: before every checkpoint
_FIRST = "1970-01-01T00:00:00.000Z"

Mode = Literal["redis", "k8s"]


def create(
    *,
    dag_id: str | None = None,
    plan: Mapping[str, Any] | None = None,
    flow: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    mode: Mode = "redis",
    owner: str | None = None,
    key: str | None = None,
) -> Script[str]:
    """Id of a new run: of a DAG, of an inline plan or flow, or, with none of them, one that its caller drives.

    `key` names the command: the same key gives the same run for 24 h.
    """
    query = {"mode": mode} | ({} if owner is None else {"owner": owner})
    request = Request(method="POST", path="/runs", query=query, body=_definition(dag_id, plan, flow, metadata))
    return part(keyed(request, "Idempotency-Key", key), "runId")


def plan(
    *,
    dag_id: str | None = None,
    plan: Mapping[str, Any] | None = None,
    flow: Mapping[str, Any] | None = None,
) -> Script[list[Any]]:
    """In which groups the tasks would run; nothing is stored."""
    body = _definition(dag_id, plan, flow, None)
    request = Request(method="POST", path="/runs", query={"mode": "plan"}, body=body, repeatable=True)
    return part(part(json_of(request), "plan"), "steps")


def get_run(run_id: str) -> Script[RunsRun]:
    """A run as it is now."""
    return part(get(path("/runs/{}", run_id)), "run")


def checkpoints(run_id: str, after: str | None = None, limit: int | None = None) -> Script[list[RunsCheckpoint]]:
    """Its checkpoints, oldest first; with `after` those strictly later than that `ts`."""
    return part(get(path("/runs/{}/checkpoints", run_id), after=after, limit=limit), "checkpoints")


def post_checkpoint(run_id: str, kind: str, data: object = ABSENT) -> Script[str]:
    """Id of a new checkpoint of the run; without `data` it has none, with None it has null."""
    body = {"type": kind} | ({} if data is ABSENT else {"data": data})
    request = Request(method="POST", path=path("/runs/{}/checkpoints", run_id), body=body)
    return part(json_of(request), "checkpointId")


def cancel(run_id: str) -> Script[str]:
    """Its status from now on, `canceled`. Raises Conflicting when it has ended."""
    return part(json_of(Request(method="DELETE", path=path("/runs/{}", run_id))), "status")


def events(run_id: str, after: str | None = None) -> Events:
    """What happens to a run, from its beginning or after a `ts` on: `checkpoint` and `status`, until it has ended.

    Each checkpoint comes once; a `status` only when it changes while we are connected.
    """
    return follow(_RunEvents(run_id, after))


class _RunEvents:
    """Ids are times of fixed width, so text order is their order."""

    def __init__(self, run_id: str, after: str | None) -> None:
        self._run_id = run_id
        self._last = after or _FIRST
        self._status: str | None = None

    def request(self) -> Request:
        headers = {"Last-Event-ID": self._last}
        where = path("/runs/{}/events", self._run_id)
        return Request(method="GET", path=where, headers=headers, repeatable=True, timeout_s=SILENCE_S)

    def take(self, event: Event) -> Following[bool]:
        match event.kind:
            case "hello":
                return (yield from self._rest())
            case "status":
                self._status = event.data["status"]
                yield Emit(event)
            case "checkpoint":
                yield from self._checkpoint(event)
                return self._status in ENDED and event.data["type"] == self._status
        return False

    def ended(self) -> bool:
        return False

    def _rest(self) -> Following[bool]:
        """Of a run that has ended what we have not seen; False when it goes on."""
        run = yield from get_run(self._run_id)
        if run["status"] not in ENDED:
            return False
        for each in (yield from checkpoints(self._run_id, after=self._last)):
            yield from self._checkpoint(Event(each["ts"], "checkpoint", each))
        return True

    def _checkpoint(self, event: Event) -> Following[None]:
        at = str(event.data["ts"])
        if at > self._last:
            self._last = at
            yield Emit(event)


def _definition(
    dag_id: str | None,
    plan: Mapping[str, Any] | None,
    flow: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
) -> dict[str, Any]:
    body = {"dag_id": dag_id, "plan": plan, "flow": flow, "metadata": metadata}
    return {name: value for name, value in body.items() if value is not None}
