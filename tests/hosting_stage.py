"""RunActors, workers and a supervisor for what the scheduler tells them: what they hear, and who does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from actors.clock import Clock
from actors.host_mailer import HostMailer
from actors.hosts import Hosts
from actors.peers import WorkerGone
from actors.worker_arrivals import WorkerArrivals
from orchestrator import actor_codec
from orchestrator.control import Hosting
from orchestrator.errors import ActorUnreachable
from orchestrator.slots import Slots

EPOCH = 7


class LoopClock(Clock):
    """Monotonic time is the loop's, which may be virtual."""

    def monotonic(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()


class Answering:
    """Peers that answer, unless they are deaf or away."""

    def __init__(self) -> None:
        #: (RunActor, what it was told), and what the supervisor was: (method, actor, number)
        self.told: list[tuple[str, Hosting]] = []
        self.orders: list[tuple[str, str, int]] = []
        #: how many messages to RunActors are not heard from now on
        self.deaf = 0
        #: how long a message to a RunActor takes
        self.takes_s = 0.0
        #: worker -> incarnation, of those that are not there
        self.away: set[str] = set()
        self.incarnations: dict[str, str] = {}

    async def control(self, worker: str, method: str, *_args: Any) -> Any:
        """A worker that is there says who and where it is."""
        await asyncio.sleep(self.takes_s)
        if worker in self.away:
            raise WorkerGone(worker, "it is away")
        return self.incarnations.get(worker, "i1") if method == "ping" else ("host", 1, "node-1")

    async def tell(self, actor: str, method: str, blob: bytes) -> None:
        """Heard, or not."""
        if actor == "supervisor":
            number, name = actor_codec.decode_supervision(blob)
            self.orders.append((method, name, number))
            return
        await asyncio.sleep(self.takes_s)
        if self.deaf:
            self.deaf -= 1
            raise ActorUnreachable(actor, "deaf")
        self.told.append((actor, actor_codec.decode_hosting(blob)))

    def heard_by(self, actor: str) -> list[Hosting]:
        """What it was told, in order."""
        return [message for name, message in self.told if name == actor]


class HostingStage:
    """The parts of a scheduler that talk to RunActors. In a running loop."""

    def __init__(self) -> None:
        self.peers = Answering()
        self.slots = Slots()
        self.released: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        clock = LoopClock()
        peers: Any = self.peers
        self.hosts = Hosts(clock, self.slots, self._release)
        self.mailer = HostMailer(peers, clock, self.slots, self.hosts, self.spawn)
        self.workers = WorkerArrivals(peers, clock, self.slots, self.spawn, self.hosts.worker_there)
        self.hosts.begin(EPOCH)
        self.mailer.begin(EPOCH)

    def _release(self, name: str) -> None:
        self.released.append(name)
        self.mailer.release(name)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it beside."""
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def lease(self, host: str) -> int:
        """The number of a lease of a free slot that the RunActor has from now on."""
        grant = self.slots.spare(host, 0.0)
        assert grant is not None
        self.hosts.by_name[host].grant(grant)
        return grant.lease

    async def send(self, wait_s: float = 0.0) -> None:
        """Decide, and let what follows happen."""
        self.mailer.send(asyncio.get_running_loop().time())
        await self.pass_(wait_s)

    async def pass_(self, wait_s: float = 0.0) -> None:
        """Let that much time go by, or only what happens at once."""
        await asyncio.sleep(wait_s)
        for _ in range(5):
            await asyncio.sleep(0)
        for task in self.tasks:
            if task.done():
                task.result()
