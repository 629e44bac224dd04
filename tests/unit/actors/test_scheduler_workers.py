"""actors.scheduler_actor: RunActors hear of every worker before they have a lease of it."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.clock import Clock
from actors.scheduler_actor import SchedulerActor
from actors.settings import Settings
from orchestrator import actor_codec
from orchestrator.control import Hosting, Roster, Standing
from orchestrator.errors import ActorUnreachable
from tests.fakes_journal import MemoryJournal
from tests.unit.actors.test_supervisor import NoPeers

HERE = (("w0", "i1"), ("w1", "i1"))


class Answering(NoPeers):
    """Workers that are there, and RunActors that take what they are told, unless they are deaf."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Hosting]] = []
        self.deaf = 0

    async def control(self, _worker: str, method: str, *_args: Any) -> Any:
        return "i1" if method == "ping" else ("host", 1, "node-1")

    async def tell(self, actor: str, _method: str, blob: bytes) -> None:
        if self.deaf:
            self.deaf -= 1
            raise ActorUnreachable(actor, "deaf")
        self.told.append((actor, actor_codec.decode_hosting(blob)))

    def workers_told(self, actor: str) -> list[tuple[tuple[str, str], ...]]:
        return [message.workers for name, message in self.told if name == actor and message.workers]


def begin(peers: Answering) -> SchedulerActor:
    scheduler = SchedulerActor(MemoryJournal(), peers, Clock(), Settings())  # type: ignore[arg-type]  # these calls do
    scheduler._take_roster(Roster(("run-actor-0",), (("w0", "default"), ("w1", "default"))))
    return scheduler


async def decide(scheduler: SchedulerActor) -> None:
    await asyncio.sleep(0.01)
    scheduler._decide()
    await asyncio.sleep(0.01)


async def test_a_run_actor_is_told_of_workers_once_and_again_when_it_is_another_one() -> None:
    peers = Answering()
    scheduler = begin(peers)
    await decide(scheduler)
    await decide(scheduler)
    assert peers.workers_told("run-actor-0") == [HERE]
    scheduler._take_standing(Standing("run-actor-0", 2))
    await decide(scheduler)
    assert peers.workers_told("run-actor-0") == [HERE, HERE]


async def test_a_run_actor_that_comes_later_is_told_of_all() -> None:
    peers = Answering()
    scheduler = begin(peers)
    await decide(scheduler)
    scheduler._take_roster(Roster(("run-actor-0", "run-actor-1"), (("w0", "default"), ("w1", "default"))))
    await decide(scheduler)
    assert (peers.workers_told("run-actor-0"), peers.workers_told("run-actor-1")) == ([HERE], [HERE])


async def test_what_was_not_heard_is_told_again() -> None:
    peers = Answering()
    peers.deaf = 1
    scheduler = begin(peers)
    await decide(scheduler)
    await asyncio.sleep(0.3)  # it is told again after 0.2 s
    assert peers.workers_told("run-actor-0") == [HERE]
