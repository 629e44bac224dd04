"""Where the commands of CI pipelines run: `none`, `podman` or `local`.

    none     nowhere: "process execution is disabled"
    podman   each in a container of its own, `podman run --rm` of the stage's image; the job's workspace is /workspace
    local    as plain processes of this machine in the job's workspace, **with all the rights of the runner**: they can
             read its files, reach its network and stop its processes. The environment is clean, that is all. For
             pipelines whose authors you trust, on a machine you can lose. No images: `container.with` is refused

`local` is additive; the operator has to ask for it by name. Either way a command is in a process group that never
outlives the job (`process_group.py`), its output becomes log lines as it comes, and up to CAPTURE_MAX characters from
its end are given to the script. Source: pipelines contract, section 5.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from actors.process_group import GroupOutput, run_group
from orchestrator.errors import Invalid, PermanentFailure

DISABLED = "process execution is disabled"
DEFAULT_IMAGE = "docker.io/alpine:latest"
#: characters kept of each output
CAPTURE_MAX = 1024 * 1024
#: a line that does not end is logged in pieces
LINE_MAX = 10_000
#: for `podman rm` to end a container
REMOVE_S = 10.0
#: variables of the runner that `podman` itself needs
_OF_PODMAN = ("HOME", "PATH", "TMPDIR", "USER", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")
_PATH = "/usr/local/bin:/usr/bin:/bin"

#: (level, message)
Write = Callable[[str, str], None]


class ProcessRefused(Exception):
    """The command cannot be run here; the message is what the script is told."""


@dataclass(frozen=True, slots=True)
class Command:
    """What `process.run` was given; levels as in log entries."""

    cmd: str
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    image: str | None = None
    capture_stdout: bool = True
    capture_stderr: bool = True
    stdout_level: str = "Info"
    stderr_level: str = "Error"


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended; the exit code is negative for a signal."""

    exit_code: int
    stdout: str
    stderr: str


class ProcessBackend(Protocol):
    """One place to run commands."""

    #: modules of scripts that work on such a runner
    capabilities: tuple[str, ...]
    #: why `container.with` is refused; None = it is not
    refuses_containers: str | None

    async def run(self, command: Command, workspace: Path, write: Write) -> Ran:
        """Raises ProcessRefused. Cancelling ends the command."""


def backend(word: str, name: Callable[[], str]) -> ProcessBackend:
    """The backend of that word; `name` makes names for containers. Raises Invalid."""
    match word:
        case "none":
            return NoProcesses()
        case "podman":
            return Podman(name)
        case "local":
            return LocalProcesses()
    raise Invalid(f"unknown process backend {word!r}; choose of none, podman, local")


class NoProcesses:
    """Nothing runs."""

    capabilities: tuple[str, ...] = ()
    refuses_containers: str | None = DISABLED

    async def run(self, command: Command, workspace: Path, write: Write) -> Ran:
        """As ProcessBackend."""
        raise ProcessRefused(DISABLED)


class LocalProcesses:
    """Commands run on this machine; see the module for the danger."""

    capabilities: tuple[str, ...] = ("process",)
    refuses_containers: str | None = "this runner has no containers (process backend local)"

    async def run(self, command: Command, workspace: Path, write: Write) -> Ran:
        """As ProcessBackend."""
        if command.image is not None:
            raise ProcessRefused(str(self.refuses_containers))
        inherited = {"PATH": os.environ.get("PATH", _PATH), "HOME": str(workspace), "LANG": "C.UTF-8"}
        folder = str(workspace / (command.cwd or "."))
        return await _run((command.cmd, *command.args), inherited | command.env, folder, command, write)


class Podman:
    """Each command runs in a container of its own."""

    capabilities: tuple[str, ...] = ("process", "container")
    refuses_containers: str | None = None

    def __init__(self, name: Callable[[], str]) -> None:
        self._name = name

    async def run(self, command: Command, workspace: Path, write: Write) -> Ran:
        """As ProcessBackend."""
        own = {name: os.environ[name] for name in _OF_PODMAN if name in os.environ}
        name = f"orchestrator-{self._name()}"
        # Values reach podman through its environment, so that they stand in no list of processes.
        hidden = {key: value for key, value in command.env.items() if key not in _OF_PODMAN}
        told = [f"--env={key}" if key in hidden else f"--env={key}={value}" for key, value in command.env.items()]
        place = [f"--volume={workspace}:/workspace", f"--workdir={Path('/workspace', command.cwd or '.')}"]
        run = ["podman", "run", "--rm", f"--name={name}", *place, *told, command.image or DEFAULT_IMAGE]
        argv = (*run, command.cmd, *command.args)
        try:
            return await _run(argv, own | hidden, str(workspace), command, write)
        except asyncio.CancelledError:
            await asyncio.shield(_remove(name, own))
            raise


async def _remove(name: str, env: dict[str, str]) -> None:
    """A container that podman left behind when it was killed is gone."""
    try:
        async with asyncio.timeout(REMOVE_S):
            await run_group(("podman", "rm", "--force", "--ignore", name), env, "/", _Silence())
    except (TimeoutError, PermanentFailure):
        pass  # it ends with its command, or the operator removes it


async def _run(argv: tuple[str, ...], env: dict[str, str], folder: str, command: Command, write: Write) -> Ran:
    output = _Lines(command, write)
    try:
        code = await run_group(argv, env, folder, output)
    except PermanentFailure as refused:
        raise ProcessRefused(str(refused)) from refused
    output.close()
    return Ran(code, output.captured(1), output.captured(2))


class _Silence(GroupOutput):
    def take(self, fd: int, text: str) -> None:
        """As GroupOutput."""


class _Lines(GroupOutput):
    """Output as log lines, and what is kept of it."""

    def __init__(self, command: Command, write: Write) -> None:
        super().__init__()
        self._levels = {1: command.stdout_level, 2: command.stderr_level}
        self._captures = {1: command.capture_stdout, 2: command.capture_stderr}
        self._write = write
        self._cmd = command.cmd
        self._kept = {1: "", 2: ""}
        self._cut = {1: False, 2: False}
        #: the line that has not ended yet
        self._open_line = {1: "", 2: ""}

    def take(self, fd: int, text: str) -> None:
        """As GroupOutput."""
        if self._captures[fd]:
            kept = self._kept[fd] + text
            self._cut[fd] |= len(kept) > CAPTURE_MAX
            self._kept[fd] = kept[-CAPTURE_MAX:]
        *lines, rest = (self._open_line[fd] + text).split("\n")
        while len(rest) > LINE_MAX:
            lines.append(rest[:LINE_MAX])
            rest = rest[LINE_MAX:]
        self._open_line[fd] = rest
        for line in lines:
            self._write(self._levels[fd], line.removesuffix("\r"))

    def close(self) -> None:
        """The last line of each output may lack its end."""
        for fd, rest in self._open_line.items():
            if rest:
                self._write(self._levels[fd], rest)
            if self._cut[fd]:
                self._write("Warning", f"only the last {CAPTURE_MAX} characters that {self._cmd} printed were kept")

    def captured(self, fd: int) -> str:
        """What the script gets."""
        return self._kept[fd]
