"""The actor that owns runs: one mailbox, one turn at a time, one commit per turn.

    messages ─▶ decide + apply (memory) ─▶ hand ready tasks to free seats ─▶ commit ─▶ perform
                                                                             │
                     nothing leaves before the commit is durable ◀───────────┘

Whatever arrives while a commit is under way waits and makes the next turn, so commits grow with the
load (group commit) and an idle actor answers at once. A commit whose answer was lost is sent again as
it is: the journal knows owner, epoch and turn. If the journal refuses an append because somebody
else wrote, the run is dropped from memory, read again, and its messages are handled again.

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

import msgspec

from actors import json_logs
from actors.approval_board import ApprovalBoard
from actors.callees import Callees
from actors.claims import Claimant
from actors.clock import Clock
from actors.command_steps import of_backfill, of_run
from actors.crew import Crew, Ended, Gone
from actors.former_attempts import FormerAttempts
from actors.hosted import Hosted, HostedBackfill, HostedRun, instant, milliseconds
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
    answer,
    refuse,
    refused,
    replayed,
    reply_to,
)
from actors.names import KUBERNETES, SCHEDULER
from actors.peers import Peers
from actors.readiness import ReadyRuns, assignments
from actors.reading import Reader
from actors.result_cache import Recalled, ResultCache
from actors.run_counts import label_of, moved
from actors.run_loader import RunLoader
from actors.run_timers import RunTimers
from actors.settings import Settings, class_weights
from actors.slot_time import TELL_S, SlotTime
from actors.standing import Reporter
from actors.turn import Turn, is_of, letting_go, mail_of, turn_counts
from actors.window_cancel import WindowCanceller
from orchestrator import actor_codec, codec, errors, plan_run, run_commands, run_duties, wait_decisions
from orchestrator import backfill as backfills
from orchestrator.command import Command, CommandReply
from orchestrator.control import Admission, Hosting
from orchestrator.dispatch import WAKES
from orchestrator.messages import Report
from orchestrator.ports import Journal
from orchestrator.run_state import ENDED, Run, RunState, going
from orchestrator.shares import Shares
from orchestrator.steps import Commit, CommitResult, StoredReply
from orchestrator.streams import Entry, TimerFired, Widened, WindowNews, inbox

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: a message is handled this often before it is refused as unavailable
TRIES_MAX = 5
#: admissions remembered because the journal refused them
DECLINED_MAX = 10_000
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
        self._windows = WindowCanceller(self, journal, peers)
        self._board = ApprovalBoard(self, journal)
        stored = (settings.artifacts, bool(settings.artifacts_url))
        self._cache = ResultCache(journal, clock, *stored, self._spawn, self._post)
        self._callees = Callees(self, journal, clock, self._post, settings.traced)
        self._hosted: dict[str, Hosted] = {}
        #: messages for runs that are being read
        self._parked: dict[str, list[RunMessage]] = {}
        self._loader = RunLoader(name, journal, self._reader, self.insist, self._post_all)
        self._mail: list[Message] = []
        self._wake = asyncio.Event()
        self._recovered = asyncio.Event()
        self._epoch = 0
        self._turn = 0
        #: inbox position up to which everything was handled
        self._cursor: str | None = None
        #: inbox entries that wait for their run to be read
        self._told_parked = 0
        #: numbers of admissions that the journal refused
        self._declined: dict[int, None] = {}
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
            lambda: len(self._hosted),
            self._ready.near,
            self._slot_time,
        )
        self._claims = Claimant(name, peers, self._ready.bound)
        self._crew: Crew
        self._jobs: KubernetesSeat

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
        return len(self._hosted)

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
        self._epoch = self._reporter.epoch = await self.insist(lambda: self._journal.take_epoch(self.name))
        self._cursor = (await self.insist(lambda: self._journal.owner(self.name))).cursor
        self._crew = Crew(self.name, self._epoch, self._peers, self._post, self._settings)
        self._jobs = KubernetesSeat(self.name, self._epoch, self._peers, self._post, self._settings)
        scheduler = (await self.insist(lambda: self._journal.owner(SCHEDULER))).epoch
        self._claims.start(self._epoch, scheduler, self._crew)
        owned = await self.insist(lambda: self._journal.owned(self.name))
        for start in range(0, len(owned), 500):
            for history in await self.insist(partial(self._journal.load, owned[start : start + 500])):
                hosted = await self.insist(partial(self._reader.revive, history))
                self._adopt(hosted)
                if isinstance(hosted, HostedBackfill):
                    hosted.claimed = True
                    self._spawn(self._catch_up(hosted))
        former = FormerAttempts(self.name, self._epoch, self._peers, self._crew, self._jobs, self._post)
        await former.find(self._hosted)
        self._wake.set()

    # ── turns ─────────────────────────────────────────────────────────────────────────────────────

    def _post(self, message: Message) -> None:
        self._mail.append(message)
        self._wake.set()

    def _post_all(self, messages: Sequence[Message]) -> None:
        self._mail += messages
        self._wake.set()

    async def _one_turn(self) -> None:
        mail, self._mail = self._mail, []
        turn = Turn()
        for message in mail:
            self._handle(turn, message)
        turn.sendings = self._ready.compose(self._crew, lambda hosted, begin: self._step(turn, hosted, begin))
        if self._claims.active:
            begin = partial(self._step, turn)
            turn.sendings += self._ready.compose_bound(self._crew, begin, self._claims.begun)
        while self._ready.curious:
            self._cache.ask(self._ready.curious.popitem()[1])
        if self._ready.has_jobs:
            turn.jobs = self._ready.take_jobs(lambda hosted, begin: self._step(turn, hosted, begin))
        await self._commit(turn)
        self._report_standing()
        if self._ready.has_jobs:
            self._wake.set()

    def _handle(self, turn: Turn, message: Message) -> None:
        match message:
            case Ended():
                self._handle_ended(turn, message)
            case Admitted():
                self._with_run(turn, message.admission.run_id, message, self._handle_admitted)
            case Asked():
                self._with_run(turn, message.command.run_id, message, self._handle_asked)
            case Noted():
                self._with_run(turn, message.note.run_id, message, self._handle_noted)
            case Told():
                if not self._told_parked and message.cursor:
                    self._cursor = message.cursor
                if isinstance(message.item, WindowNews | Widened | TimerFired):  # letters and births are for holders
                    self._with_run(turn, message.item.run_id, message, self._handle_told)
            case Observed():
                self._with_run(turn, message.run_id, message, self._handle_observed)
            case Redo():
                self._with_run(turn, message.run_id, message, self._handle_redo)
            case Returned():
                self._with_run(turn, message.run_id, message, self._handle_returned)
            case Woken():
                self._with_run(turn, message.run_id, message, self._handle_woken)
            case Gone():
                self._handle_gone(turn, message)
            case Recalled():
                self._handle_recalled(turn, message)
            case Loaded():
                self._handle_loaded(turn, message)
            case Idle():
                self._let_idle_go(turn)

    def _with_run(self, turn: Turn, run_id: str, message: RunMessage, handle: Callable[[Turn, Any, Any], None]) -> None:
        hosted = self._hosted.get(run_id)
        if hosted is not None:
            turn.messages[run_id].append(message)
            handle(turn, hosted, message)
            return
        self._told_parked += isinstance(message, Told)
        parked = self._parked.get(run_id)
        if parked is not None:
            parked.append(message)
            return
        self._parked[run_id] = [message]
        self._spawn(self._loader.load(run_id))

    def _step(self, turn: Turn, hosted: HostedRun, command: plan_run.Command | wait_decisions.Command) -> None:
        self._took_step(turn, hosted, hosted.step(command, self._clock.now()))

    def _took_step(self, turn: Turn, hosted: HostedRun, aborts: list[run_duties.Abort]) -> None:
        run_id = hosted.run.run_id
        turn.touched[run_id] = hosted
        turn.aborts.extend((run_id, abort.worker, abort) for abort in aborts)
        self._ready.look(hosted)

    def _handle_admitted(self, turn: Turn, hosted: Hosted, message: Admitted) -> None:
        if isinstance(hosted, HostedBackfill):
            if hosted.ended:  # one of its windows may go on
                self._spawn(self._catch_up(hosted))
            return
        self._check_sla(turn, hosted)
        self._check_deadlines(turn, hosted)
        if message.admission.only_host:
            self._claim(turn, hosted)
        elif hosted.run.state is RunState.QUEUED and self._holds(hosted.run, message.admission):
            hosted.admission_epoch, hosted.admission_lane = message.epoch, message.admission.lane
            self._step(turn, hosted, run_commands.Start())

    def _holds(self, run: Run, admission: Admission) -> bool:
        """Is it for the present life of the run, and was it not given back?"""
        return admission.since >= run.queued_version and admission.number not in self._declined

    def _decline(self, admission: Admission) -> None:
        """The scheduler may give the place to another run now: should this admission come again, it is void."""
        self._declined[admission.number] = None
        if len(self._declined) > DECLINED_MAX:
            del self._declined[next(iter(self._declined))]
        self._reporter.refused(admission.run_id, admission.number)

    def _claim(self, turn: Turn, hosted: HostedRun) -> None:
        """Own a run that goes on by itself later: its timer is here, and would be lost with this actor."""
        if hosted.run.state not in (RunState.QUEUED, *ENDED) and not hosted.claimed:
            hosted.claiming = True
            turn.touched[hosted.run.run_id] = hosted

    def _handle_asked(self, turn: Turn, hosted: Hosted, message: Asked) -> None:
        command = message.command
        if hosted.idem is not None and command.idem is not None:
            turn.messages[command.run_id].remove(message)
            self._post(message)  # one idempotency record a commit: this one goes into the next
            return
        before, version = str(hosted.machine.state), hosted.machine.version
        try:
            self._obey(turn, hosted, command)
        except wait_decisions.LateVote as late:
            self._refuse_late(turn, hosted, message, late)
            return
        except errors.OrchestratorError as why:
            answer(message.answer, refused(why))
            turn.messages[command.run_id].remove(message)
            return
        reply = msgspec.structs.replace(reply_to(hosted, command), before=before, version=version + 1)
        if command.idem is not None:
            hosted.idem = StoredReply(
                command.idem.key, command.idem.fingerprint, actor_codec.encode_command_reply(reply)
            )
            turn.touched[command.run_id] = hosted
        turn.answers.append((command.run_id, message.answer, lambda: reply))

    def _refuse_late(self, turn: Turn, hosted: Hosted, message: Asked, late: wait_decisions.LateVote) -> None:
        """It has no effect, but is told."""
        if late.told is not None and isinstance(hosted, HostedRun):
            hosted.record(late.told)
            turn.touched[message.command.run_id] = hosted
        else:
            _log.info("%s", late)
        turn.answers.append((message.command.run_id, message.answer, lambda: refused(late)))

    def _obey(self, turn: Turn, hosted: Hosted, command: Command) -> None:
        if isinstance(hosted, HostedBackfill):
            hosted.step(of_backfill(command), self._clock.now())
            turn.touched[command.run_id] = hosted
            return
        self._step(turn, hosted, of_run(command))

    def _handle_noted(self, turn: Turn, hosted: Hosted, message: Noted) -> None:
        assert isinstance(hosted, HostedRun)
        try:
            self._step(turn, hosted, run_commands.Mark(message.note))
        except errors.StaleAttempt as stale:
            _log.info("%s", stale)
            answer(message.answer, False)
            turn.messages[message.note.run_id].remove(message)
            return
        turn.answers.append((message.note.run_id, message.answer, lambda: True))

    def _handle_told(self, turn: Turn, hosted: Hosted, message: Told) -> None:
        item = message.item
        match item:
            case WindowNews() if isinstance(hosted, HostedBackfill):
                self._handle_observed(turn, hosted, Observed(item.run_id, ((item.child, item.after, item.version),)))
            case WindowNews() if isinstance(hosted, HostedRun):
                self._callees.look(hosted.run)
            case Widened() if isinstance(hosted, HostedBackfill):
                self._read_again(item)
            case TimerFired(kind="sla") if isinstance(hosted, HostedRun):
                self._check_sla(turn, hosted)
            case TimerFired() if isinstance(hosted, HostedRun):
                self._handle_woken(turn, hosted, Woken(item.run_id))
            case _:
                _log.warning("inbox item of the wrong kind for %s: %s", type(hosted).__name__, item)

    def _read_again(self, item: Widened) -> None:
        """A backfill has windows that it does not know yet; what this turn does to it is refused, and done again."""
        hosted = self._hosted.get(item.run_id)
        if hosted is not None and hosted.machine.version < item.version:
            self._forget(item.run_id)
            self._parked[item.run_id] = []
            self._spawn(self._loader.load(item.run_id))

    def _check_sla(self, turn: Turn, hosted: HostedRun) -> None:
        if hosted.sla_ms is None or instant(hosted.sla_ms) > self._clock.now():
            return
        self._step(turn, hosted, run_commands.MissSla(instant(hosted.sla_ms)))

    def _check_deadlines(self, turn: Turn, hosted: HostedRun) -> None:
        """What is too late by now is so; a queued run that was looked at too early is looked at again."""
        run = hosted.run
        at = run_duties.next_deadline(run)
        if at is None:
            return
        if at <= self._clock.now():
            self._step(turn, hosted, run_commands.CheckDeadlines())
        elif run.state is RunState.QUEUED:
            turn.passive[run.run_id] = milliseconds(at)

    def _handle_observed(self, turn: Turn, hosted: Hosted, message: Observed) -> None:
        assert isinstance(hosted, HostedBackfill)
        turn.touched[message.run_id] = hosted
        hosted.observe(message.windows, message.whole, self._clock.now())

    def _handle_redo(self, turn: Turn, _hosted: Hosted, message: Redo) -> None:
        self._step_if_current(turn, message.run_id, message.command)

    def _handle_returned(self, turn: Turn, hosted: Hosted, message: Returned) -> None:
        if isinstance(hosted, HostedRun):
            self._step(turn, hosted, message.outcome)

    def _handle_woken(self, turn: Turn, hosted: Hosted, _message: Woken) -> None:
        assert isinstance(hosted, HostedRun)
        now = self._clock.now()
        limit = run_duties.deadline(hosted.run)
        if limit is not None and limit <= now:
            self._step(turn, hosted, run_commands.TimeOut())
            return
        idle = run_duties.idle_deadline(hosted.run)
        if idle is not None and idle <= now:
            self._step(turn, hosted, run_commands.GoIdle())
            return
        run_duties.wake(hosted.run, now)
        aborts = hosted.proceed(now)
        if hosted.dirty:
            self._took_step(turn, hosted, aborts)
            return
        self._check_deadlines(turn, hosted)
        self._ready.look(hosted)
        self._timers.set(hosted)  # by this clock it may be too early

    def _handle_recalled(self, turn: Turn, message: Recalled) -> None:
        hosted = self._hosted.get(message.run_id)
        if isinstance(hosted, HostedRun):  # else it is looked up again when it is read again
            for recall in self._cache.recalls(hosted, message):
                try:
                    self._step(turn, hosted, recall)
                except errors.Conflict as conflict:
                    _log.info("%s", conflict)
                    self._cache.compute(hosted, hosted.run.position(recall.task))
            self._ready.look(hosted)

    def _handle_ended(self, turn: Turn, message: Ended) -> None:
        unreported = self._crew.settle(message)
        if message.batch is not None:
            self._slot_time.ended(message.worker, message.batch, self._clock.monotonic())
        for report in message.settled.reports:
            self._settle(turn, report)
        for run_id, task, attempt in message.settled.untouched:
            self._step_if_current(turn, run_id, run_commands.GiveBack(task, attempt))
        for run_id, task, attempt in unreported:
            self._step_if_current(turn, run_id, run_commands.Lose(task, attempt))

    def _settle(self, turn: Turn, report: Report) -> None:
        hosted = self._step_if_current(turn, report.run_id, run_commands.Settle(report, self._clock.jitter()))
        if hosted is not None:
            position = hosted.run.position(report.task)
            self._crew.took(hosted.run.compiled.keys[position], report.took_s)
            if report.read_bytes or report.value.artifact is not None:
                label = label_of(hosted.run.dag_id)
                hosted.counts += [(f"{metric}|{label}", n) for metric, n in moved(report)]

    def _handle_gone(self, turn: Turn, message: Gone) -> None:
        self._reporter.lost(message.worker, message.incarnation)
        self._slot_time.gone(message.worker, self._clock.monotonic())
        if message.need is not None:
            self._claims.gone(message)
        elif message.lease:
            self._reporter.released([(message.worker, message.lease)])
        for run_id, task, attempt in message.lost:
            self._step_if_current(turn, run_id, run_commands.Lose(task, attempt))
        for (run_id, task, attempt), outcome in message.overdue:
            self._settle(turn, Report(run_id, task, attempt, outcome, error="TaskTimedOut: did not stop in time"))

    def _step_if_current(self, turn: Turn, run_id: str, command: run_commands.Command) -> HostedRun | None:
        """Apply what a worker told, unless a newer attempt, or the end of the run, has overtaken it (I12)."""
        hosted = self._hosted.get(run_id)
        if not isinstance(hosted, HostedRun):
            if run_id in self._parked:
                self._parked[run_id].append(Redo(run_id, command))
            else:
                _log.info("late: %s of %s, which is not here any more", command, run_id)
            return None
        try:
            self._step(turn, hosted, command)
        except errors.StaleAttempt as stale:
            if _log.isEnabledFor(logging.INFO):  # a slow batch is asked for, and then told twice
                about = json_logs.about(run_id, stale.task, stale.attempt, hosted.run.traceparent)
                _log.info("%s", stale, extra=about)
            return None
        turn.commands[run_id].append(command)
        return hosted

    # ── commit and perform ────────────────────────────────────────────────────────────────────────

    async def _commit(self, turn: Turn) -> None:
        dirty = [hosted for hosted in turn.touched.values() if hosted.dirty]
        appends = [hosted.append() for hosted in dirty]
        appends += [
            letting_go(self._hosted[run_id], wake)
            for run_id, wake in turn.passive.items()
            if run_id in self._hosted and run_id not in turn.touched
        ]
        if appends:
            self._turn += 1
            commit = Commit(
                owner=self.name,
                epoch=self._epoch,
                turn=self._turn,
                appends=tuple(appends),
                cursor=self._cursor,
                counts=(*turn_counts(dirty), *self._slot_time.counts(self._clock.monotonic())),
                mail=tuple(mail for it in dirty if it.notices or it.updates for mail in mail_of(self.name, it)),
            )
            results = await self.insist(lambda: self._journal.commit(commit))
            failed = self._take_results(turn, dirty, results)
        else:
            failed = {}
        self._perform(turn, failed)

    def _take_results(self, turn: Turn, dirty: list[Hosted], results: list[CommitResult]) -> dict[str, CommitResult]:
        failed: dict[str, CommitResult] = {}
        for hosted, result in zip(dirty, results, strict=False):
            if result.status == "ok":
                hosted.committed()
            else:
                failed[result.run_id] = result
        for result in results[len(dirty) :]:
            if result.status in ("ok", "stale", "missing"):
                self._forget(result.run_id)
        return failed

    def _perform(self, turn: Turn, failed: dict[str, CommitResult]) -> None:
        for run_id, result in failed.items():
            self._doubt(turn, run_id, result)
        for run_id, asker, value in turn.answers:
            if run_id not in failed:
                answer(asker, value())
        for sending in turn.sendings:
            for run_id in failed.keys() & sending.runs.keys():
                del sending.runs[run_id]
            for run_id, begun in sending.runs.items():
                if begun.run.compiled.cached:
                    self._cache.begin(begun, sending.positions[run_id])
            if sending.runs:
                told = assignments(sending, self.name, self._settings.traced)
                number = self._crew.send(sending.seat, *told, sending.expected_s)
                self._slot_time.sent(sending, number, self._clock.monotonic())
            else:
                self._slot_time.kept(sending)
        for hosted_run, positions in turn.jobs:
            if hosted_run.run.run_id not in failed:
                self._jobs.order(hosted_run.run, positions)
        for run_id, worker, abort in turn.aborts:
            if run_id not in failed:
                way = self._jobs if worker == KUBERNETES else self._crew
                way.abort(worker, (run_id, abort.task, abort.attempt))
        for run_id, hosted in turn.touched.items():
            if run_id not in failed:
                self._after_step(run_id, hosted)

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
            self._forget(run_id)
        elif isinstance(hosted, HostedRun):
            self._timers.set(hosted)
        elif not hosted.claimed:
            hosted.claimed = True
            self._spawn(self._catch_up(hosted))
        elif hosted.backfill.state is RunState.CANCELLING and not hosted.cancelling:
            hosted.cancelling = True
            self._spawn(self._windows.cancel([effect.child for effect in backfills.owed(hosted.backfill)]))

    def _doubt(self, turn: Turn, run_id: str, result: CommitResult) -> None:
        """The journal did not take what this turn did to a run: read it again, and handle its messages again."""
        kept = turn.touched[run_id].idem if run_id in turn.touched else None
        self._forget(run_id)
        if result.owner == self.name and run_id not in self._parked:
            self._parked[run_id] = []
            self._spawn(self._loader.load(run_id))
        again: list[RunMessage] = [Redo(run_id, command) for command in turn.commands.pop(run_id, [])]
        for message in turn.messages.pop(run_id, []) + again:
            message.tries += 1
            if result.status == "refused" and isinstance(message, Admitted):
                self._decline(message.admission)
            elif result.status in ("replayed", "conflict") and isinstance(message, Asked) and is_of(message, kept):
                answer(message.answer, replayed(result))
            elif result.status == "missing" or message.tries >= TRIES_MAX:
                refuse(message, f"run {run_id} is {result.status} here; its owner is {result.owner or 'nobody'}")
            elif result.owner not in ("", self.name):
                refuse(message, f"run {run_id} moved to {result.owner}", "moved")
            else:
                self._post(message)
        _log.info(
            "append to %s was answered %s (version %d, owner %s)", run_id, result.status, result.version, result.owner
        )

    def _forget(self, run_id: str) -> None:
        self._hosted.pop(run_id, None)
        self._ready.drop(run_id)
        self._timers.drop(run_id)

    # ── coming and going of runs ──────────────────────────────────────────────────────────────────

    def _handle_loaded(self, turn: Turn, message: Loaded) -> None:
        parked = self._parked.pop(message.run_id, [])
        self._told_parked -= sum(isinstance(waiting, Told) for waiting in parked)
        if message.hosted is None:
            for waiting in parked:
                word = "moved" if message.owner else "unavailable"
                refuse(waiting, f"run {message.run_id} belongs to {message.owner or 'nobody'}", word)
            return
        hosted = message.hosted
        self._adopt(hosted)
        if isinstance(hosted, HostedBackfill) and not hosted.ended:
            turn.touched[message.run_id] = hosted  # an append without events claims it
        for waiting in parked:
            self._handle(turn, waiting)
        if (
            not hosted.stays and not hosted.dirty and message.run_id not in turn.passive
        ):  # somebody else may change it now
            self._forget(message.run_id)

    def _adopt(self, hosted: Hosted) -> None:
        if isinstance(hosted, HostedBackfill):
            self._hosted[hosted.backfill.run_id] = hosted
            return
        self._hosted[hosted.run.run_id] = hosted
        self._board.show_all(hosted)
        self._callees.look(hosted.run)
        run_duties.wake(hosted.run, self._clock.now())
        self._ready.look(hosted)
        self._timers.set(hosted)

    async def _catch_up(self, hosted: HostedBackfill) -> None:
        """Learn what the windows of a claimed backfill did before news of them came here."""
        run_id = hosted.backfill.run_id
        children = await self.insist(lambda: self._journal.children(run_id))
        self._post(Observed(run_id, tuple((c.run_id, c.state, c.version) for c in children if not c.kept), whole=True))
        if hosted.backfill.state is RunState.CANCELLING:
            await self._windows.cancel(effect.child for effect in backfills.owed(hosted.backfill))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            if self._hosted:
                self._post(Idle())
            self._reporter.remind()
            self._claims.remind()

    def _let_idle_go(self, turn: Turn) -> None:
        """Runs that have only waited for long leave memory; their next message or timer brings them back."""
        now, limit_s = self._clock.monotonic(), self._settings.passivate_after_s
        for run_id, hosted in self._hosted.items():
            if not isinstance(hosted, HostedRun) or run_id in turn.touched:
                continue
            run = hosted.run
            at = run_duties.next_wake(run)
            soon = at is not None and (at - self._clock.now()).total_seconds() < limit_s
            kept = run.agenda is not None or self._callees.busy(run_id)
            if run.running or soon or kept or (run_duties.waits_for_slot(run) and going(run)):
                hosted.idle_since_s = None
            elif hosted.idle_since_s is None:
                hosted.idle_since_s = now
            elif now - hosted.idle_since_s >= limit_s:
                turn.passive[run_id] = int(at.timestamp() * 1000) if at else None

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
        wanted = self._ready or self._parked  # a seat that came along with an admission waits for its run to be read
        self._reporter.released(self._crew.vacate() if wanted else self._crew.leave_idle())
        if self._crew.keeps and not self._parked and self._ready.only_backfills:
            self._reporter.released(self._crew.leave_kept())
        self._reporter.look()
        if self._claims.active or self._ready.bound:
            self._claims.released(self._crew.leave_bound())
            self._claims.look()
