"""Type `bash`, and processes in general: a shell line in a scratch directory, in a process group that never outlives
the attempt.

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
_WATCHED = 'trap "" TERM; (read -r _; kill -KILL -- -$$) <&0 >/dev/null 2>&1 & trap - TERM; exec "$@" </dev/null'


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
        told = environment(work, env)
        output = work.wait_for(run_process(("bash", "-c", command), told, scratch, work.log, LINE_MAX))
        return output.last_line()


def environment(work: Work, more: dict[str, Any]) -> dict[str, str]:
    """What a command of this attempt finds: the worker's own variables without secrets, the run's facts, `more`."""
    inherited = {name: value for name, value in os.environ.items() if name not in SECRETS}
    told = {f"ORCHESTRATOR_{name.upper()}": value for name, value in work.told.items()}
    told |= {"ORCHESTRATOR_TASK_ID": work.assignment.task, "ORCHESTRATOR_ATTEMPT": str(work.assignment.attempt)}
    given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in more.items()}
    return inherited | told | given


async def run_process(
    argv: tuple[str, ...], env: dict[str, str], folder: str, log: AttemptLog, kept_max: int
) -> Output:
    """What the command printed, once it has ended well: the last `kept_max` characters. Raises CommandFailed."""
    # asyncio (3.11) waits for ever when a process is cancelled while it starts; so it always starts, then ends.
    starting = asyncio.ensure_future(_start(argv, env, folder, Output(log, kept_max)))
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
    return shell


async def _start(
    argv: tuple[str, ...], env: dict[str, str], folder: str, output: Output
) -> tuple[asyncio.SubprocessTransport, Output]:
    loop = asyncio.get_running_loop()
    try:
        return await loop.subprocess_exec(
            lambda: output, "bash", "-c", _WATCHED, "bash", *argv,
            cwd=folder, env=env, start_new_session=True,
        )  # fmt: skip
    except (FileNotFoundError, ValueError) as error:
        raise PermanentFailure(f"{argv[0]} cannot be started in {folder}: {error}") from error


async def _clear(transport: asyncio.SubprocessTransport, shell: Output) -> None:
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


class Output(asyncio.SubprocessProtocol):
    """What the command prints, and when it ends."""

    def __init__(self, log: AttemptLog, kept_max: int) -> None:
        loop = asyncio.get_running_loop()
        self._log = log
        self._kept_max = kept_max
        self.exited: asyncio.Future[None] = loop.create_future()
        #: both output pipes are at their end
        self.drained: asyncio.Future[None] = loop.create_future()
        self._open = {1, 2}
        self._decoders = {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in (1, 2)}
        #: the end of stdout
        self.stdout_tail = ""
        self.stderr_tail = ""

    def last_line(self) -> str | None:
        """The last line of stdout; None when there was no output."""
        return self.stdout_tail.removesuffix("\n").rpartition("\n")[2] if self.stdout_tail else None

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
            self.stdout_tail = (self.stdout_tail + text)[-self._kept_max :]
        else:
            self.stderr_tail = (self.stderr_tail + text)[-STDERR_TAIL:]
