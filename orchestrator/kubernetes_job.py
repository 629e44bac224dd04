"""The Kubernetes Job that one attempt becomes, and what the Job's end says about the attempt.

    JobOrder ─▶ job_of ─▶ batch/v1 Job (JSON) ─▶ the cluster ─▶ end_of(Job) ─▶ told(end, Pod)

An attempt's Job has a name that follows from (run, task, attempt), so creating it twice makes one. The core
retries, Kubernetes does not: `backoffLimit` is 0, and the next attempt is a Job of another name. Objects are JSON as
the API has it. Source: contract `runs.md`, section 3 "Execution"; types: batch/v1 and core/v1 of the Kubernetes API.

In a container's environment Kubernetes replaces `$(NAME)` and reads `$$` as `$`. Values are data here, so their
dollars are doubled; a node's `command` is passed as it is, and may say `$(ORCH_PARAMS)`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from orchestrator import binding, traces
from orchestrator.errors import PermanentFailure
from orchestrator.messages import JobOrder

Json = dict[str, Any]
#: (run id, task, attempt)
Key = tuple[str, str, int]

#: label that every Job of ours has, and annotations that say the rest
RUN_LABEL = "orchestrator/run-id"
TASK_NOTE = "orchestrator/task-id"
ATTEMPT_NOTE = "orchestrator/attempt"
#: label that the cluster gives a Job's pods
JOB_LABEL = "job-name"
#: the container that is the task; a cluster may put others beside it
CONTAINER = "task"
#: seconds that an ended Job stays to be looked at
TTL_S = 3600
#: characters of an error
ERROR_MAX = 1000


@dataclass(frozen=True, slots=True)
class End:
    """How a Job ended. `gone`: it was deleted before it had ended."""

    kind: Literal["complete", "failed", "timed_out", "gone"]
    #: the cluster's words, for people
    why: str = ""


def job_name(key: Key) -> str:
    """The same for the same attempt, always."""
    run_id, task, attempt = key
    return "orch-" + hashlib.sha256(f"{run_id}/{task}/{attempt}".encode()).hexdigest()[:20]


def job_of(order: JobOrder, default_image: str) -> Json:
    """The Job to create. Raises PermanentFailure when params cannot be bound, or no image is known."""
    task = order.task
    image = order.image or default_image
    if not image:
        raise PermanentFailure(f"task {task.task!r} names no image, and ORCHESTRATOR_K8S_IMAGE is not set")
    container: Json = {
        "name": CONTAINER,
        "image": image,
        "env": [{"name": name, "value": value.replace("$", "$$")} for name, value in _environment(order).items()],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if order.command:
        container["command"] = list(order.command)
    labels = {RUN_LABEL: task.run_id}
    notes = {TASK_NOTE: task.task, ATTEMPT_NOTE: str(task.attempt)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name((task.run_id, task.task, task.attempt)),
            "labels": labels,
            "annotations": notes,
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": max(1, math.ceil(task.timeout_s)),
            "ttlSecondsAfterFinished": TTL_S,
            "template": {
                "metadata": {"labels": labels, "annotations": notes},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            },
        },
    }


def _environment(order: JobOrder) -> dict[str, str]:
    task, run = order.task, order.run
    traceparent = traces.told_to(task.run_id, task.task, task.attempt, run.traceparent, run.traced)
    return ({"TRACEPARENT": traceparent} if traceparent else {}) | {
        "ORCH_RUN_ID": task.run_id,
        "ORCH_TASK_ID": task.task,
        "ORCH_ATTEMPT": str(task.attempt),
        "ORCH_TYPE": task.type,
        "ORCH_PARAMS": msgspec.json.encode(_params(order)).decode(),
    }


def _params(order: JobOrder) -> Json:
    task, run = order.task, order.run
    own = msgspec.json.decode(task.params) if bytes(task.params) else {}
    inputs = {path: msgspec.json.decode(value.inline) for path, value in task.inputs.items()}
    told = binding.facts(run.run_id, run.dag_id, run.window, run.partition)
    return binding.bind(task.type, own, inputs, run.params, told)


def end_of(job: Json) -> End | None:
    """How the Job ended; None while it goes on."""
    for condition in _conditions(job):
        if condition.get("status") != "True":
            continue
        if condition.get("type") == "Complete":
            return End("complete")
        if condition.get("type") == "Failed":
            reason = condition.get("reason") or "Failed"
            kind: Literal["timed_out", "failed"] = "timed_out" if reason == "DeadlineExceeded" else "failed"
            return End(kind, _sentence(reason, condition.get("message")))
    return None


def told(end: End, pod: Json | None) -> str:
    """One line that says why an attempt failed: what its container said last, else what the cluster says."""
    said = _last_words(pod or {}) if end.kind == "failed" else None
    text = " ".join(f"{_TITLES[end.kind]}: {said or end.why}".removesuffix(": ").split())
    return text if len(text) <= ERROR_MAX else text[: ERROR_MAX - 1] + "…"


_TITLES: Mapping[str, str] = {"failed": "JobFailed", "timed_out": "JobTimedOut", "gone": "JobGone"}


def _last_words(pod: Json) -> str | None:
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        ended = container.get("name") == CONTAINER and (container.get("state") or {}).get("terminated")
        if ended and ended.get("exitCode"):
            code = f"exit code {ended['exitCode']}"
            reason = ended.get("reason")
            return _sentence(f"{code} ({reason})" if reason and reason != "Error" else code, ended.get("message"))
    if status.get("reason"):  # evicted, for instance: no container had a say
        return _sentence(status["reason"], status.get("message"))
    return None


def _sentence(subject: str, message: str | None) -> str:
    return f"{subject}: {message}" if message else subject


def _conditions(job: Json) -> Iterable[Json]:
    return (job.get("status") or {}).get("conditions") or ()
