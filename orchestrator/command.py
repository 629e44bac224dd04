"""What a caller wants of a run or of one of its tasks, on its way from the gateway to the actor that owns the run.

It is a request: the actor makes one of `run_commands.py` of it, or refuses it with the word of an error class.
"""

from __future__ import annotations

import msgspec

from orchestrator.idempotency import Idempotency
from orchestrator.messages import NO_JSON


class Posted(msgspec.Struct, frozen=True, omit_defaults=True):
    """A checkpoint that a run's caller posts."""

    kind: str
    data: msgspec.Raw = NO_JSON


class Signalled(msgspec.Struct, frozen=True):
    """A signal for a run."""

    name: str
    #: JSON
    data: msgspec.Raw
    #: a second one with the same id is the same signal
    signal_id: str


class Ballot(msgspec.Struct, frozen=True):
    """A vote on an approval."""

    choice: str
    by: str
    #: what `by` is, as in `Wait.roles`: scopes and names
    roles: tuple[str, ...]
    comment: str | None = None
    #: the attempt that it is meant for; None = whichever is open
    attempt: int | None = None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants of a run or of one of its tasks."""

    #: cancel | pause | resume | retry_task | skip_task | retry_run | post | signal | vote; of plans also shut_down,
    #: mark_task; of backfills cancel | pause | resume | cap
    kind: str
    run_id: str
    task: str | None = None
    #: skip_task, mark_task: why
    reason: str | None = None
    #: mark_task: completed | skipped | pending
    word: str | None = None
    #: post: the checkpoint
    checkpoint: Posted | None = None
    signal: Signalled | None = None
    vote: Ballot | None = None
    #: cap: windows at a time; None = as many as the DAG allows
    max_active_runs: int | None = None
    idem: Idempotency | None = None


class CommandReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a Command. `refused` is the word of an error class, or None when it was done."""

    state: str = ""
    attempts: int = 0
    task_state: str | None = None
    #: of a signal
    signal_id: str = ""
    #: state and version of the run before
    before: str = ""
    version: int = 0
    replayed: bool = False
    #: conflict | not_found | invalid | not_allowed | unavailable | moved (it is somebody else's: nothing was done)
    refused: str | None = None
    message: str = ""
