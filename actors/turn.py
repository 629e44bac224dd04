"""One turn of a RunActor: what it changed, and what it has to do once that is durable.

message ─▶ step (decide + apply) ─▶ touched ─▶ commit (`turn_commit.py`) ─▶ answers, work orders, timers
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from actors.hosted import Hosted, HostedRun
from actors.mail import Asked, RunMessage, answer
from actors.names import WEBHOOKS
from actors.readiness import Sending
from actors.run_counts import counts_of
from orchestrator import codec, outside_codec, plan_run, run_commands, run_duties, wait_decisions
from orchestrator.steps import Append, Mail, StoredReply
from orchestrator.streams import TRIGGERS


@dataclass(slots=True)
class Turn:
    """`now` tells the time of each step, `look` sees every run that took one."""

    now: Callable[[], datetime]
    look: Callable[[HostedRun], None]
    #: what it changed; an append is due for those that are dirty
    touched: dict[str, Hosted] = field(default_factory=dict)
    #: run -> what led to its steps, to be handled again if the journal does not take them: messages, and what workers
    #: told that has no message of its own
    messages: dict[str, list[RunMessage]] = field(default_factory=lambda: defaultdict(list))
    commands: dict[str, list[run_commands.Command]] = field(default_factory=lambda: defaultdict(list))
    #: run, worker, and which attempt of the run has to stop there
    aborts: list[tuple[str, str, run_duties.Abort]] = field(default_factory=list)
    sendings: list[Sending] = field(default_factory=list)
    #: runs and positions of tasks that become Kubernetes Jobs
    jobs: list[tuple[HostedRun, list[int]]] = field(default_factory=list)
    #: run, who asked, and what to answer
    answers: list[tuple[str, asyncio.Future[Any], Callable[[], Any]]] = field(default_factory=list)
    #: runs that are let go -> when they are to be looked at again, epoch ms
    passive: dict[str, int | None] = field(default_factory=dict)

    def step(self, hosted: HostedRun, command: plan_run.Command | wait_decisions.Command) -> None:
        """The run takes a step. Raises what `HostedRun.step` raises, and then nothing has changed."""
        self.took(hosted, hosted.step(command, self.now()))

    def took(self, hosted: HostedRun, aborts: list[run_duties.Abort]) -> None:
        """The run has taken a step, because of which these attempts have to stop."""
        run_id = hosted.run.run_id
        self.touched[run_id] = hosted
        for abort in aborts:
            self.aborts.append((run_id, abort.worker, abort))
        self.look(hosted)

    def touch(self, hosted: Hosted) -> None:
        """It may have something to commit, though it took no step."""
        self.touched[hosted.machine.run_id] = hosted

    def answer(self, failed: Container[str]) -> None:
        """All but what came of these runs is durable: tell whoever waits for that."""
        for run_id, asker, value in self.answers:
            if run_id not in failed:
                answer(asker, value())


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
