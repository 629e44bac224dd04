"""What reaches a RunActor: the messages of its mailbox.

Everything that happens to a run comes as one of these, whether a client, a worker, the scheduler, a
timer or the journal sent it; a turn handles all that have come since the last one.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import msgspec

from actors.crew import Ended, Gone
from actors.hosted import Hosted, HostedBackfill
from actors.result_cache import Recalled
from orchestrator import actor_codec, errors, run_commands
from orchestrator.calls import Return
from orchestrator.command import Command, CommandReply
from orchestrator.control import Admission
from orchestrator.messages import Note
from orchestrator.steps import CommitResult
from orchestrator.streams import InboxItem

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Admitted:
    """Host a run, and start it unless told otherwise."""

    admission: Admission
    epoch: int
    tries: int = 0


@dataclass(slots=True)
class Asked:
    """A client's command; `answer` gets a CommandReply."""

    command: Command
    answer: asyncio.Future[CommandReply]
    tries: int = 0


@dataclass(slots=True)
class Noted:
    """A checkpoint or progress mark; `answer` gets True when it is durable, False when it is stale."""

    note: Note
    answer: asyncio.Future[bool]
    tries: int = 0


@dataclass(slots=True)
class Loaded:
    """A run was read from the journal (None: there is none that this actor may own)."""

    run_id: str
    hosted: Hosted | None
    owner: str = ""


@dataclass(slots=True)
class Told:
    """An item of the durable inbox. `cursor` is where its entry ends, when it is the last one of it."""

    item: InboxItem
    cursor: str | None
    tries: int = 0


@dataclass(slots=True)
class Observed:
    """What the windows of a backfill are at: (child, core state, version of the child); `whole`: all of them."""

    run_id: str
    windows: tuple[tuple[str, str, int], ...]
    whole: bool = False
    tries: int = 0


@dataclass(slots=True)
class Redo:
    """What a worker told about a run that had to be read again."""

    run_id: str
    command: run_commands.Command
    tries: int = 0


@dataclass(slots=True)
class Returned:
    """How a run ended that a task called, or why it cannot be started."""

    run_id: str
    outcome: Return
    tries: int = 0


@dataclass(slots=True)
class Woken:
    """Some run's own timer is due."""

    run_id: str
    tries: int = 0


@dataclass(slots=True)
class Idle:
    """Look for runs that have only waited for long."""


#: about one run each; handled again when the journal did not take what they led to
RunMessage = Admitted | Asked | Noted | Told | Observed | Redo | Returned | Woken
Message = RunMessage | Loaded | Recalled | Idle | Ended | Gone


def refuse(message: RunMessage, why: str, word: str = "unavailable") -> None:
    """Tell whoever waits for an answer that there will be no other one here; nothing was done."""
    match message:
        case Asked():
            answer(message.answer, CommandReply(refused=word, message=why))
        case Noted():
            answer(message.answer, False)
        case _:
            _log.info("dropped %s: %s", type(message).__name__, why)


def answer(future: asyncio.Future[Any], value: Any) -> None:
    """Answer, unless the asker has gone."""
    if not future.done():
        future.set_result(value)


def reply_to(hosted: Hosted, command: Command) -> CommandReply:
    """What became of the command."""
    if isinstance(hosted, HostedBackfill):
        return CommandReply(state=hosted.backfill.state, attempts=hosted.backfill.attempts)
    run = hosted.run
    task_state = str(run.tasks[run.position(command.task)].state) if command.task else None
    signal_id = command.signal.signal_id if command.signal is not None else ""
    return CommandReply(state=str(run.state), attempts=run.attempts, task_state=task_state, signal_id=signal_id)


def replayed(result: CommitResult) -> CommandReply:
    """The answer that the journal has stored under the command's key."""
    if result.status == "conflict":
        return CommandReply(refused="conflict", message="this request id was used with another body")
    return msgspec.structs.replace(actor_codec.decode_command_reply(result.reply), replayed=True)


def refused(error: errors.OrchestratorError) -> CommandReply:
    """The command was not carried out, and why."""
    match error:
        case errors.NotFound():
            word = "not_found"
        case errors.Invalid():
            word = "invalid"
        case errors.NotAllowed():
            word = "not_allowed"
        case errors.Refused():
            word = "conflict"
        case _:
            word = "unavailable"
    return CommandReply(refused=word, message=str(error))
