"""What an image with this package runs in a Job: the task that its environment names.

    python -m actors.kubernetes_task

The command of an image for `ORCHESTRATOR_K8S_IMAGE` that knows the types `core.*`, `bash` and `http`; they do what they
do on a worker. Output is the pod's log, the error its termination message, and the exit code says which it was. A
return value goes to the log: a Job has nobody to give it to. The environment is that of contract `runs.md`, section 3.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from actors.artifacts import Artifacts
from actors.attempt import LiveAttempt
from actors.entrypoints import Entrypoints
from actors.executor import Executor
from actors.work import NoNotes
from orchestrator.messages import Assignment, Report, RunContext
from orchestrator.traces import valid

#: where Kubernetes reads what a container said last
TERMINATION_LOG = Path("/dev/termination-log")
#: Kubernetes ends a container that takes too long
_ENDLESS_S = float("inf")


class _PodLog:
    """`LogSink`: the pod's log is this process's output."""

    def append(self, run_id: str, task: str, attempt: int, text: str) -> None:
        print(text, end="", file=sys.__stdout__, flush=True)


def perform(environ: Mapping[str, str], folder: Path) -> Report:
    """How the task ended; what it leaves behind is in `folder`. Raises KeyError outside of a Job of ours."""
    run_id, name, attempt = environ["ORCH_RUN_ID"], environ["ORCH_TASK_ID"], int(environ["ORCH_ATTEMPT"])
    params = msgspec.Raw(environ["ORCH_PARAMS"].encode())
    task = Assignment(run_id, name, attempt, environ["ORCH_TYPE"], None, params, {}, _ENDLESS_S)
    run = RunContext(run_id, "", "", 0, None, "", {}, traceparent=valid(environ.get("TRACEPARENT")))
    executor = Executor(
        artifacts=Artifacts(folder),
        entrypoints=Entrypoints(()),
        logs=_PodLog(),
        notes=NoNotes(),
        http_allow=environ.get("ORCHESTRATOR_HTTP_ALLOW", ""),
    )
    return executor.run(task, run, LiveAttempt())


def main(termination_log: Path = TERMINATION_LOG) -> int:
    """The exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = perform(os.environ, Path(folder))
    if report.outcome == "ok":
        print(bytes(report.value.inline).decode(), file=sys.__stdout__, flush=True)
        return 0
    error = report.error or report.outcome
    print(error, file=sys.__stderr__, flush=True)
    termination_log.write_text(error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
