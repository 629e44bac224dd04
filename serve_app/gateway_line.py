"""One replica's line to the gateway: every open poll and worker socket of the replica over two calls at a time.

    poll, socket ──▶ news ──one call at a time (sender)──▶ gateway        Polls, Withdraw, Sockets, Alive
    outcomes, texts ◀──pushes── one Listen at a time (listener) ◀── gateway

What comes while the sender's call is under way travels with the next one. What the gateway knows of this replica is one
session; in a new one (it was restarted, or we were silent for too long) everything that is open is told again. So a
poll outlives a restart of the gateway: it goes on waiting until its own time is over. Pushes are acknowledged by the
next Listen; one that is told twice, or that is about something that is over, has no effect. Source: jobs contract,
section 4; `orchestrator/remote.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from actors.clock import Clock
from orchestrator import outside_codec
from orchestrator import remote as r
from orchestrator.errors import OrchestratorError
from orchestrator.ports import ControlPlane

WARD = "jobs"
#: seconds between two tries to reach the gateway: at first, and at most
PAUSE_S, PAUSE_MAX_S = 0.05, 1.0
#: seconds after which a call that should be answered at once is given up
CALL_S = 5.0
#: how long after its time a poll of which nothing was heard is over
GRACE_S = 1.0
#: how often workers with open sockets are told to be alive: their pings were answered, or the sockets would be closed
ALIVE_S = 20.0
#: polls, or sockets, in one call
BATCH = 2_000

_log = logging.getLogger(__name__)
V = TypeVar("V")


class OpenPoll:
    """One poll. `outside_ports.Polling`: a task, or None."""

    __slots__ = ("_line", "deadline_s", "given", "outcome", "poll_id", "timer", "wanted")

    def __init__(self, line: GatewayLine, poll_id: int, wanted: r.Poll) -> None:
        loop = asyncio.get_running_loop()
        self._line = line
        self.poll_id = poll_id
        self.wanted = wanted
        self.deadline_s = loop.time() + wanted.timeout_s
        self.outcome: asyncio.Future[dict[str, Any] | None] = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None

    def withdraw(self) -> None:
        """Nobody waits for it any more; a task that it was given goes back to the queue."""
        self._line.withdraw(self)


class OpenSocket:
    """One worker's socket: iterates over what is to be told to it, until it is replaced. To be closed in any case."""

    __slots__ = ("_line", "serial", "tenant", "texts", "worker_id")

    def __init__(self, line: GatewayLine, serial: int, tenant: str, worker_id: str) -> None:
        self._line = line
        self.serial = serial
        self.tenant = tenant
        self.worker_id = worker_id
        #: None = it is replaced
        self.texts: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def __aiter__(self) -> OpenSocket:
        return self

    async def __anext__(self) -> dict[str, Any]:
        text = await self.texts.get()
        if text is None:
            raise StopAsyncIteration
        return text

    async def aclose(self) -> None:
        """Nobody listens any more."""
        self._line.close(self)


class GatewayLine:
    """Polls and sockets of this replica."""

    def __init__(self, control: ControlPlane, clock: Clock, draining: asyncio.Event) -> None:
        self._control = control
        self._draining = draining
        self._replica = clock.token()
        self._numbers = itertools.count(1)
        self._polls: dict[int, OpenPoll] = {}
        self._sockets: dict[int, OpenSocket] = {}
        #: what the gateway has not been told: numbers, in order
        self._unopened: dict[int, None] = {}
        self._withdrawn: dict[int, None] = {}
        self._to_open: dict[int, None] = {}
        self._to_close: dict[int, str] = {}
        #: what Listen says: session, last push that came, last one that was acknowledged
        self._session = self._last = self._acknowledged = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # ── polls ─────────────────────────────────────────────────────────────────────────────────────

    def poll(
        self, tenant: str, worker_id: str, timeout_s: float, available_skills: Sequence[str], hot_skills: Sequence[str]
    ) -> OpenPoll:
        """A poll that is open, or on its way to be."""
        number = next(self._numbers)
        skills, hot = tuple(available_skills), tuple(hot_skills)
        poll = OpenPoll(self, number, r.Poll(tenant, self._replica, number, worker_id, timeout_s, skills, hot))
        if self._draining.is_set():
            poll.outcome.set_result(None)
            return poll
        # the gateway should say in time that it expired, but may be away
        poll.timer = asyncio.get_running_loop().call_later(timeout_s + GRACE_S, poll.withdraw)
        self._polls[number] = poll
        self._unopened[number] = None
        self._send()
        self._keep("drainer", self._drain)
        return poll

    def withdraw(self, poll: OpenPoll) -> None:
        """Nothing that was assigned to the poll has reached its worker, nor will it."""
        if not self._answered(poll.poll_id, None) and poll.outcome.result() is None:
            return
        self._withdrawn[poll.poll_id] = None
        self._send()

    def _answered(self, poll_id: int, task: dict[str, Any] | None) -> bool:
        """The poll is over; False when it was before."""
        poll = self._polls.pop(poll_id, None)
        if poll is None:
            return False
        self._unopened.pop(poll_id, None)
        _settle(poll, task)
        return True

    # ── sockets ───────────────────────────────────────────────────────────────────────────────────

    async def socket(self, tenant: str, worker_id: str) -> OpenSocket:
        """A socket that the gateway knows. Raises ActorUnreachable."""
        socket = OpenSocket(self, next(self._numbers), tenant, worker_id)
        self._sockets[socket.serial] = socket
        try:
            await self.ask(r.Sockets(tenant, self._replica, opened=((socket.serial, worker_id),)))
        except BaseException:
            self.close(socket)
            raise
        self._keep("listener", self._listen_on)
        self._keep("life", self._keep_alive)
        return socket

    def close(self, socket: OpenSocket) -> None:
        """The socket is gone, if it was not before."""
        if self._sockets.pop(socket.serial, None) is not None:
            self._to_open.pop(socket.serial, None)
            self._to_close[socket.serial] = socket.tenant
            self._send()

    async def _keep_alive(self) -> None:
        while self._sockets:
            await asyncio.sleep(ALIVE_S)
            workers: dict[str, list[str]] = {}
            for socket in self._sockets.values():
                if socket.worker_id:
                    workers.setdefault(socket.tenant, []).append(socket.worker_id)
            for tenant, ids in workers.items():
                await self._try(r.Alive(tenant, tuple(ids)))

    # ── to the gateway ────────────────────────────────────────────────────────────────────────────

    async def ask(self, request: r.Request, patience_s: float = CALL_S) -> r.Answer:
        """The gateway's answer. Raises ActorUnreachable."""
        return outside_codec.decode_answer(
            await self._control.gateway(WARD, outside_codec.encode_request(request), patience_s)
        )

    def _send(self) -> None:
        self._keep("sender", self._send_on)
        self._keep("listener", self._listen_on)

    async def _send_on(self) -> None:
        pause_s = PAUSE_S
        while self._unopened or self._withdrawn or self._to_open or self._to_close:
            # what fails is told again: the gateway minds nothing that it is told twice
            if await self._send_polls() and await self._send_withdrawn() and await self._send_sockets():
                pause_s = PAUSE_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(PAUSE_MAX_S, pause_s * 2)

    async def _send_polls(self) -> bool:
        now_s = asyncio.get_running_loop().time()
        polls = tuple(_with_time_left(self._polls[number], now_s) for number in _taken(self._unopened))
        if not polls or await self._try(polls[0] if len(polls) == 1 else r.Polls(polls)):
            return True
        self._unopened.update((each.poll_id, None) for each in polls if each.poll_id in self._polls)
        return False

    async def _send_withdrawn(self) -> bool:
        numbers = _taken(self._withdrawn)
        if not numbers or await self._try(r.Withdraw(self._replica, tuple(numbers))):
            return True
        self._withdrawn.update(numbers)
        return False

    async def _send_sockets(self) -> bool:
        opened, closed = [self._sockets[number] for number in _taken(self._to_open)], _taken(self._to_close)
        for tenant in {*(each.tenant for each in opened), *closed.values()}:
            pairs = tuple((each.serial, each.worker_id) for each in opened if each.tenant == tenant)
            gone = tuple(serial for serial, owner in closed.items() if owner == tenant)
            if not await self._try(r.Sockets(tenant, self._replica, pairs, gone)):
                self._to_open.update((each.serial, None) for each in opened if each.serial in self._sockets)
                self._to_close.update(closed)
                return False
        return True

    async def _try(self, request: r.Request) -> bool:
        try:
            await self.ask(request)
        except OrchestratorError as failure:
            _log.warning("the gateway was not told: %s", failure)
            return False
        return True

    # ── from the gateway ──────────────────────────────────────────────────────────────────────────

    async def _listen_on(self) -> None:
        """As long as something is open, or was told and not acknowledged."""
        pause_s = PAUSE_S
        while self._polls or self._sockets or self._acknowledged != self._last:
            wait_s = r.LISTEN_MAX_S if self._polls or self._sockets else 0.0
            listen = r.Listen(self._replica, wait_s, self._last, self._session)
            try:
                self._take(listen, outside_codec.pushes_of(await self.ask(listen, wait_s + CALL_S)))
                pause_s = PAUSE_S
            except OrchestratorError as failure:
                _log.warning("the gateway cannot be heard: %s", failure)
                await asyncio.sleep(pause_s)
                pause_s = min(PAUSE_MAX_S, pause_s * 2)

    def _take(self, listen: r.Listen, pushes: r.Pushes) -> None:
        begun = pushes.session != self._session
        self._acknowledged = listen.after
        self._session, self._last = pushes.session, pushes.last
        if begun:
            self._acknowledged = 0
        for each in pushes.pushes:
            self._take_push(each)
        if begun:
            self._unopened.update(dict.fromkeys(self._polls))
            self._to_open.update(dict.fromkeys(self._sockets))
            self._send()

    def _take_push(self, push: r.Push) -> None:
        match push:
            case r.Assigned():
                self._answered(push.poll_id, push.task)
            case r.Expired():
                self._answered(push.poll_id, None)
            case r.Say():
                if (socket := self._sockets.get(push.serial)) is not None:
                    socket.texts.put_nowait(push.body)
            case r.Close():
                if (socket := self._sockets.get(push.serial)) is not None:
                    socket.texts.put_nowait(None)

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def _drain(self) -> None:
        """Once this server is about to go away, no poll waits any longer."""
        await self._draining.wait()
        for poll in list(self._polls.values()):
            poll.withdraw()

    def _keep(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The task of that name runs; not in the caller's context, by which Ray would cancel it."""
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(work(), context=contextvars.Context())


def _settle(poll: OpenPoll, task: dict[str, Any] | None) -> None:
    if poll.timer is not None:
        poll.timer.cancel()
    if not poll.outcome.done():
        poll.outcome.set_result(task)


def _with_time_left(poll: OpenPoll, now_s: float) -> r.Poll:
    asked = poll.wanted
    return r.Poll(
        asked.tenant,
        asked.replica,
        asked.poll_id,
        asked.worker_id,
        max(0.0, poll.deadline_s - now_s),
        asked.available_skills,
        asked.hot_skills,
    )


def _taken(numbers: dict[int, V]) -> dict[int, V]:
    """The first few of `numbers`, which are not among them any more."""
    some = dict(itertools.islice(numbers.items(), BATCH))
    for number in some:
        del numbers[number]
    return some
