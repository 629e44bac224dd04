"""The other end of `lua_child.py`: a process that runs one script, in a session and group of its own.

    async with LuaProcess({...}) as process:      it is killed on the way out, whatever it does then
        line = await process.line()               what it says next
        await process.reply({...})                the answer to a line that asked

It is started without environment, in the root folder, isolated from the site's packages.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

Json = dict[str, Any]

#: bytes of one line from the child
LINE_MAX = 8 * 1024 * 1024
_START = "import sys; sys.path += sys.argv[1:]; from actors.lua_child import main; main()"
_SIGNALS = {
    int(signal.SIGXCPU): "it used too much CPU time",
    int(signal.SIGKILL): "it was killed",
}


class LuaDied(Exception):
    """The child ended without its last line; the message says how."""


class LuaProcess:
    """One child; see the module."""

    def __init__(self, request: Json) -> None:
        self._request = request | {"parent": os.getpid()}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> LuaProcess:
        # asyncio (3.11) waits for ever when a process is cancelled while it starts; so it always starts, then ends.
        starting = asyncio.ensure_future(_start())
        try:
            self._process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._process = await starting
            await self._end()
            raise
        await self.reply(self._request)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, at: TracebackType | None) -> None:
        await self._end()

    async def line(self) -> Json:
        """What the child says next; its last line has `refused`, `definition` or `ended`. Raises LuaDied."""
        process = self._running()
        assert process.stdout is not None
        try:
            told = await process.stdout.readline()
        except ValueError:
            raise LuaDied(f"it said more than {LINE_MAX} bytes at once") from None
        if not told.endswith(b"\n"):
            raise LuaDied(_how(await process.wait()))
        line: Json = json.loads(told)
        return line

    async def reply(self, line: Json) -> None:
        """One line to the child; without effect when it is gone."""
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(line).encode() + b"\n")
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # `line` tells

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def _end(self) -> None:
        process = self._running()
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # it has ended
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()


async def _start() -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    arguments = (sys.executable, "-I", "-S", "-c", _START, *_import_path())
    return await asyncio.create_subprocess_exec(
        *arguments, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL,
        env={}, cwd="/", start_new_session=True, limit=LINE_MAX,
    )  # fmt: skip


def _import_path() -> list[str]:
    """Folders of this package and of lupa."""
    lupa = importlib.util.find_spec("lupa")
    assert lupa is not None
    assert lupa.origin is not None
    return [str(Path(__file__).parents[1]), str(Path(lupa.origin).parents[1])]


def _how(status: int) -> str:
    return _SIGNALS.get(-status, f"its process ended with {'signal' if status < 0 else 'status'} {abs(status)}")
