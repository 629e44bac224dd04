"""One turn of an actor that owns runs: what it changed, and the commit that makes it durable."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.hosted import Hosted, HostedRun
from actors.mail import Asked, RunMessage
from actors.names import WEBHOOKS
from actors.readiness import Sending
from actors.run_counts import counts_of
from orchestrator import codec, outside_codec, run_commands, run_duties
from orchestrator.steps import Append, Mail, StoredReply
from orchestrator.streams import TRIGGERS


@dataclass(slots=True)
class Turn:
    """What one turn changed and has to do once that is durable."""

    touched: dict[str, Hosted] = field(default_factory=dict)
    messages: dict[str, list[RunMessage]] = field(default_factory=lambda: defaultdict(list))
    commands: dict[str, list[run_commands.Command]] = field(default_factory=lambda: defaultdict(list))
    aborts: list[tuple[str, str, run_duties.Abort]] = field(default_factory=list)
    sendings: list[Sending] = field(default_factory=list)
    #: runs and positions of tasks that become Kubernetes Jobs
    jobs: list[tuple[HostedRun, list[int]]] = field(default_factory=list)
    answers: list[tuple[str, asyncio.Future[Any], Callable[[], Any]]] = field(default_factory=list)
    passive: dict[str, int | None] = field(default_factory=dict)


def mail_of(sender: str, hosted: Hosted) -> list[Mail]:
    """For the outbox of webhooks and for what starts runs, if the append of the run is applied."""
    run_id = hosted.machine.run_id
    notices = [codec.encode_mail(sender, outside_codec.encode_notice(notice)) for notice in hosted.notices]
    mail = [Mail(WEBHOOKS, item, run_id) for item in notices]
    return [*mail, Mail(TRIGGERS, codec.encode_items(hosted.updates), run_id)] if hosted.updates else mail


def turn_counts(dirty: Sequence[Hosted]) -> tuple[tuple[str, int], ...]:
    """What the turn adds to the metrics."""
    of_runs = [hosted for hosted in dirty if isinstance(hosted, HostedRun)]
    counts = counts_of(hosted.happened for hosted in of_runs)
    return (*counts.items(), *(count for hosted in of_runs for count in hosted.counts))


def letting_go(hosted: Hosted, wake_at_ms: int | None) -> Append:
    """The run has no owner from then on; its timer brings it back."""
    assert isinstance(hosted, HostedRun)
    return Append(run_id=hosted.run.run_id, expected=hosted.run.version, count=0, passive=True, wake_at_ms=wake_at_ms)


def is_of(message: Asked, kept: StoredReply | None) -> bool:
    """Is the answer under that key the one to this command? Others may have been in the same turn."""
    idem = message.command.idem
    return kept is not None and idem is not None and idem.key == kept.key
