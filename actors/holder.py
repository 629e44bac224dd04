"""A mailbox over many runs that one gateway holds: turns, group commits, recovery.

    acts ─▶ one turn: every act that waits decides and applies (memory) ─▶ one commit ─▶ answers, and what was owed

An act is a function of the turn; `do` answers what it returned once everything that the turn decided is durable, and
raises what it raised. Acts never wait, and refuse before they change anything. Runs are held here from their creation
(`NewRun.owner`) until they have ended, and by nobody else: an append that the journal calls stale means that this
process is no longer the one that it thinks it is, so it ends, and its successor reads the truth.

Two designs were open: messages with a parking place, as in `run_actor.py`, or functions. Nothing here is read in the
middle of a turn and nothing changes hands, so functions do, and each request reads from top to bottom in one place.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from actors.clock import Clock
from actors.living import Living
from orchestrator import codec
from orchestrator.errors import Broken, JournalUnavailable, OrchestratorError
from orchestrator.ports import Journal
from orchestrator.rows import EventBatch
from orchestrator.steps import Append, Commit, CommitResult, Mail
from orchestrator.streams import Born, Letter, inbox, place

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: runs that have ended and are kept in memory, for late messages about them
PAST_MAX = 2_000
#: runs read at once on recovery
LOAD_CHUNK = 500
#: milliseconds one read of the inbox waits
TAIL_MS = 10_000


class Held(Protocol):
    """One run in memory, ahead of the journal within a turn only."""

    @property
    def run_id(self) -> str: ...

    @property
    def ended(self) -> bool:
        """Is it terminal?"""

    def append(self) -> Append | None:
        """What has happened since the last commit; None = nothing."""

    def committed(self) -> None:
        """The journal has it."""

    def next_wake(self) -> datetime | None:
        """When `Holder.woken` is due for it."""


H = TypeVar("H", bound=Held)


@dataclass(slots=True)
class Turn(Generic[H]):
    """What one turn changed, and what is to be done once that is durable."""

    touched: dict[str, H] = field(default_factory=dict)
    after: list[Callable[[], None]] = field(default_factory=list)
    #: for inboxes of others, in the same atomic step
    mail: list[Mail] = field(default_factory=list)
    #: metric field -> increment
    counts: list[tuple[str, int]] = field(default_factory=list)

    def touch(self, held: H) -> None:
        """It may have changed."""
        self.touched[held.run_id] = held


Act = Callable[[Turn[H]], Any]


class Holder(Living, Generic[H]):
    """Holds runs under the name `name`. `start` returns at once; subclasses say what the runs are."""

    def __init__(self, name: str, journal: Journal, clock: Clock) -> None:
        super().__init__(name)
        self._journal = journal
        self._clock = clock
        self._held: dict[str, H] = {}
        self._past: OrderedDict[str, H] = OrderedDict()
        self._acts: list[tuple[Act[H], asyncio.Future[Any] | None]] = []
        self._wake = asyncio.Event()
        self._recovered = asyncio.Event()
        #: more of the inbox has been acted on
        self._heard = asyncio.Event()
        self._epoch = 0
        self._turn = 0
        #: what the turn under way has changed
        self._touched: dict[str, H] = {}
        self._cursor: str | None = None
        #: inbox position when this process began
        self._began = "0-0"
        #: runs that came to be known otherwise than by their `Born`, which may still be on its way
        self._met: set[str] = set()
        self._timers: dict[str, tuple[datetime, asyncio.TimerHandle]] = {}

    # ── what a subclass says ──────────────────────────────────────────────────────────────────────

    def revive(self, run_id: str, batches: Sequence[EventBatch]) -> H:
        """The run that these events make."""
        raise NotImplementedError

    def adopted(self, turn: Turn[H], held: H) -> None:
        """A run is in memory now, new or after a restart: whatever it owes is to be done."""
        raise NotImplementedError

    def woken(self, turn: Turn[H], held: H) -> None:
        """The instant `held.next_wake()` has come."""
        raise NotImplementedError

    def received(self, turn: Turn[H], letter: Letter) -> None:
        """Mail of another actor."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Read what else it needs, before any run is adopted."""

    async def expect(self, run_id: str, batches: Sequence[EventBatch]) -> None:
        """Read what `revive` needs."""

    def turned(self, turn: Turn[H]) -> None:
        """Every act of the turn has been applied: what follows from all of them, in the same commit."""

    # ── what others call ──────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin to live: recover, then serve."""
        self._spawn(self._live())

    async def do(self, act: Callable[[Turn[H]], T]) -> T:
        """What `act` returns, once all that it decided is durable. Raises what it raises."""
        await self._recovered.wait()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._acts.append((act, answer))
        self._wake.set()
        return await answer

    def post(self, act: Act[H]) -> None:
        """The same without waiting."""
        self._acts.append((act, None))
        self._wake.set()

    async def find(self, run_id: str) -> H | None:
        """The run, held or ended; None when the journal has none of that id held here. Call it before an act."""
        await self._recovered.wait()
        if (known := self._known(run_id)) is not None:
            return known
        histories = await self.insist(lambda: self._journal.load([run_id]))
        if (known := self._known(run_id)) is not None:
            return known
        if not histories or histories[0].row.holder != self.name:
            return None
        await self.expect(run_id, histories[0].batches)
        found = self.revive(run_id, histories[0].batches)
        if found.ended:
            return self._known(run_id) or self._keep_past(found)
        self._met.add(run_id)  # its `Born` is on its way
        return await self.do(partial(self._adopt_once, held=found))

    def resume(self, turn: Turn[H], held: H) -> None:
        """A run that had ended goes on, decided by this turn: it is held like any other."""
        self._past.pop(held.run_id, None)
        self._held[held.run_id] = held
        turn.touch(held)

    async def caught_up(self) -> None:
        """Whatever was in the inbox when this was called has been acted on. Raises JournalUnavailable."""
        await self._recovered.wait()
        wanted = place(await self._journal.position(inbox(self.name)))
        while place(self._cursor or "0-0") < wanted:
            self._heard.clear()
            await self._heard.wait()

    def drop(self, run_id: str) -> None:
        """Forget a run that is erased from the journal."""
        for known in (self._held, self._past, self._touched):
            known.pop(run_id, None)
        self._disarm(run_id)

    async def ready(self) -> None:
        """Returns once it is recovered."""
        await self._recovered.wait()

    async def ping(self) -> int:
        """Number of runs held, once recovered."""
        await self._recovered.wait()
        return len(self._held)

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def _live(self) -> None:
        await self._recover()
        self._spawn(self._read_inbox())
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._one_turn()

    async def _recover(self) -> None:
        self._epoch = await self.insist(lambda: self._journal.take_epoch(self.name))
        self._cursor = (await self.insist(lambda: self._journal.owner(self.name))).cursor
        self._began = await self.insist(lambda: self._journal.position(inbox(self.name)))
        await self.prepare()
        owned = await self.insist(lambda: self._journal.owned(self.name))
        for start in range(0, len(owned), LOAD_CHUNK):
            for history in await self.insist(partial(self._journal.load, owned[start : start + LOAD_CHUNK])):
                await self.expect(history.row.run_id, history.batches)
                self._met.add(history.row.run_id)
                self.post(partial(self._adopt_once, held=self.revive(history.row.run_id, history.batches)))
            await self._one_turn()
        self._recovered.set()

    def _adopt_once(self, turn: Turn[H], held: H) -> H:
        known = self._known(held.run_id)
        if known is not None:
            return known
        self._held[held.run_id] = held
        turn.touch(held)
        self.adopted(turn, held)
        return held

    def _known(self, run_id: str) -> H | None:
        return self._held.get(run_id) or self._past.get(run_id)

    # ── turns ─────────────────────────────────────────────────────────────────────────────────────

    async def _one_turn(self) -> None:
        acts, self._acts = self._acts, []
        turn: Turn[H] = Turn()
        self._touched = turn.touched
        answers: list[tuple[asyncio.Future[Any], Any]] = []
        for act, asker in acts:
            try:
                value = act(turn)
            except OrchestratorError as refused:
                if asker is None:
                    _log.warning("%s: %s", self.name, refused)
                elif not asker.done():
                    asker.set_exception(refused)
                continue
            if asker is not None:
                answers.append((asker, value))
        self.turned(turn)
        await self._commit(turn)
        for held in turn.touched.values():
            self._settle(held)
        for asker, value in answers:
            if not asker.done():
                asker.set_result(value)
        for owed in turn.after:
            owed()

    async def _commit(self, turn: Turn[H]) -> None:
        appends = {run_id: append for run_id, held in turn.touched.items() if (append := held.append()) is not None}
        if not appends and not turn.mail and not turn.counts:
            return
        self._turn += 1
        commit = Commit(
            owner=self.name,
            epoch=self._epoch,
            turn=self._turn,
            appends=tuple(appends.values()),
            cursor=self._cursor,
            counts=tuple(turn.counts),
            mail=tuple(turn.mail),
        )
        for result in await self.insist(lambda: self._journal.commit(commit)):
            self._take_result(turn, result)

    def _take_result(self, turn: Turn[H], result: CommitResult) -> None:
        if result.status == "ok":
            if result.run_id in turn.touched:  # unless it was erased since
                turn.touched[result.run_id].committed()
        elif result.status == "missing":
            _log.info("run %s was erased", result.run_id)
            self.drop(result.run_id)
        else:
            raise Broken(
                f"{self.name} wrote to {result.run_id} and was answered {result.status}: {result.owner!r} has it"
            )

    def _settle(self, held: H) -> None:
        if held.ended:
            self._held.pop(held.run_id, None)
            self._disarm(held.run_id)
            self._keep_past(held)
        else:
            self._past.pop(held.run_id, None)
            self._held[held.run_id] = held
            self._arm(held)

    def _keep_past(self, held: H) -> H:
        self._past[held.run_id] = held
        self._past.move_to_end(held.run_id)
        while len(self._past) > PAST_MAX:
            self._past.popitem(last=False)
        return held

    # ── timers ────────────────────────────────────────────────────────────────────────────────────

    def _arm(self, held: H) -> None:
        at = held.next_wake()
        armed = self._timers.get(held.run_id)
        if armed is not None and armed[0] == at:
            return
        self._disarm(held.run_id)
        if at is not None:
            delay_s = max(0.0, (at - self._clock.now()).total_seconds())
            handle = asyncio.get_running_loop().call_later(delay_s, self._ring, held.run_id)
            self._timers[held.run_id] = (at, handle)

    def _disarm(self, run_id: str) -> None:
        armed = self._timers.pop(run_id, None)
        if armed is not None:
            armed[1].cancel()

    def _ring(self, run_id: str) -> None:
        self._timers.pop(run_id, None)
        self.post(partial(self._wake_run, run_id=run_id))

    def _wake_run(self, turn: Turn[H], run_id: str) -> None:
        held = self._held.get(run_id)
        if held is not None:
            turn.touch(held)
            self.woken(turn, held)

    # ── inbox ─────────────────────────────────────────────────────────────────────────────────────

    async def _read_inbox(self) -> None:
        stream, cursor = inbox(self.name), self._cursor or "0-0"
        while True:
            try:
                entries = await self._journal.tail(stream, cursor, TAIL_MS)
            except JournalUnavailable as unavailable:
                _log.warning("inbox: %s", unavailable)
                await asyncio.sleep(0.5)
                continue
            for entry in entries:
                cursor = entry.cursor
                new = place(cursor) > place(self._began)
                for item in codec.decode_inbox(entry.item):
                    if isinstance(item, Letter):
                        self.post(partial(self.received, letter=item))
                    elif isinstance(item, Born) and new:  # older ones were read as owned
                        await self.expect(item.run_id, [item.batch()])
                        self.post(partial(self._born, born=item))
                self.post(partial(self._handled, cursor=cursor))

    def _born(self, turn: Turn[H], born: Born) -> None:
        if born.run_id in self._met:
            self._met.discard(born.run_id)
        else:
            self._adopt_once(turn, self.revive(born.run_id, [born.batch()]))

    def _handled(self, _turn: Turn[H], cursor: str) -> None:
        self._cursor = cursor
        self._heard.set()
