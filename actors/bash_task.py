"""Type `bash`, and commands in general: a shell line in a scratch directory, in a process group that never outlives the
attempt (`process_group.py`). The scratch directory of a run that pins a bundle has a copy of it (`bundle_code.py`).
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from actors.attempt_log import AttemptLog
from actors.process import SECRETS
from actors.process_group import GroupOutput, run_group
from actors.work import TaskFailed, Work
from orchestrator.errors import PermanentFailure
from orchestrator.failures import exit_mark

#: characters of stderr in an error, and of the last line of stdout
STDERR_TAIL = 500
LINE_MAX = 64 * 1024


class CommandFailed(TaskFailed):
    """The command did not end with exit code 0."""

    def __init__(self, code: int, stderr_tail: str) -> None:
        super().__init__(code, stderr_tail)
        self.code = code
        self.stderr_tail = stderr_tail

    @property
    def marks(self) -> tuple[str, ...]:
        """What retry policies go by (`failures.py`)."""
        return (exit_mark(self.code),)

    def __str__(self) -> str:
        how = f"exit code {self.code}" if self.code >= 0 else f"killed by signal {-self.code}"
        return f"{how}: {self.stderr_tail}" if self.stderr_tail else how


def run_bash(work: Work) -> object:
    """The last line the command printed; None when it printed nothing. Raises CommandFailed."""
    command, env = work.params.get("command"), work.params.get("env") or {}
    if not isinstance(command, str) or not command.strip():
        raise PermanentFailure("params.command must be a shell command")
    if not isinstance(env, dict):
        raise PermanentFailure("params.env must be an object")
    code = work.shop.code
    with tempfile.TemporaryDirectory(prefix="orchestrator-", ignore_cleanup_errors=True) as scratch:
        paths: dict[str, Any] = {}
        if code is not None:
            code.lay_out(scratch)
            paths = code.paths(scratch, os.environ)
        told = environment(work, paths | env)
        output = work.wait_for(run_process(("bash", "-c", command), told, scratch, work.log, LINE_MAX))
        return output.last_line()


def environment(work: Work, more: dict[str, Any]) -> dict[str, str]:
    """What a command of this attempt finds: the worker's own variables without secrets, the run's facts, `more`."""
    inherited = {name: value for name, value in os.environ.items() if name not in SECRETS}
    told = {f"ORCHESTRATOR_{name.upper()}": value for name, value in work.told.items()}
    told |= {"ORCHESTRATOR_TASK_ID": work.assignment.task, "ORCHESTRATOR_ATTEMPT": str(work.assignment.attempt)}
    inherited.pop("TRACEPARENT", None)  # that of whoever started this server
    if work.traceparent:
        told["TRACEPARENT"] = work.traceparent
    given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in more.items()}
    return inherited | told | given


async def run_process(
    argv: tuple[str, ...], env: dict[str, str], folder: str, log: AttemptLog, kept_max: int
) -> Output:
    """What the command printed, once it has ended well: the last `kept_max` characters. Raises CommandFailed."""
    output = Output(log, kept_max)
    code = await run_group(argv, env, folder, output)
    if code != 0:
        raise CommandFailed(code, output.stderr_tail.strip())
    return output


class Output(GroupOutput):
    """What the command prints, and when it ends."""

    def __init__(self, log: AttemptLog, kept_max: int) -> None:
        super().__init__()
        self._log = log
        self._kept_max = kept_max
        #: the end of stdout
        self.stdout_tail = ""
        self.stderr_tail = ""

    def last_line(self) -> str | None:
        """The last line of stdout; None when there was no output."""
        return self.stdout_tail.removesuffix("\n").rpartition("\n")[2] if self.stdout_tail else None

    def take(self, fd: int, text: str) -> None:
        """As GroupOutput."""
        self._log.write(text)
        if fd == 1:
            self.stdout_tail = (self.stdout_tail + text)[-self._kept_max :]
        else:
            self.stderr_tail = (self.stderr_tail + text)[-STDERR_TAIL:]
