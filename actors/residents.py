"""Who is in a RunActor's memory, who is on the way there, and who may go.

    message for a run that is not here ─▶ it is read; messages wait ─▶ Loaded ─┬─▶ nobody's, or somebody else's: refused
                                                       ▲                       ▼
                                                       └───── in doubt ────── here ─▶ forgotten: it has ended, waits for
                                                                                      admission, or only waits for long

A run is here or on its way here, never both: while it is read again nothing is decided on what may be wrong. What waits
for a run is handled in the order in which it came, in the turn in which the run comes. What is forgotten is not lost:
the next message for it brings it back.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.clock import Clock
from actors.hosted import Hosted, HostedBackfill, HostedRun
from actors.mail import Loaded, Redo, RunMessage, Told, refuse
from actors.turn import Turn
from orchestrator import run_duties
from orchestrator.run_state import going


class Residents:
    """Runs and backfills of one RunActor.

    `load` has a run read, which ends as `Loaded` in the mailbox. `welcome` hears of runs that came, `farewell` of
    everything that went; runs that are `busy` with the world do not go.
    """

    def __init__(
        self,
        clock: Clock,
        passivate_after_s: float,
        load: Callable[[str], None],
        welcome: Callable[[HostedRun], None],
        farewell: Callable[[str], None],
        busy: Callable[[str], bool],
    ) -> None:
        self._clock = clock
        self._limit_s = passivate_after_s
        self._load = load
        self._welcome = welcome
        self._farewell = farewell
        self._busy = busy
        #: run id -> run; only this class changes it
        self.here: dict[str, Hosted] = {}
        #: runs that are being read -> what waits for them
        self._awaited: dict[str, list[RunMessage]] = {}
        #: how much of that is from the inbox
        self._told = 0

    @property
    def reading(self) -> bool:
        """Are runs on their way?"""
        return bool(self._awaited)

    @property
    def mail_waits(self) -> bool:
        """Do items of the inbox wait for their runs? What was handled after them may not be taken off it yet."""
        return self._told > 0

    # ── coming ──

    def find(self, run_id: str, message: RunMessage) -> Hosted | None:
        """The run; None = it is read, and the message waits for it."""
        hosted = self.here.get(run_id)
        if hosted is None:
            self._told += isinstance(message, Told)
            self._read(run_id).append(message)
        return hosted

    def wait(self, message: Redo) -> bool:
        """Have what a worker told wait, if its run is being read; nothing is read for its sake."""
        waiting = self._awaited.get(message.run_id)
        if waiting is None:
            return False
        waiting.append(message)
        return True

    def came(self, turn: Turn, loaded: Loaded, handle: Callable[[Turn, RunMessage], None]) -> None:
        """A run was read: `handle` what waited for it, or refuse that where it cannot be here."""
        waiting = self._awaited.pop(loaded.run_id, [])
        self._told -= sum(isinstance(message, Told) for message in waiting)
        hosted = loaded.hosted
        if hosted is None:
            for message in waiting:
                word = "moved" if loaded.owner else "unavailable"
                refuse(message, f"run {loaded.run_id} belongs to {loaded.owner or 'nobody'}", word)
            return
        self.adopt(hosted)
        if isinstance(hosted, HostedBackfill) and not hosted.ended:
            turn.touch(hosted)  # an append without events claims it
        for message in waiting:
            handle(turn, message)
        if not hosted.stays and not hosted.dirty and loaded.run_id not in turn.passive:
            self.forget(loaded.run_id)  # somebody else may change it now

    def adopt(self, hosted: Hosted) -> None:
        """It is here from now on, as the journal has it."""
        self.here[hosted.machine.run_id] = hosted
        if isinstance(hosted, HostedRun):
            self._welcome(hosted)

    def read_again(self, run_id: str) -> None:
        """What is known of the run is wrong, or not all: it is read, and whatever comes for it meanwhile waits."""
        self.forget(run_id)
        self._read(run_id)

    def _read(self, run_id: str) -> list[RunMessage]:
        waiting = self._awaited.get(run_id)
        if waiting is None:
            waiting = self._awaited[run_id] = []
            self._load(run_id)
        return waiting

    # ── going ──

    def forget(self, run_id: str) -> None:
        """It is not here any more."""
        self.here.pop(run_id, None)
        self._farewell(run_id)

    def let_idle_go(self, turn: Turn) -> None:
        """Runs that have only waited for long leave with this turn; their next message or timer brings them back."""
        now, now_s = self._clock.now(), self._clock.monotonic()
        for run_id, hosted in self.here.items():
            if not isinstance(hosted, HostedRun) or run_id in turn.touched:
                continue
            at = run_duties.next_wake(hosted.run)
            soon = at is not None and (at - now).total_seconds() < self._limit_s
            if soon or self._works(hosted):
                hosted.idle_since_s = None
            elif hosted.idle_since_s is None:
                hosted.idle_since_s = now_s
            elif now_s - hosted.idle_since_s >= self._limit_s:
                turn.passive[run_id] = int(at.timestamp() * 1000) if at else None

    def _works(self, hosted: HostedRun) -> bool:
        """Does it do more than wait for time to pass, or for somebody outside?"""
        run = hosted.run
        if run.running or run.agenda is not None or self._busy(run.run_id):
            return True
        return bool(run_duties.waits_for_slot(run)) and going(run)
