"""What became of the attempts of a batch whose exchange failed, although its worker lives.

    exchange fails ──▶ give_back: nothing of the batch starts any more, should it arrive only now ──▶ holding
                          it ended there: its report   ·   it never began: given back   ·   it runs: waited for

Both questions are for one incarnation; another one has nothing of the batch. After the first answer an attempt is in
exactly one of the three places, and moves only from running to reported: so the second answer is right about all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from actors.peers import Peers, WorkerGone
from orchestrator import actor_codec
from orchestrator.messages import Holding, Settled

#: (run id, task, attempt)
Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Found:
    """What a worker told."""

    settled: Settled
    #: attempts of the batch that run there
    live: frozenset[Key]


async def look(
    peers: Peers, worker: str, incarnation: str, owner: str, epoch: int, number: int
) -> tuple[Settled, Holding]:
    """What the worker answers about the batch of that number. Raises WorkerGone, also when it was started anew."""
    settled = actor_codec.decode_settled(await peers.control(worker, "give_back", owner, number, epoch))
    holding = actor_codec.decode_holding(await peers.control(worker, "holding", owner, epoch))
    if not settled.incarnation == holding.incarnation == incarnation:
        raise WorkerGone(worker, f"{incarnation} was followed by {holding.incarnation}")
    return settled, holding


def found(open_: Iterable[Key], settled: Settled, holding: Holding, sent: bool) -> Found:
    """Sort the attempts of a batch. Those that the worker does not know never arrived if they were `sent` with it."""
    live = frozenset(open_).intersection(holding.live)
    ended = {(r.run_id, r.task, r.attempt) for r in holding.reports}
    untouched = set(settled.untouched)
    never = [key for key in open_ if key not in live | ended | untouched] if sent else []
    told = msgspec.structs.replace(settled, reports=holding.reports, untouched=(*settled.untouched, *never))
    return Found(told, live)
