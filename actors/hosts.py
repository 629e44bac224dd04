"""The RunActors as the scheduler knows them: which run lives with whom, and what each of them is to be told.

    Roster ─▶ standing ones ─────────────┐          ┌─▶ runs that live there, of each the admission that holds
    a dedicated run ─▶ one of its own ───┼─▶ Host ──┤
    Standing of another incarnation ─────┘          └─▶ due: admissions, grants, yields, workers that came ─▶ mail

A run is *placed* from when it is admitted, woken, or found with its owner, until it ends, sleeps or is queued again;
placement is *spread, then stack*: it goes to the standing RunActor with the fewest runs. An admission holds as long as
the run is placed by it: what is known of an older one is late.

Of a run that has ended nothing is kept. It is woken all the same: a backfill that has ended, when one of its windows
goes on. Such a *visitor* stays with its RunActor until that must have acted on it, as the same incarnation: it goes on
then, or not; in both cases the journal knows.

A RunActor that was replaced has lost its memory: its leases are void, and it is told again of every run that lives
there, of every worker, and how everybody stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from actors.clock import Clock
from actors.names import is_own_actor
from orchestrator.control import Admission
from orchestrator.slots import Grant, Slots

#: seconds after which a wake that was told has been acted on
ACTED_AFTER_S = 30.0


@dataclass(slots=True)
class Host:
    """A RunActor, and what it is to be told."""

    name: str
    #: one of the RunActors that are always there; others are started for what they own
    standing: bool = False
    #: 0 = it has not told
    epoch: int = 0
    #: runs placed there that have not ended
    runs: set[str] = field(default_factory=set)
    #: of those, the ones that had ended when they were woken -> when that was, monotonic seconds; the first one first
    visitors: dict[str, float] = field(default_factory=dict)
    admissions: list[Admission] = field(default_factory=list)
    #: (worker, incarnation, lease)
    grants: list[tuple[str, str, int]] = field(default_factory=list)
    #: (worker, lease)
    yields: list[tuple[str, int]] = field(default_factory=list)
    sending: bool = False
    #: it is to be told how everybody stands, and the weights of tenants
    leads_due: bool = False
    weights_due: bool = True
    #: was told that leaves compete
    competing: bool = False
    #: has ever told where its tasks are at home
    tells_homes: bool = False
    #: worker -> incarnation, of those that it is to look up before it has a lease of them
    arrived: dict[str, str] = field(default_factory=dict)

    @property
    def due(self) -> bool:
        """Is there anything to tell it?"""
        return bool(self.admissions or self.grants or self.yields or self.leads_due or self.arrived)

    def grant(self, grant: Grant) -> None:
        """It has that lease from now on."""
        self.grants.append((grant.worker, grant.incarnation, grant.lease))


class Hosts:
    """Of one scheduler, whose `slots` these are. `release` ends a RunActor that is not needed any more."""

    def __init__(self, clock: Clock, slots: Slots, release: Callable[[str], None]) -> None:
        self._clock = clock
        self._slots = slots
        self._release = release
        self.by_name: dict[str, Host] = {}
        #: run -> RunActor
        self._placed: dict[str, str] = {}
        #: run -> the admission that holds for it; anything about an older one is late
        self._given: dict[str, Admission] = {}
        #: of the last admission
        self._number = 0
        #: run -> RunActor or "" = any: runs to be hosted without being started
        self._woken: dict[str, str] = {}
        #: of those, the ones that have ended, as far as was heard
        self._visiting: set[str] = set()

    def begin(self, epoch: int) -> None:
        """Admissions get numbers that no former scheduler gave."""
        self._number = epoch << 32

    # ── RunActors ─────────────────────────────────────────────────────────────────────────────────

    @property
    def ready(self) -> bool:
        """Is there one to place runs with?"""
        return any(host.standing for host in self.by_name.values())

    @property
    def idlest(self) -> Host:
        """The standing one with the fewest runs; there is one."""
        shared = (host for host in self.by_name.values() if host.standing)
        return min(shared, key=lambda host: (len(host.runs), host.name))

    def some_run_actor(self) -> str | None:
        """Whom to ask what any of them can do; None = nobody."""
        return self.idlest.name if self.ready else None

    def has(self, host: Host) -> bool:
        """Is it needed? Another one may have its name since."""
        return self.by_name.get(host.name) is host

    def stand(self, names: Iterable[str]) -> None:
        """These are always there, says the supervisor."""
        for name in names:
            host = self._known(name)
            if not host.standing:
                host.standing = True
                self._introduce_workers(host)

    def heard(self, name: str, epoch: int) -> Host | None:
        """Who tells where it stands; None = it is late, and does not count."""
        if name not in self.by_name and is_own_actor(name):
            return None  # its run has ended, and it with it; a lease taken over from it would stay with nobody
        host = self._known(name)
        if epoch < host.epoch:
            return None
        if epoch > host.epoch:
            self._was_replaced(host, epoch)
        elif host.visitors and not host.due and not host.sending:
            self._let_visitors_go(host)
        return host

    def worker_there(self, worker: str, incarnation: str) -> None:
        """Any standing RunActor may be given a lease of it next."""
        for host in self.by_name.values():
            if host.standing:
                host.arrived[worker] = incarnation

    def _known(self, name: str) -> Host:
        return self.by_name.setdefault(name, Host(name))

    def _introduce_workers(self, host: Host) -> None:
        """It looks up all workers. One that is there for a single run does not: it calls few of them."""
        if host.standing:
            host.arrived = {slot.worker: slot.incarnation for slot in self._slots.slots.values()}

    def _was_replaced(self, host: Host, epoch: int) -> None:
        """Its memory is gone: leases are void, and what it was told but had not committed is told again."""
        host.epoch = epoch
        host.competing, host.weights_due = False, True
        self._introduce_workers(host)
        host.grants.clear()
        host.yields.clear()
        self._slots.forget(host.name)
        host.visitors = dict.fromkeys(host.visitors, self._clock.monotonic())
        again = [self._given.get(run_id, Admission(run_id, only_host=True)) for run_id in sorted(host.runs)]
        host.admissions += [admission for admission in again if admission not in host.admissions]

    def _let_visitors_go(self, host: Host) -> None:
        """It lives and was told of them: of those that were woken long enough ago nothing is owed."""
        now_s = self._clock.monotonic()
        for run_id, woken_s in list(host.visitors.items()):
            if woken_s + ACTED_AFTER_S > now_s:
                return
            self.unplace(run_id)

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────

    def knows(self, run_id: str) -> bool:
        """Does the run live with somebody, or is it to?"""
        return run_id in self._placed or run_id in self._woken

    def given(self, run_id: str) -> Admission | None:
        """The admission by which the run lives where it does; None = it was not admitted, or not by this scheduler."""
        return self._given.get(run_id)

    def holds(self, admission: Admission) -> bool:
        """Is it still to be acted on?"""
        return admission.only_host or self._given.get(admission.run_id) == admission

    def wake(self, run_id: str, owner: str | None = None) -> None:
        """The run is to be hosted without being started: by its owner ("" = by any), else by who has it already."""
        self._woken[run_id] = self._placed.get(run_id, "") if owner is None else owner

    def wake_ended(self, run_id: str) -> None:
        """Somebody is to look at a run that has ended, as far as was heard."""
        self._visiting.add(run_id)
        self.wake(run_id)

    def host_woken(self) -> None:
        """Place the runs that are to be hosted; somebody is there."""
        for run_id, owner in self._woken.items():
            host = self.place(run_id, owner)
            host.admissions.append(Admission(run_id, only_host=True))
            if host.visitors.pop(run_id, None) is not None or run_id in self._visiting:
                host.visitors[run_id] = self._clock.monotonic()
        self._woken.clear()
        self._visiting.clear()

    def admit(self, run_id: str, owner: str, since: int, lane: str) -> None:
        """The run may start: with its owner, "" = with any. `since` and `lane` as in Admission."""
        host = self.place(run_id, owner)
        self._number += 1
        given = Admission(run_id, number=self._number, since=since, lane=lane)
        self._given[run_id] = given
        host.admissions.append(given)

    def place(self, run_id: str, owner: str) -> Host:
        """Where the run lives: where the journal says, else where the fewest are."""
        host = self._known(owner) if owner else self.idlest
        former = self._placed.get(run_id, host.name)
        if former != host.name:
            self._leave(self.by_name[former], run_id)
        host.runs.add(run_id)
        self._placed[run_id] = host.name
        return host

    def unplace(self, run_id: str) -> None:
        """The run lives nowhere now. A RunActor that was there for it alone ends."""
        self._given.pop(run_id, None)
        name = self._placed.pop(run_id, None)
        if name is None:
            return
        host = self.by_name[name]
        self._leave(host, run_id)
        if not host.standing and not host.runs:
            del self.by_name[name]
            self._slots.end(name)
            self._release(name)

    def moved(self, run_id: str, owner: str) -> None:
        """The run goes on with that owner, who is told of what it was woken for; "" = it sleeps."""
        self.unplace(run_id)
        if owner:
            self.place(run_id, owner)
            self._visiting.discard(run_id)
            if run_id in self._woken:
                self._woken[run_id] = owner

    def ended(self, run_id: str) -> None:
        """Nothing is kept of the run; if it was woken a moment ago, somebody looks at it first."""
        self.unplace(run_id)
        if run_id in self._woken:
            self._woken[run_id] = ""
            self._visiting.add(run_id)

    @staticmethod
    def _leave(host: Host, run_id: str) -> None:
        host.runs.discard(run_id)
        host.visitors.pop(run_id, None)
