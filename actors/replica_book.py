"""The API replicas that talk to the gateway: their sessions, the sockets they keep, the pushes they are owed.

    session     begins with whatever a replica says first; ends when it is silent, falls too far behind, or with us
    push        numbered within its session, sent again with each Listen until a Listen acknowledges it

A session has a number that no other one ever had, so that a replica notices that it has a new one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from actors.clock import Clock
from orchestrator import remote as r
from orchestrator.remote_dispatch import WorkerKey

#: pushes in one answer
_BATCH = 1_000
#: withdrawn polls that a session remembers: their opening may come after it
_WITHDRAWN_MAX = 10_000


@dataclass(slots=True)
class Session:
    """One replica, for as long as it keeps in touch."""

    replica: str
    number: int
    heard_s: float
    #: number of the last push
    last: int = 0
    #: pushes that were not acknowledged
    owed: deque[tuple[int, r.Push]] = field(default_factory=deque)
    #: serial -> tenant and worker id, "" = anonymous
    sockets: dict[int, WorkerKey] = field(default_factory=dict)
    #: polls that were answered, or are never to be opened
    over: OrderedDict[int, None] = field(default_factory=OrderedDict)
    #: the Listen that waits
    listener: asyncio.Future[None] | None = None

    def push(self, push: r.Push) -> None:
        """To be told to the replica."""
        self.last += 1
        self.owed.append((self.last, push))
        self.wake()

    def finish(self, poll_id: int) -> None:
        """The poll has had its answer, or is withdrawn; opening it (again) changes nothing."""
        self.over[poll_id] = None
        while len(self.over) > _WITHDRAWN_MAX:
            self.over.popitem(last=False)

    def unheard(self) -> Iterator[int]:
        """Polls to which a task was pushed that nobody acknowledged."""
        return (push.poll_id for _, push in self.owed if isinstance(push, r.Assigned))

    def wake(self) -> None:
        """Whoever listens looks again."""
        if self.listener is not None and not self.listener.done():
            self.listener.set_result(None)


class ReplicaBook:
    """Sessions by the replica's name. `first`: number of the first session; no two books may share numbers."""

    def __init__(self, clock: Clock, first: int) -> None:
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._number = first
        #: worker -> its socket: replica and serial
        self._sockets: dict[WorkerKey, tuple[str, int]] = {}

    def hear(self, replica: str) -> Session:
        """The replica's session; a new one when it has none."""
        session = self._sessions.get(replica)
        if session is None:
            self._number += 1
            session = self._sessions[replica] = Session(replica, self._number, self._clock.monotonic())
        session.heard_s = self._clock.monotonic()
        return session

    def find(self, replica: str) -> Session | None:
        """Its session, if it has one."""
        return self._sessions.get(replica)

    async def listen(self, ask: r.Listen) -> r.Pushes:
        """What it is owed; waits for that if there is nothing."""
        session = self.hear(ask.replica)
        if ask.session == session.number:
            while session.owed and session.owed[0][0] <= ask.after:
                session.owed.popleft()
        session.wake()  # a former Listen is answered, without any
        session.listener = None
        known = ask.session == session.number
        if known and not session.owed:
            listener = session.listener = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait_for(listener, min(max(ask.timeout_s, 0.0), r.LISTEN_MAX_S))
            except TimeoutError:
                pass
            session.heard_s = self._clock.monotonic()
            if session.listener is not listener:
                return r.Pushes(ask.after, (), session.number)
            session.listener = None
        first = [session.owed[n] for n in range(min(_BATCH, len(session.owed)))]
        last = first[-1][0] if first else ask.after if known else 0
        return r.Pushes(last, tuple(push for _, push in first), session.number)

    def lost(self) -> list[Session]:
        """Sessions that end now: nobody listens, or too much is owed."""
        silent_s = self._clock.monotonic() - r.REPLICA_SILENT_S
        gone = [
            session
            for session in self._sessions.values()
            if len(session.owed) > r.PUSHES_MAX or (session.listener is None and session.heard_s < silent_s)
        ]
        for session in gone:
            self._end(session)
        return gone

    def end_all(self) -> list[Session]:
        """Every session ends."""
        gone = list(self._sessions.values())
        for session in gone:
            self._end(session)
        return gone

    def _end(self, session: Session) -> None:
        del self._sessions[session.replica]
        for serial in list(session.sockets):
            self._forget(session, serial)
        session.wake()

    # ── sockets ───────────────────────────────────────────────────────────────────────────────────

    def sockets(self, ask: r.Sockets) -> list[WorkerKey]:
        """Sockets were opened and lost. The workers that opened one."""
        session = self.hear(ask.replica)
        for serial in ask.closed:
            self._forget(session, serial)
        for serial, worker_id in ask.opened:
            self._open(session, serial, (ask.tenant, worker_id))
        return [(ask.tenant, worker_id) for _, worker_id in ask.opened if worker_id]

    def _open(self, session: Session, serial: int, worker: WorkerKey) -> None:
        if serial in session.sockets:
            return
        session.sockets[serial] = worker
        if worker[1]:
            replica, old = self._sockets.get(worker, ("", 0))
            holder = self._sessions.get(replica)
            if holder is not None:
                holder.push(r.Close(old))
                self._forget(holder, old)
            self._sockets[worker] = (session.replica, serial)

    def _forget(self, session: Session, serial: int) -> None:
        worker = session.sockets.pop(serial, None)
        if worker is not None and self._sockets.get(worker) == (session.replica, serial):
            del self._sockets[worker]

    def addressees(self, worker: WorkerKey) -> list[tuple[Session, int]]:
        """Where a command for the worker goes: its own socket, else every anonymous one of its tenant."""
        replica, serial = self._sockets.get(worker, ("", 0))
        session = self._sessions.get(replica)
        if session is not None:
            return [(session, serial)]
        return [
            (session, serial)
            for session in self._sessions.values()
            for serial, (tenant, worker_id) in session.sockets.items()
            if not worker_id and tenant == worker[0]
        ]
