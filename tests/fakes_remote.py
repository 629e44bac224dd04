"""The gateway as API replicas see it, without jobs: sessions are the real ones (`actors/replica_book.py`).

A test decides what polls get (`assign`, `expire`), and when the gateway is away or begins anew. `asked` has every
request but Listen, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from actors.clock import Clock
from actors.replica_book import ReplicaBook
from orchestrator import outside_codec
from orchestrator import remote as r
from orchestrator import webhook_messages as wm
from orchestrator.errors import ActorUnreachable


class FakeRemote:
    """`ports.ControlPlane`, as far as jobs and remote workers need it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = 0
        self._book = ReplicaBook(clock, 0)
        self.asked: list[r.Request | wm.Request] = []
        #: polls that are open: id -> replica
        self.open: dict[int, r.Poll] = {}
        self.listens = 0
        self.away = False
        #: calls wait here while it is not set
        self.gate = asyncio.Event()
        self.gate.set()
        #: what other requests are answered, by class
        self.answers: dict[type, Callable[[Any], r.Answer]] = {}
        self.outbox: Callable[[Any], wm.Answer] = lambda _: wm.Answer()
        #: classes of requests whose next call is lost on its way
        self.loses: list[type] = []
        self.slots = b"[]"

    # -- what tests do to it

    def assign(self, poll_id: int, **task: Any) -> None:
        """The poll gets a task."""
        poll = self.open.pop(poll_id)
        session = self._book.hear(poll.replica)
        session.push(r.Assigned(poll_id, task))
        session.finish(poll_id)

    def expire(self, poll_id: int) -> None:
        """The poll's time is over."""
        poll = self.open.pop(poll_id)
        self._book.hear(poll.replica).push(r.Expired(poll_id))

    def say(self, worker: tuple[str, str], **body: Any) -> int:
        """Tell it to the worker's socket, or to the anonymous ones; how many there were."""
        addressees = self._book.addressees(worker)
        for session, serial in addressees:
            session.push(r.Say(serial, body))
        return len(addressees)

    def push(self, push: r.Push) -> None:
        """To every replica."""
        for session in list(self._book._sessions.values()):
            session.push(push)

    def restart(self) -> None:
        """It has lost all that it knew; calls that wait fail."""
        self._began += 1_000
        gone, self._book = self._book, ReplicaBook(self._clock, self._began)
        gone.end_all()
        self.open.clear()

    @property
    def sessions(self) -> int:
        """Replicas that it knows."""
        return len(self._book._sessions)

    def unacknowledged(self) -> int:
        """Pushes that no replica has acknowledged."""
        return sum(len(each.owed) for each in self._book._sessions.values())

    # -- the port

    async def gateway_exists(self) -> bool:
        return True

    async def gateway(self, ward: str, request: bytes, patience_s: float = 5.0) -> bytes:
        await self.gate.wait()
        if self.away:
            raise ActorUnreachable("gateway-0", "restarting")
        if ward == "webhooks":
            self.asked.append(outside_codec.decode_webhook_request(request))
            return outside_codec.encode_webhook_answer(self.outbox(self.asked[-1]))
        assert ward == "jobs"
        return outside_codec.encode_answer(await self._answer(outside_codec.decode_request(request)))

    async def workers(self) -> bytes:
        return self.slots

    async def _answer(self, request: r.Request) -> r.Answer:
        if isinstance(request, r.Listen):
            return await self._listen(request)
        if type(request) in self.loses:
            self.loses.remove(type(request))
            raise ActorUnreachable("gateway-0", "lost on its way")
        self.asked.append(request)
        match request:
            case r.Poll():
                self._open(request)
            case r.Polls():
                for poll in request.polls:
                    self._open(poll)
            case r.Withdraw():
                for poll_id in request.poll_ids:
                    self.open.pop(poll_id, None)
            case r.Sockets():
                self._book.sockets(request)
        answer = self.answers.get(type(request))
        return r.Answer() if answer is None else answer(request)

    def _open(self, poll: r.Poll) -> None:
        self._book.hear(poll.replica)
        self.open[poll.poll_id] = poll

    async def _listen(self, request: r.Listen) -> r.Answer:
        self.listens += 1
        book = self._book
        pushes = await book.listen(request)
        if self.away or book is not self._book:
            raise ActorUnreachable("gateway-0", "died")
        return r.Answer(pushes)
