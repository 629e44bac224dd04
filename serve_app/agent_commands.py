"""`orchestrator runner` and `orchestrator worker`: agents that work for a server, on this machine or far from it.

Both run until SIGTERM or Ctrl-C: then they take nothing more, and end when what they are at has ended. A second signal
ends them at once; the server gives what they were at to others. What happens is told on standard error, or with
`--json` as one JSON object a line on standard output.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Protocol

import typer

from orchestrator.errors import Invalid
from orchestrator.remote_tasks import RemoteTask, remote_tasks_in
from serve_app import screen
from serve_app.session import Session, command, group

#: exit status after a second signal, as of a process that SIGTERM ended
_ENDED_NOW = 128 + signal.SIGTERM
_WORKER_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}")

agents = group("Work for a server.")


class Agent(Protocol):
    """Something that works until it is told to stop."""

    async def run(self) -> None:
        """Returns when it has stopped."""

    def stop(self) -> None:
        """Take nothing more."""


@command(agents, "runner")
def runner_command(
    session: Session,
    runner_id: Annotated[
        str | None, typer.Option("--id", help="Name of this runner, default: the host's and a suffix.")
    ] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="What else scripts find here, such as docker; may be given several times.")
    ] = None,
    process_backend: Annotated[
        str,
        typer.Option(
            help="Where commands run: none, podman, or local: as processes of this machine, with all your rights.",
            envvar="PIPELINES_PROCESS_BACKEND",
        ),
    ] = "none",
) -> None:
    """Run CI jobs of pipelines. Ends with Ctrl-C, once the job that runs has ended."""
    from actors.clock import Clock
    from actors.process_backend import backend
    from actors.runner_actor import capabilities
    from actors.runner_loop import RunnerLoop, executor
    from serve_app.runner_agent import REGISTER_TRIES, HttpRunnerPort, open_client

    clock, target = Clock(), session.target()
    place = backend(process_backend, lambda: clock.token()[:12])
    name = runner_id or f"{socket.gethostname()}-{clock.token()[:8]}"
    offered = [*capabilities(place), *(capability or ())]

    async def run() -> None:
        async with open_client(target.url, target.token) as client:
            port = HttpRunnerPort(client, name, offered)
            tell = _teller(session, name)
            await _until_signals(RunnerLoop(port, executor(place), clock, tries=REGISTER_TRIES, tell=tell))

    _run(run)


@command(agents, "worker")
def worker_command(
    session: Session,
    module: Annotated[str, typer.Argument(metavar="MODULE[:ATTR]", help="Module with functions made @remote_task.")],
    worker_id: Annotated[
        str | None, typer.Option("--id", help="Name of this worker, default: the host's and a suffix.")
    ] = None,
    max_tasks: Annotated[int, typer.Option(min=1, help="Tasks at once.")] = 4,
) -> None:
    """Do tasks of blueprints with the functions of a module. Ends with Ctrl-C, once what runs has ended."""
    from actors.clock import Clock
    from serve_app.worker_agent import WorkerAgent
    from serve_app.worker_wire import WorkerWire

    tasks = find_tasks(module)
    target = session.target()
    name = worker_id or re.sub(r"[^a-zA-Z0-9_-]", "-", f"{socket.gethostname()[:100]}-{Clock().token()[:8]}")
    if not _WORKER_ID.fullmatch(name):
        raise Invalid(f"--id {name}: letters, digits, - and _ only, at most 128")

    async def run() -> None:
        wire = WorkerWire(target.url, target.token, name)
        try:
            await _until_signals(WorkerAgent(wire, name, tasks, max_tasks, _teller(session, name)))
        finally:
            await wire.close()

    _run(run)


def find_tasks(named: str) -> list[RemoteTask]:
    """The remote tasks of `module`, or what `module:attr` names: one, or a list of them. Raises Invalid."""
    module_name, _, attribute = named.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise Invalid(f"{module_name} cannot be imported from {Path.cwd()}: {error}") from error
    if not attribute:
        tasks = remote_tasks_in(vars(module).values())
    else:
        value = getattr(module, attribute, None)
        tasks = remote_tasks_in(value if isinstance(value, list | tuple) else [value])
    if not tasks:
        raise Invalid(f"{named} has no remote tasks; make functions some with @remote_task")
    return tasks


def _run(work: Callable[[], Awaitable[None]]) -> None:
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)

    async def whole() -> None:
        await work()

    try:
        asyncio.run(whole())
    except asyncio.CancelledError:
        sys.stdout.flush()
        os._exit(_ENDED_NOW)  # a task's thread cannot be ended otherwise


async def _until_signals(agent: Agent) -> None:
    """The agent's work, gently ended by the first signal, and cut short by the second."""
    loop, working = asyncio.get_running_loop(), asyncio.current_task()
    assert working is not None

    def asked() -> None:
        screen.say("stopping when what runs has ended; signal again to end it now")
        agent.stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, working.cancel)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    await agent.run()


def _teller(session: Session, name: str) -> Callable[..., None]:
    def tell(event: str, **facts: object) -> None:
        if session.as_json:
            screen.print_json_line({"event": event, "id": name, **facts})
        else:
            screen.say(" ".join((f"{name}: {event}", *(f"{fact}={value}" for fact, value in facts.items()))))

    return tell
