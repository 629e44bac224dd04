"""The actor that owns runs: one mailbox, one turn at a time, one commit per turn.

    messages ─▶ decide + apply (memory) ─▶ hand ready tasks to free seats ─▶ commit ─▶ perform
                                                                             │
                     nothing leaves before the commit is durable ◀───────────┘

Whatever arrives while a commit is under way waits and makes the next turn, so commits grow with the
load (group commit) and an idle actor answers at once. Here is the mailbox, and who gets what; what a message does to
a run, and what follows from a turn, is said by parts of their own:

    `residents`         who is in memory, what waits for those that are read, who may go
    `admissions`        what the scheduler admits            `worker_reports`    what workers say, or their silence
    `run_desk`          what clients ask                     `due_runs`          what time does
    `turn`              what one turn changed                `turn_commit`       makes it durable; what is in doubt
    `readiness`         which tasks make the next batch      `work_orders`       hands them to workers and Jobs
    `backfill_windows`, `callees`, `approval_board`, `result_cache`              what a run owes the world beside tasks

Two designs were open for slots: ask the scheduler per task (4 one-way hops a step) or lease slots and
talk to workers directly (a request and its reply). The second is 2 hops shorter per step, and limits can
still be enforced where leases are given; hence this one.

What is owed after a crash: runs are found through `owned`, running attempts are claimed back from
their workers (`holding`), or ordered again where they are Kubernetes Jobs, which are then adopted; news of windows and
timers wait in the durable inbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from actors import json_logs
from actors.admissions import Admissions
from actors.approval_board import ApprovalBoard
from actors.backfill_windows import BackfillWindows
from actors.callees import Callees
from actors.claims import Claimant
from actors.clock import Clock
from actors.crew import Crew, Ended, Gone
from actors.due_runs import DueRuns
from actors.former_attempts import FormerAttempts
from actors.hosted import Hosted, HostedBackfill, HostedRun
from actors.kubernetes_seat import KubernetesSeat
from actors.living import Living
from actors.mail import (
    Admitted,
    Asked,
    Idle,
    Loaded,
    Message,
    Noted,
    Observed,
    Redo,
    Returned,
    RunMessage,
    Told,
    Woken,
)
from actors.names import SCHEDULER
from actors.peers import Peers
from actors.readiness import ReadyRuns
from actors.reading import Reader
from actors.residents import Residents
from actors.result_cache import Recalled, ResultCache
from actors.run_desk import RunDesk
from actors.run_loader import RunLoader
from actors.run_timers import RunTimers
from actors.settings import Settings, class_weights
from actors.slot_time import TELL_S, SlotTime
from actors.standing import Reporter
from actors.turn import Turn
from actors.turn_commit import TurnCommit
from actors.window_cancel import WindowCanceller
from actors.work_orders import WorkOrders
from actors.worker_reports import WorkerReports
from orchestrator import actor_codec, codec, errors, run_duties
from orchestrator.command import Command, CommandReply
from orchestrator.control import Hosting
from orchestrator.dispatch import WAKES
from orchestrator.ports import Journal
from orchestrator.shares import Shares
from orchestrator.streams import Entry, TimerFired, Widened, WindowNews, inbox

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: seconds between looks for runs that only wait
SWEEP_S = 5.0


class RunActor(Living):
    """Hosts runs and backfills. `start` returns at once; everything happens in its own tasks."""

    def __init__(self, name: str, journal: Journal, peers: Peers, clock: Clock, settings: Settings) -> None:
        super().__init__(name)
        self._journal = journal
        self._peers = peers
        self._clock = clock
        self._settings = settings
        self._reader = Reader(journal)
        self._backfills = BackfillWindows(self, journal, WindowCanceller(self, journal, peers), self._post)
        self._board = ApprovalBoard(self, journal)
        stored = (settings.artifacts, bool(settings.artifacts_url))
        self._cache = ResultCache(journal, clock, *stored, self._spawn, self._post)
        self._callees = Callees(self, journal, clock, self._post, settings.traced)
        self._loader = RunLoader(name, journal, self._reader, self.insist, self._post_all)
        self._residents = Residents(
            clock, settings.passivate_after_s, self._load, self._welcome, self._farewell, self._callees.busy
        )
        self._mail: list[Message] = []
        self._wake = asyncio.Event()
        self._recovered = asyncio.Event()
        #: inbox position up to which everything was handled
        self._cursor: str | None = None
        #: tenant -> weight, of those that have one
        self._weights: dict[str, float] = {}
        self._shares = self._new_shares()
        self._ready = ReadyRuns(self._shares, clock.monotonic, lambda: self._slot_time.competing, self._new_shares)
        self._slot_time = SlotTime(self._shares, self._ready.bound, self._ready.kept.shares)
        self._timers = RunTimers(clock, self._post)
        self._reporter = Reporter(
            name,
            peers,
            self._ready.demand,
            self._held,
            self._kept,
            lambda: len(self._residents.here),
            self._ready.near,
            self._slot_time,
        )
        self._claims = Claimant(name, peers, self._ready.bound)
        self._desk = RunDesk(self._post)
        self._due = DueRuns(self._timers)
        self._admissions = Admissions(self._due, self._backfills.catch_up, self._reporter.refused)
        # from when the epoch is known
        self._crew: Crew
        self._reports: WorkerReports
        self._commit: TurnCommit
        self._orders: WorkOrders

    def start(self) -> None:
        """Begin to live: recover, then serve."""
        self._spawn(self._live())

    # ── what others call ──────────────────────────────────────────────────────────────────────────

    async def host(self, blob: bytes) -> None:
        """A Hosting of the scheduler."""
        await self._recovered.wait()
        hosting = actor_codec.decode_hosting(blob)
        self._crew.locate(hosting.nodes)
        for worker, incarnation, lease in hosting.grants:
            if not self._crew.seat(worker, incarnation, lease, lease in hosting.kept):
                self._reporter.released([(worker, lease)])
        if hosting.grants:
            self._reporter.granted()
        if hosting.workers:
            self._spawn(self._look_up(hosting.workers))
        self._take_shares(hosting)
        for worker, lease in hosting.yields:
            self._crew.give_up(worker, lease)
        for admission in hosting.admissions:
            self._mail.append(Admitted(admission, hosting.epoch))
        self._wake.set()

    async def _look_up(self, workers: Sequence[tuple[str, str]]) -> None:
        for worker, incarnation in workers:
            await self._peers.look_up(worker, incarnation)

    async def bind(self, blob: bytes) -> None:
        """A Binding of the scheduler: leases for tasks with needs."""
        await self._recovered.wait()
        self._claims.bind(actor_codec.decode_binding(blob))
        self._wake.set()

    async def stock(self, blob: bytes) -> bytes:
        """A new scheduler takes stock; its epoch in, everything about tasks with needs out."""
        await self._recovered.wait()
        return self._claims.stock(actor_codec.decode_epoch(blob))

    def _take_shares(self, hosting: Hosting) -> None:
        for tenant, weight in hosting.weights or ():
            self._weights[tenant] = weight
            for shares in (self._shares, self._ready.kept.shares, *(tree for _, tree in self._ready.bound.trees())):
                shares.weigh((tenant,), weight)
        if hosting.leads is not None:
            if hosting.leads and not self._slot_time.competing:
                self._spawn(self._tell_shares())
            self._slot_time.take_leads(dict(hosting.leads), self._clock.monotonic())

    def _new_shares(self) -> Shares:
        shares = Shares(class_weights(self._settings), WAKES)
        for tenant, weight in self._weights.items():
            shares.weigh((tenant,), weight)
        return shares

    async def _tell_shares(self) -> None:
        """While leaves compete, tell the scheduler what each was served here."""
        await asyncio.sleep(TELL_S)
        while self._slot_time.competing:
            self._slot_time.accrue(self._clock.monotonic())
            self._reporter.share()
            await asyncio.sleep(TELL_S)

    async def command(self, blob: bytes) -> bytes:
        """A client's Command; answers a CommandReply once its effect is durable."""
        await self._recovered.wait()
        return actor_codec.encode_command_reply(await self.obey(actor_codec.decode_command(blob)))

    async def obey(self, command: Command) -> CommandReply:
        """Carry a command out; answers once its effect is durable."""
        asker: asyncio.Future[CommandReply] = asyncio.get_running_loop().create_future()
        self._post(Asked(command, asker))
        return await asker

    async def note(self, blob: bytes) -> bool:
        """A worker's Note; True once durable, False when the attempt was replaced."""
        await self._recovered.wait()
        asker: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._post(Noted(actor_codec.decode_note(blob), asker))
        return await asker

    async def hello(self, _blob: bytes) -> bytes:
        """A new scheduler asks where this actor stands: everything it holds."""
        await self._recovered.wait()
        self._claims.remind()
        return self._reporter.answer()

    def _held(self) -> tuple[tuple[str, int], ...]:
        return tuple((seat.worker, seat.lease) for seat in self._crew.seats.values() if seat.need is None)

    def _kept(self) -> tuple[int, ...]:
        return tuple(seat.lease for seat in self._crew.seats.values() if seat.kept and seat.need is None)

    async def ping(self) -> int:
        """Number of runs in memory, once recovered."""
        await self._recovered.wait()
        return len(self._residents.here)

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def _live(self) -> None:
        await self._recover()
        self._recovered.set()
        self._spawn(self._read_inbox())
        self._spawn(self._reporter.run())
        self._spawn(self._claims.run())
        self._spawn(self._sweep())
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._one_turn()

    async def _recover(self) -> None:
        epoch = self._reporter.epoch = await self.insist(lambda: self._journal.take_epoch(self.name))
        self._cursor = (await self.insist(lambda: self._journal.owner(self.name))).cursor
        self._crew = Crew(self.name, epoch, self._peers, self._post, self._settings)
        jobs = KubernetesSeat(self.name, epoch, self._peers, self._post, self._settings)
        self._take_office(epoch, jobs)
        scheduler = (await self.insist(lambda: self._journal.owner(SCHEDULER))).epoch
        self._claims.start(epoch, scheduler, self._crew)
        owned = await self.insist(lambda: self._journal.owned(self.name))
        for start in range(0, len(owned), 500):
            for history in await self.insist(partial(self._journal.load, owned[start : start + 500])):
                hosted = await self.insist(partial(self._reader.revive, history))
                self._residents.adopt(hosted)
                if isinstance(hosted, HostedBackfill):
                    self._backfills.look(hosted)
        former = FormerAttempts(self.name, epoch, self._peers, self._crew, jobs, self._post)
        await former.find(self._residents.here)
        self._wake.set()

    def _take_office(self, epoch: int, jobs: KubernetesSeat) -> None:
        """What only this incarnation may do."""
        self._reports = WorkerReports(
            self._clock, self._residents, self._crew, self._slot_time, self._reporter, self._claims
        )
        self._commit = TurnCommit(
            self.name,
            epoch,
            self._journal,
            self._residents,
            self.insist,
            self._post,
            self._admissions.decline,
            lambda: self._slot_time.counts(self._clock.monotonic()),
        )
        self._orders = WorkOrders(
            self.name, self._clock, self._crew, jobs, self._slot_time, self._cache, self._settings.traced
        )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            if self._residents.here:
                self._post(Idle())
            self._reporter.remind()
            self._claims.remind()

    # ── turns ─────────────────────────────────────────────────────────────────────────────────────

    def _post(self, message: Message) -> None:
        self._mail.append(message)
        self._wake.set()

    def _post_all(self, messages: Sequence[Message]) -> None:
        self._mail += messages
        self._wake.set()

    async def _one_turn(self) -> None:
        mail, self._mail = self._mail, []
        turn = Turn(self._clock.now, self._ready.look)
        for message in mail:
            self._handle(turn, message)
        turn.sendings = self._ready.compose(self._crew, turn.step)
        if self._claims.active:
            turn.sendings += self._ready.compose_bound(self._crew, turn.step, self._claims.begun)
        while self._ready.curious:
            self._cache.ask(self._ready.curious.popitem()[1])
        if self._ready.has_jobs:
            turn.jobs = self._ready.take_jobs(turn.step)
        failed = await self._commit.make_durable(turn, self._cursor)
        turn.answer(failed)
        self._orders.give(turn, failed)
        for run_id, hosted in turn.touched.items():
            if run_id not in failed:
                self._after_step(run_id, hosted)
        self._report_standing()
        if self._ready.has_jobs:
            self._wake.set()

    def _handle(self, turn: Turn, message: Message) -> None:
        match message:
            case Ended():
                self._reports.ended(turn, message)
            case Admitted():
                self._with_run(turn, message.admission.run_id, message, self._admissions.admitted)
            case Asked():
                self._with_run(turn, message.command.run_id, message, self._desk.asked)
            case Noted():
                self._with_run(turn, message.note.run_id, message, self._reports.noted)
            case Told():
                if message.cursor and not self._residents.mail_waits:
                    self._cursor = message.cursor
                if isinstance(message.item, WindowNews | Widened | TimerFired):  # letters and births are for holders
                    self._with_run(turn, message.item.run_id, message, self._handle_told)
            case Observed():
                self._with_run(turn, message.run_id, message, self._handle_observed)
            case Redo():
                self._with_run(turn, message.run_id, message, self._reports.redo)
            case Returned():
                self._with_run(turn, message.run_id, message, self._handle_returned)
            case Woken():
                self._with_run(turn, message.run_id, message, self._handle_woken)
            case Gone():
                self._reports.gone(turn, message)
            case Recalled():
                self._handle_recalled(turn, message)
            case Loaded():
                self._residents.came(turn, message, self._handle)
            case Idle():
                self._residents.let_idle_go(turn)

    def _with_run(self, turn: Turn, run_id: str, message: RunMessage, handle: Callable[[Turn, Any, Any], None]) -> None:
        hosted = self._residents.find(run_id, message)
        if hosted is not None:
            turn.messages[run_id].append(message)
            handle(turn, hosted, message)

    def _handle_told(self, turn: Turn, hosted: Hosted, message: Told) -> None:
        item = message.item
        match item:
            case WindowNews() if isinstance(hosted, HostedBackfill):
                self._handle_observed(turn, hosted, Observed(item.run_id, ((item.child, item.after, item.version),)))
            case WindowNews() if isinstance(hosted, HostedRun):
                self._callees.look(hosted.run)
            case Widened() if isinstance(hosted, HostedBackfill):
                if hosted.machine.version < item.version:  # what this turn does to it is refused, and done again
                    self._residents.read_again(item.run_id)
            case TimerFired(kind="sla") if isinstance(hosted, HostedRun):
                self._due.check_sla(turn, hosted)
            case TimerFired() if isinstance(hosted, HostedRun):
                self._due.look(turn, hosted)
            case _:
                _log.warning("inbox item of the wrong kind for %s: %s", type(hosted).__name__, item)

    def _handle_observed(self, turn: Turn, hosted: Hosted, message: Observed) -> None:
        assert isinstance(hosted, HostedBackfill)
        turn.touch(hosted)
        hosted.observe(message.windows, message.whole, turn.now())

    def _handle_returned(self, turn: Turn, hosted: Hosted, message: Returned) -> None:
        if isinstance(hosted, HostedRun):
            turn.step(hosted, message.outcome)

    def _handle_woken(self, turn: Turn, hosted: Hosted, _message: Woken) -> None:
        assert isinstance(hosted, HostedRun)
        self._due.look(turn, hosted)

    def _handle_recalled(self, turn: Turn, message: Recalled) -> None:
        hosted = self._residents.here.get(message.run_id)
        if isinstance(hosted, HostedRun):  # else it is looked up again when it is read again
            for recall in self._cache.recalls(hosted, message):
                try:
                    turn.step(hosted, recall)
                except errors.Conflict as conflict:
                    _log.info("%s", conflict)
                    self._cache.compute(hosted, hosted.run.position(recall.task))
            self._ready.look(hosted)

    # ── what follows ──────────────────────────────────────────────────────────────────────────────

    def _after_step(self, run_id: str, hosted: Hosted) -> None:
        if isinstance(hosted, HostedRun) and hosted.asked:
            self._board.show(hosted)
        if isinstance(hosted, HostedRun) and hosted.computed:
            self._cache.keep(hosted)
        if isinstance(hosted, HostedRun) and hosted.calling:
            self._callees.opened(hosted)
        if not hosted.stays:
            if isinstance(hosted, HostedRun) and _log.isEnabledFor(logging.INFO):
                about = json_logs.about(run_id, traceparent=hosted.run.traceparent)
                _log.info("run %s of %s is %s", run_id, hosted.run.dag_id, hosted.run.state, extra=about)
            self._residents.forget(run_id)
        elif isinstance(hosted, HostedRun):
            self._timers.set(hosted)
        else:
            self._backfills.look(hosted)

    # ── coming and going of runs ──────────────────────────────────────────────────────────────────

    def _load(self, run_id: str) -> None:
        self._spawn(self._loader.load(run_id))

    def _welcome(self, hosted: HostedRun) -> None:
        """A run was read: whatever it owes is done from here."""
        self._board.show_all(hosted)
        self._callees.look(hosted.run)
        run_duties.wake(hosted.run, self._clock.now())
        self._ready.look(hosted)
        self._timers.set(hosted)

    def _farewell(self, run_id: str) -> None:
        self._ready.drop(run_id)
        self._timers.drop(run_id)

    # ── inbox, scheduler ──────────────────────────────────────────────────────────────────────────

    async def _read_inbox(self) -> None:
        stream, cursor = inbox(self.name), self._cursor or "0-0"
        while True:
            try:
                entries: list[Entry] = await self._journal.tail(stream, cursor, 10_000)
            except errors.Unavailable as unavailable:
                _log.warning("inbox: %s", unavailable)
                await asyncio.sleep(0.5)
                continue
            for entry in entries:
                cursor = entry.cursor
                *items, last = codec.decode_inbox(entry.item)
                self._mail += [*(Told(item, None) for item in items), Told(last, cursor)]
            if entries:
                self._wake.set()

    def _report_standing(self) -> None:
        reading = self._residents.reading  # a seat that came along with an admission waits for its run to be read
        self._reporter.released(self._crew.vacate() if self._ready or reading else self._crew.leave_idle())
        if self._crew.keeps and not reading and self._ready.only_backfills:
            self._reporter.released(self._crew.leave_kept())
        self._reporter.look()
        if self._claims.active or self._ready.bound:
            self._claims.released(self._crew.leave_bound())
            self._claims.look()
