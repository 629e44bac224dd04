"""A journal, receivers that come and go, and an outbox of webhooks that can be killed: in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import msgspec

from actors import names
from actors.webhook_post import PostFailed
from actors.webhooks import RECORD, Webhooks, mail
from orchestrator.steps import Commit, Mail
from orchestrator.webhook import PENDING, Notice
from tests.fakes_journal import MemoryJournal
from tests.virtual_time import VirtualLoop, WorldClock

HOUR_S = 3600.0


class Receiver:
    """Whoever is told: up or down, quick or slow, per host."""

    def __init__(self) -> None:
        #: (virtual seconds, url, headers, body) of what arrived
        self.arrived: list[tuple[float, str, dict[str, str], bytes]] = []
        #: attempts on hosts that are down, virtual seconds
        self.missed: list[float] = []
        self.down: set[str] = set()
        self.hanging: set[str] = set()
        self.status = 200

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """As `WebhookPost`."""
        host, now_s = url.split("/")[2], asyncio.get_running_loop().time()
        if host in self.hanging:
            await asyncio.sleep(10.0)
            raise PostFailed("no answer within 10 s")
        if host in self.down:
            self.missed.append(now_s)
            raise PostFailed("ConnectError: refused")
        self.arrived.append((now_s, url, headers, body))
        return self.status

    @property
    def ids(self) -> Counter[str]:
        """How often each webhook arrived."""
        return Counter(headers["webhook-id"] for _, _, headers, _ in self.arrived)


class Stage:
    """A journal, a receiver, and an outbox that can be killed and started again."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.journal, self.receiver = MemoryJournal(), Receiver()
        self.clock = WorldClock(loop, Random(1))
        self.turn = 0
        self.crashes = 0
        self.outbox = self.start()

    def start(self) -> Webhooks:
        """A new incarnation."""
        outbox = Webhooks(self.journal, self.clock, self.receiver.post, lambda tenant, client: f"{tenant}-{client}", 6)
        outbox.on_crash = self.crashed  # type: ignore[method-assign]  # as who makes one does
        outbox.start()
        return outbox

    def crashed(self) -> None:
        """A task of an outbox failed."""
        self.crashes += 1

    async def restart(self) -> None:
        """The process dies where it stands, and a new one begins."""
        for task in list(self.outbox._tasks):
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
        for timer in self.outbox._timers.values():
            timer.cancel()
        self.outbox = self.start()
        await self.outbox.ping()

    async def tell(self, *numbers: int, host: str = "a.example", tenant: str = "t") -> None:
        """Jobs with these numbers end, in one commit."""
        if not self.turn:
            await self.journal.take_epoch(names.JOBS)
        self.turn += 1
        letters = tuple(self.letter(n, host, tenant) for n in numbers)
        await self.journal.commit(Commit(owner=names.JOBS, epoch=1, turn=self.turn, mail=letters))

    def letter(self, number: int, host: str, tenant: str) -> Mail:
        url, payload = f"https://{host}/hook", msgspec.Raw(b'{"n": %d}' % number)
        return mail(names.JOBS, Notice(f"msg_{number}", tenant, "ann", url, "job_finished", f"j{number}", payload))

    async def states(self) -> Counter[str]:
        """State -> deliveries, of memory and of the journal alike."""
        found = await self.outbox.deliveries("t")
        kept = [msgspec.json.decode(record) for record in (await self.journal.records(RECORD)).values()]
        assert Counter(each.state for each in found) == Counter(each.get("state", PENDING) for each in kept)
        return Counter(each.state for each in found)
