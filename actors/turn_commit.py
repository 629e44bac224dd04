"""One commit a turn: everything that a RunActor decided in it, and what the journal says to that.

    turn ─▶ appends of what is dirty or let go ─▶ journal ─▶ ok: durable
                                                         └─▶ else in doubt: the run is read again, and what led to its
                                                             steps is handled again, or refused if that cannot help

A commit whose answer was lost is sent again as it is: the journal knows owner, epoch and turn. In doubt is a run to
which somebody else wrote (an API replica, a former incarnation's commit), or which belongs to somebody else by now.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from actors.hosted import Hosted
from actors.mail import Admitted, Asked, Redo, RunMessage, answer, refuse, replayed
from actors.residents import Residents
from actors.turn import Turn, is_of, letting_go, mail_of, turn_counts
from orchestrator.control import Admission
from orchestrator.ports import Journal
from orchestrator.steps import Append, Commit, CommitResult

_log = logging.getLogger(__name__)

#: a message is handled this often before it is refused as unavailable
TRIES_MAX = 5

Insist = Callable[[Callable[[], Awaitable[list[CommitResult]]]], Awaitable[list[CommitResult]]]


class TurnCommit:
    """Commits of one incarnation of a RunActor, `epoch`, one after another.

    `insist` tries until the journal answers, `post` has a message handled again, `decline` hears of admissions that the
    journal refused, and `extra_counts` is asked what else to add to the metrics.
    """

    def __init__(
        self,
        name: str,
        epoch: int,
        journal: Journal,
        residents: Residents,
        insist: Insist,
        post: Callable[[RunMessage], None],
        decline: Callable[[Admission], None],
        extra_counts: Callable[[], list[tuple[str, int]]],
    ) -> None:
        self._name = name
        self._epoch = epoch
        self._journal = journal
        self._residents = residents
        self._insist = insist
        self._post = post
        self._decline = decline
        self._extra_counts = extra_counts
        self._turn = 0

    async def make_durable(self, turn: Turn, cursor: str | None) -> dict[str, CommitResult]:
        """Runs whose steps the journal did not take, and its answer; all else that the turn did is durable, and the
        inbox handled up to `cursor`.
        """
        dirty = [hosted for hosted in turn.touched.values() if hosted.dirty]
        appends = [hosted.append() for hosted in dirty]
        if turn.passive:
            appends += self._letting_go(turn)
        if not appends:
            return {}
        self._turn += 1
        commit = Commit(
            owner=self._name,
            epoch=self._epoch,
            turn=self._turn,
            appends=tuple(appends),
            cursor=cursor,
            counts=(*turn_counts(dirty), *self._extra_counts()),
            mail=tuple(mail for it in dirty if it.notices or it.updates for mail in mail_of(self._name, it)),
        )
        failed = self._take(dirty, await self._insist(partial(self._journal.commit, commit)))
        for run_id, result in failed.items():
            self._doubt(turn, run_id, result)
        return failed

    def _letting_go(self, turn: Turn) -> list[Append]:
        here = self._residents.here
        return [
            letting_go(here[run_id], wake)
            for run_id, wake in turn.passive.items()
            if run_id in here and run_id not in turn.touched
        ]

    def _take(self, dirty: list[Hosted], results: list[CommitResult]) -> dict[str, CommitResult]:
        failed: dict[str, CommitResult] = {}
        for hosted, result in zip(dirty, results, strict=False):
            if result.status == "ok":
                hosted.committed()
            else:
                failed[result.run_id] = result
        for result in results[len(dirty) :]:
            if result.status in ("ok", "stale", "missing"):
                self._residents.forget(result.run_id)
        return failed

    def _doubt(self, turn: Turn, run_id: str, result: CommitResult) -> None:
        """The journal did not take what this turn did to a run: read it again, and handle its messages again."""
        kept = turn.touched[run_id].idem if run_id in turn.touched else None
        if result.owner == self._name:
            self._residents.read_again(run_id)
        else:
            self._residents.forget(run_id)
        again: list[RunMessage] = [Redo(run_id, command) for command in turn.commands.pop(run_id, [])]
        for message in turn.messages.pop(run_id, []) + again:
            message.tries += 1
            if result.status == "refused" and isinstance(message, Admitted):
                self._decline(message.admission)
            elif result.status in ("replayed", "conflict") and isinstance(message, Asked) and is_of(message, kept):
                answer(message.answer, replayed(result))
            elif result.status == "missing" or message.tries >= TRIES_MAX:
                refuse(message, f"run {run_id} is {result.status} here; its owner is {result.owner or 'nobody'}")
            elif result.owner not in ("", self._name):
                refuse(message, f"run {run_id} moved to {result.owner}", "moved")
            else:
                self._post(message)
        _log.info(
            "append to %s was answered %s (version %d, owner %s)", run_id, result.status, result.version, result.owner
        )
