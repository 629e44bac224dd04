"""A command in a process group that never outlives whoever started it.

    starter ── stdin pipe ──▶ watchdog ┐ one session and process group
                              command  ┘

The watchdog, a subshell of the group that ignores SIGTERM, reads the pipe that only the starter writes. When the
starter dies, however it dies, the read ends and the watchdog kills the group: a retry elsewhere never runs beside the
old one. When the coroutine is cancelled the group gets SIGTERM, then SIGKILL. What the command left running in the
background is killed when it ends.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import signal

from orchestrator.errors import PermanentFailure

#: from SIGTERM to SIGKILL
TERM_GRACE_S = 2.0
#: for the pipes to empty after the command has ended
DRAIN_S = 0.2
#: for the system to tell of an exit after SIGKILL
REAP_S = 5.0

# The watchdog ignores SIGTERM from its first instant: it inherits that, and the command does not.
_WATCHED = 'trap "" TERM; (read -r _; kill -KILL -- -$$) <&0 >/dev/null 2>&1 & trap - TERM; exec "$@" </dev/null'


class GroupOutput(asyncio.SubprocessProtocol):
    """When the command ends, and through `take` what it prints."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        #: both output pipes are at their end
        self.drained: asyncio.Future[None] = loop.create_future()
        self._open = {1, 2}
        self._decoders = {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in (1, 2)}

    def take(self, fd: int, text: str) -> None:
        """`text` was printed to stdout (1) or stderr (2); "" comes now and then, and when the pipe is at its end."""
        raise NotImplementedError

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        self.take(fd, self._decoders[fd].decode(data))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if fd in self._decoders:
            self.take(fd, self._decoders[fd].decode(b"", True))
        if not self._open and not self.drained.done():
            self.drained.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)


async def run_group(argv: tuple[str, ...], env: dict[str, str], folder: str, output: GroupOutput) -> int:
    """The exit code, negative for a signal. Raises PermanentFailure when it cannot be started."""
    # asyncio (3.11) waits for ever when a process is cancelled while it starts; so it always starts, then ends.
    starting = asyncio.ensure_future(_start(argv, env, folder, output))
    try:
        transport, _ = await asyncio.shield(starting)
        await asyncio.wait({output.exited})  # a bare await would cancel the future with us
        await asyncio.wait({output.drained}, timeout=DRAIN_S)
    except asyncio.CancelledError:
        transport, _ = await starting
        _signal(transport.get_pid(), signal.SIGTERM)
        await asyncio.wait({output.exited}, timeout=TERM_GRACE_S)
        raise
    finally:
        if starting.exception() is None:
            await _clear(*starting.result())
    code = transport.get_returncode()
    return -signal.SIGKILL if code is None else code


async def _start(
    argv: tuple[str, ...], env: dict[str, str], folder: str, output: GroupOutput
) -> tuple[asyncio.SubprocessTransport, GroupOutput]:
    loop = asyncio.get_running_loop()
    try:
        return await loop.subprocess_exec(
            lambda: output, "bash", "-c", _WATCHED, "bash", *argv,
            cwd=folder, env=env, start_new_session=True,
        )  # fmt: skip
    except (FileNotFoundError, ValueError) as error:
        raise PermanentFailure(f"{argv[0]} cannot be started in {folder}: {error}") from error


async def _clear(transport: asyncio.SubprocessTransport, output: GroupOutput) -> None:
    """Nobody of the group is left. The exit is waited for: closing the transport before would take it from asyncio."""
    _signal(transport.get_pid(), signal.SIGKILL)
    await asyncio.wait({output.exited}, timeout=REAP_S)
    await asyncio.wait({output.drained}, timeout=DRAIN_S)
    transport.close()


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass  # nobody is left in it
