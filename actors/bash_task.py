"""Type `bash`: a shell line in a scratch directory, in a process group that never outlives the attempt.

    worker ── stdin pipe ──▶ watchdog ┐ one session and process group
                             command  ┘

The watchdog, a subshell of the group that ignores SIGTERM, reads the pipe that only the worker writes. When the worker
dies, however it dies, the read ends and the watchdog kills the group: a retry elsewhere never runs beside the old one.
When the attempt is cancelled the group gets SIGTERM, then SIGKILL. What the command left running in the background is
killed when it ends.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import signal
import tempfile
from typing import Any

from actors.attempt_log import AttemptLog
from actors.work import TaskFailed, Work
from orchestrator.errors import PermanentFailure

#: from SIGTERM to SIGKILL
TERM_GRACE_S = 2.0
#: for the pipes to empty after the command has ended
DRAIN_S = 0.2
#: for the system to tell of an exit after SIGKILL
REAP_S = 5.0
#: characters of stderr in an error, and of the last line of stdout
STDERR_TAIL = 500
LINE_MAX = 64 * 1024
#: never handed to a command: its output is kept in a log
SECRETS = frozenset(
    {
        "ORCHESTRATOR_ADMIN_TOKEN",
        "ORCHESTRATOR_API_KEY",
        "ORCHESTRATOR_TOKEN",
        "CLIENT_TOKEN",
        "GLOBAL_WORKER_TOKEN",
        "WEBHOOK_SECRET",
        "REDIS_URL",
    }
)

# The watchdog ignores SIGTERM from its first instant: it inherits that, and the command does not.
_WATCHED = (
    'trap "" TERM; (read -r _; kill -KILL -- -$$) <&0 >/dev/null 2>&1 & trap - TERM; exec bash -c "$1" </dev/null'
)


class CommandFailed(TaskFailed):
    """The command did not end with exit code 0."""

    def __init__(self, code: int, stderr_tail: str) -> None:
        super().__init__(code, stderr_tail)
        self.code = code
        self.stderr_tail = stderr_tail

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
    with tempfile.TemporaryDirectory(prefix="orchestrator-", ignore_cleanup_errors=True) as scratch:
        return work.wait_for(_run(command, _environment(work, env), scratch, work.log))


def _environment(work: Work, more: dict[str, Any]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in SECRETS}
    told = {f"ORCHESTRATOR_{name.upper()}": value for name, value in work.told.items()}
    told |= {"ORCHESTRATOR_TASK_ID": work.assignment.task, "ORCHESTRATOR_ATTEMPT": str(work.assignment.attempt)}
    given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in more.items()}
    return inherited | told | given


async def _run(command: str, env: dict[str, str], scratch: str, log: AttemptLog) -> str | None:
    # asyncio (3.11) waits for ever when a process is cancelled while it starts; so it always starts, then ends.
    starting = asyncio.ensure_future(_start(command, env, scratch, log))
    try:
        transport, shell = await asyncio.shield(starting)
        await asyncio.wait({shell.exited})  # a bare await would cancel the future with us
        await asyncio.wait({shell.drained}, timeout=DRAIN_S)
    except asyncio.CancelledError:
        transport, shell = await starting
        _signal(transport.get_pid(), signal.SIGTERM)
        await asyncio.wait({shell.exited}, timeout=TERM_GRACE_S)
        raise
    finally:
        if starting.exception() is None:
            await _clear(*starting.result())
    code = transport.get_returncode()
    if code != 0:
        raise CommandFailed(-signal.SIGKILL if code is None else code, shell.stderr_tail.strip())
    return shell.last_line()


async def _start(
    command: str, env: dict[str, str], scratch: str, log: AttemptLog
) -> tuple[asyncio.SubprocessTransport, _Shell]:
    loop = asyncio.get_running_loop()
    try:
        return await loop.subprocess_exec(
            lambda: _Shell(loop, log), "bash", "-c", _WATCHED, "bash", command,
            cwd=scratch, env=env, start_new_session=True,
        )  # fmt: skip
    except (FileNotFoundError, ValueError) as error:
        raise PermanentFailure(f"bash cannot be started: {error}") from error


async def _clear(transport: asyncio.SubprocessTransport, shell: _Shell) -> None:
    """Nobody of the group is left. The exit is waited for: closing the transport before would take it from asyncio."""
    _signal(transport.get_pid(), signal.SIGKILL)
    await asyncio.wait({shell.exited}, timeout=REAP_S)
    await asyncio.wait({shell.drained}, timeout=DRAIN_S)
    transport.close()


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass  # nobody is left in it


class _Shell(asyncio.SubprocessProtocol):
    """What the command prints, and when it ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: AttemptLog) -> None:
        self._log = log
        self.exited: asyncio.Future[None] = loop.create_future()
        #: both output pipes are at their end
        self.drained: asyncio.Future[None] = loop.create_future()
        self._open = {1, 2}
        self._decoders = {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in (1, 2)}
        self._stdout_tail = ""
        self.stderr_tail = ""

    def last_line(self) -> str | None:
        """The last line of stdout; None when there was no output."""
        return self._stdout_tail.removesuffix("\n").rpartition("\n")[2] if self._stdout_tail else None

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        self._take(fd, self._decoders[fd].decode(data))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if fd in self._decoders:
            self._take(fd, self._decoders[fd].decode(b"", True))
        if not self._open and not self.drained.done():
            self.drained.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def _take(self, fd: int, text: str) -> None:
        self._log.write(text)
        if fd == 1:
            self._stdout_tail = (self._stdout_tail + text)[-LINE_MAX:]
        else:
            self.stderr_tail = (self.stderr_tail + text)[-STDERR_TAIL:]
