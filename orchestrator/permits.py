"""Who may run tasks that need permits: the scheduler's third choice, without a clock or a wire.

    claim (a RunActor has tasks with a need) ──offered──▶ Slots ──a slot is free──▶ take: all permits or none ──▶ lease
         ▲                                        │ a permit is missing                                           │
         └── parked under that key ◀──────────────┘        permits come back with the slot, when nothing runs on it

**A permit belongs to a lease of a worker slot.** A worker runs one task at a time, so whoever has the slot and the
permits may run any number of tasks with that need on it, one after another, without asking: a chain under a limit is
as fast as one without. Nobody holds a permit while waiting for a slot or for another permit, so there is no deadlock,
and tasks for a pool without workers keep nothing from anybody. Plain tasks never come here.

**Exactness (I7).** Only this ledger grants, and only when all permits are free. They are free again when the holder
says that nothing runs on the slot, or when the worker is known to have stopped (`guard.py` finds out: *ghosts* are
leases whose holder is gone and whose worker may still be at it). After a restart nothing that has a key is granted
until everybody was heard (`opened`).

**Rates.** `count` tokens; each is away from the moment it is granted until `per_s` after its start was reported.
Between two starts on one token lie at least `per_s`, so any span of `per_s` sees at most `count` starts. A lease
under a rate comes with a number of starts and serves one batch. In a new scheduler all tokens were used when the last
RunActor may have started something by leave of the former one: they say so when they are heard.

**Order.** Claims wait under the first key that they miss, in lanes: one for each leaf of the tree of shares (a claim
for several leaves is in the lane of the first by name), and in a lane as they came. What frees permits offers them to
the first ones of each lane, and `Slots` decides among those offered, by the shares in their pool. A holder that has had
a lease for QUANTUM_S gives it back after its batch while others wait for its key. So a claim for one permit waits at
most for those of its lane before it, a quantum and a task each. A claim for several permits could be overtaken for
ever; one that has waited PATIENCE_S has what comes free of its keys set aside for it (while its pool has workers), so
it waits PATIENCE_S, and for the tasks that run by then, and so for each such claim before it. Until then no permit is
idle while a task could use it (I9).

Lowered limits: nothing is killed, leases above the ceiling start nothing more, and none is granted until enough are
back. A key without a definition is counted and not limited.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice

from orchestrator.leases import Claim, Lease, LeaseKey, Meter, Use, label_of
from orchestrator.limits import NO_LIMIT, Limit
from orchestrator.messages import Need
from orchestrator.shares import Path
from orchestrator.slots import QUANTUM_S, Grant

#: seconds after which a claim for several permits has them set aside
PATIENCE_S = 10.0
#: starts that come with one lease under a rate
STARTS_MAX = 64
#: such claims looked at in one turn
SET_ASIDE_MAX = 8


class Permits:
    """All claims, leases and keys. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        #: everybody was heard: keys may be granted
        self.opened = False
        #: when a former ledger may have allowed something last: tokens count as used then
        self._since_s = -math.inf
        self._limits: dict[str, Limit] = {}
        #: prefix of a key -> limit
        self._patterns: dict[str, Limit] = {}
        self.uses: dict[str, Use] = {}
        self.claims: dict[str, Claim] = {}
        #: those that somebody answers for; a worker may have several while it is not clear whose slot it is
        self.leases: dict[LeaseKey, Lease] = {}
        self.ghosts: list[Lease] = []
        #: claims to be offered as soon as possible, and keys that came free
        self._fresh: dict[str, Claim] = {}
        self._freed: dict[str, None] = {}
        #: claims for several permits, by how long they wait
        self._greedy: dict[str, Claim] = {}
        #: label -> per lease to come, for whom it is and the starts that come with it; None = any number
        self._taken: dict[str, list[tuple[Claim, int | None]]] = {}
        #: keys that were defined anew: some of their leases may have to start nothing more
        self._over: dict[str, None] = {}
        #: keys with a rate, and keys that somebody waits for
        self._metered: dict[str, None] = {}
        self._contended: dict[str, None] = {}
        #: when a lease may have to be given back although nothing happened
        self._review_s = math.inf

    # ── definitions ──

    def begin(self, now_s: float) -> None:
        """An earlier ledger may have granted until now."""
        self._since_s = now_s

    def open(self, since_s: float, now_s: float) -> None:
        """Everybody was heard; by leave of an earlier ledger something may have started until `since_s`."""
        self.opened = True
        if since_s > self._since_s:
            self._since_s = since_s
            for key in list(self._metered):
                self.uses[key].meter = None
                self._redefine(key, now_s)

    def define(self, key: str, limit: Limit | None, now_s: float) -> None:
        """What is allowed under a key, or a pattern, from now on; None = no definition."""
        known = self._patterns if key.endswith("*") else self._limits
        name = key.removesuffix("*") if key.endswith("*") else key
        if limit is None:
            known.pop(name, None)
        else:
            known[name] = limit
        for each in [each for each in self.uses if each == key or (known is self._patterns and each.startswith(name))]:
            self._redefine(each, now_s)

    def limit_of(self, key: str) -> Limit:
        """What is allowed under a key."""
        if key in self._limits:
            return self._limits[key]
        fitting = [prefix for prefix in self._patterns if key.startswith(prefix)]
        return self._patterns[max(fitting, key=len)] if fitting else NO_LIMIT

    def _use(self, key: str, now_s: float) -> Use:
        use = self.uses.get(key)
        if use is None:
            use = self.uses[key] = Use(NO_LIMIT)
            self._redefine(key, now_s)
        return use

    def _redefine(self, key: str, now_s: float) -> None:
        use, limit = self.uses[key], self.limit_of(key)
        use.limit = limit
        if limit.rate is None:
            use.meter = None
            self._metered.pop(key, None)
        elif use.meter is None:
            used = [self._since_s] * limit.rate.count if self._since_s + limit.rate.per_s > now_s else []
            use.meter = Meter(limit.rate, used)
            use.meter.away = sum(lease.tokens for lease in use.leases)
        else:
            use.meter.rate = limit.rate
        if use.meter is not None:
            self._metered[key] = None
        self._freed[key] = None
        self._over[key] = None

    def _tidy(self, key: str, now_s: float) -> None:
        use = self.uses.get(key)
        if use is not None and use.is_idle(now_s):
            del self.uses[key]
            for remembered in (self._freed, self._over, self._metered, self._contended):
                remembered.pop(key, None)

    # ── claims ──

    def demand(self, holder: str, need: Need, leaves: dict[Path, int], now_s: float) -> str:
        """The holder has so many tasks with that need that wait for a slot, by leaf. The claim's label."""
        label = label_of(holder, need)
        claim = self.claims.get(label)
        if not leaves:
            if claim is not None:
                self._drop(claim, now_s)
            return label
        if claim is None:
            claim = self.claims[label] = Claim(label, holder, need, now_s)
            if len(need.keys) > 1 or any(slots > 1 for _, slots in need.keys):
                self._greedy[label] = claim
        moved = bool(claim.leaves) and min(claim.leaves) != min(leaves)
        claim.leaves = dict(leaves)
        if claim.parked is None or moved:
            self._unpark(claim)
            self._fresh[label] = claim
        return label

    def claimed_by(self, holder: str) -> list[Need]:
        """What the holder claims."""
        return [claim.need for claim in self.claims.values() if claim.holder == holder]

    def offers(self, now_s: float, pools: Iterable[str]) -> list[Claim]:
        """Claims that may bid for a slot from now on: as far as permits are concerned, they could have it.

        `pools` are those with workers.
        """
        if self.opened:
            for key in self._metered:
                if self.uses[key].waiting and self.uses[key].meter.free(now_s) > 0:  # type: ignore[union-attr]  # metered
                    self._freed[key] = None
            self._set_aside(now_s, frozenset(pools))
            for key in self._freed:
                self._look_at_reserved(key)
        out = []
        for label in list(self._fresh):
            claim = self._fresh[label]
            if self.opened or not claim.need.keys:
                del self._fresh[label]
                out += [] if self._parks(claim, now_s) else [claim]
        while self.opened and self._freed:
            key = next(iter(self._freed))
            del self._freed[key]
            if key in self.uses:
                out += self._offers_of(key, now_s)
        return out

    def _offers_of(self, key: str, now_s: float) -> Iterator[Claim]:
        """Those of its lanes that could have their permits, as long as there are some."""
        use = self.uses[key]
        for lane in sorted(use.lanes):
            room = use.room(now_s)
            while (waiting := use.lanes.get(lane)) and room > 0:
                claim = next(iter(waiting.values()))
                missing = self._missing(claim, now_s)
                if missing == key:
                    break
                self._unpark(claim)
                if missing is not None:
                    self._park(claim, missing)
                    continue
                room -= lane[2]
                yield claim
        self._tidy(key, now_s)

    def _set_aside(self, now_s: float, pools: frozenset[str]) -> None:
        """Claims for several permits that have waited for long get the next ones."""
        for claim in list(islice(self._greedy.values(), SET_ASIDE_MAX)):
            if claim.since_s + PATIENCE_S > now_s:
                break
            uses = [self._use(key, now_s) for key, _ in claim.need.keys]
            if claim.need.pool not in pools:
                self._unreserve(claim)
            elif all(use.reserved is None for use in uses):
                for use in uses:
                    use.reserved = claim.label
                self._unpark(claim)
                self._fresh[claim.label] = claim

    def _look_at_reserved(self, key: str) -> None:
        """Something of the key came free: for whom it is set aside, if it is."""
        use = self.uses.get(key)
        claim = self.claims.get(use.reserved) if use is not None and use.reserved is not None else None
        if claim is not None and claim.parked is not None:
            self._unpark(claim)
            self._fresh[claim.label] = claim

    def _unreserve(self, claim: Claim) -> None:
        for key, _ in claim.need.keys:
            use = self.uses.get(key)
            if use is not None and use.reserved == claim.label:
                use.reserved = None
                self._freed[key] = None

    def _missing(self, claim: Claim, now_s: float) -> str | None:
        """The first key of which the claim cannot have its permits now."""
        for key, slots in claim.need.keys:
            use = self._use(key, now_s)
            if use.reserved not in (None, claim.label) or not use.fits(slots, now_s):
                return key
        return None

    def _parks(self, claim: Claim, now_s: float) -> bool:
        missing = self._missing(claim, now_s)
        if missing is not None:
            self._unpark(claim)
            self._park(claim, missing)
        return missing is not None

    def _park(self, claim: Claim, key: str) -> None:
        lane = (min(claim.leaves), claim.need.pool, dict(claim.need.keys)[key])
        use = self.uses[key]
        use.lanes.setdefault(lane, {})[claim.label] = claim
        use.waiting += 1
        self._contended[key] = None
        claim.parked = key, lane

    def _unpark(self, claim: Claim) -> None:
        if claim.parked is None:
            return
        key, lane = claim.parked
        use = self.uses[key]
        del use.lanes[lane][claim.label]
        if not use.lanes[lane]:
            del use.lanes[lane]
        use.waiting -= 1
        if not use.waiting:
            self._contended.pop(key, None)
        claim.parked = None

    def _drop(self, claim: Claim, now_s: float) -> None:
        self._unpark(claim)
        self._fresh.pop(claim.label, None)
        self._greedy.pop(claim.label, None)
        self._unreserve(claim)
        del self.claims[claim.label]
        self._freed |= dict.fromkeys(key for key, _ in claim.need.keys if key in self.uses)
        for key, _ in claim.need.keys:
            self._tidy(key, now_s)

    # ── leases ──

    def take(self, label: str, now_s: float) -> bool:
        """A slot is there for that bidder: take its permits, all or none. Plain bidders need none."""
        claim = self.claims.get(label)
        if claim is None:
            return "\n" not in label
        if claim.need.keys and not self.opened:
            self._fresh[label] = claim
            return False
        if self._parks(claim, now_s):
            self._freed |= dict.fromkeys(key for key, _ in claim.need.keys)  # others may have what it leaves
            return False
        starts: int | None = None
        meters = [use.meter for use in self._hold(claim.need, now_s) if use.meter is not None]
        if meters:
            starts = min(STARTS_MAX, max(1, claim.waiting), *(meter.free(now_s) for meter in meters))
            for meter in meters:
                meter.away += starts
        self._taken.setdefault(label, []).append((claim, starts))
        return True

    def bind(self, grant: Grant, now_s: float) -> Lease:
        """What was taken goes with this lease of a slot. Raises KeyError for a plain bidder."""
        label = grant.holder
        claim, starts = self._taken[label].pop(0)
        if not self._taken[label]:
            del self._taken[label]
        lease = Lease(label, claim.holder, claim.need, grant.worker, grant.incarnation, grant.lease, now_s)
        lease.metered, lease.tokens, lease.kept = starts is not None, starts or 0, grant.kept
        self._enter(lease, now_s)
        self._unreserve(claim)
        if self.claims.get(label) is claim:
            self._count_down(claim, grant.leaf, now_s)
        return lease

    def _count_down(self, claim: Claim, leaf: Path | None, now_s: float) -> None:
        """One less waits; the others have waited since now."""
        leaf = leaf if leaf in claim.leaves else min(claim.leaves)
        claim.leaves[leaf] -= 1
        if not claim.leaves[leaf]:
            del claim.leaves[leaf]
        claim.since_s = now_s
        if not claim.leaves:
            self._drop(claim, now_s)
        elif self._greedy.pop(claim.label, None) is not None:
            self._greedy[claim.label] = claim

    def adopt(self, lease: Lease, now_s: float) -> None:
        """An earlier ledger granted this: its permits are in use, whatever is free."""
        for use in self._hold(lease.need, now_s):
            if use.meter is not None:
                use.meter.away += lease.tokens
        self._enter(lease, now_s)

    def spot(self, ghost: Lease, now_s: float) -> None:
        """A worker is at something that nobody answers for: its permits are in use."""
        self._hold(ghost.need, now_s)
        for key, _ in ghost.need.keys:
            self.uses[key].leases[ghost] = None
        self.ghosts.append(ghost)

    def find(self, holder: str, worker: str, number: int) -> Lease | None:
        """The lease of that holder, unless it is over or haunts a worker."""
        return self.leases.get((holder, worker, number))

    def haunt(self, lease: Lease) -> None:
        """Nobody answers for the lease any more, and its worker may be at it: its permits stay in use."""
        if self.leases.pop(lease.key, None) is not None:
            self.ghosts.append(lease)

    def begun(self, lease: Lease, starts: int, now_s: float) -> None:
        """So many of the starts of that lease were used, and it has none left. A second time changes nothing."""
        if lease.tokens:
            self._report(lease, min(starts, lease.tokens), now_s)

    def release(self, lease: Lease, now_s: float) -> None:
        """Nothing runs on that lease any more: its permits are free. A second time changes nothing."""
        if self.leases.pop(lease.key, None) is not None:
            self._free(lease, now_s)

    def lay(self, ghost: Lease, now_s: float) -> None:
        """The worker of that ghost has stopped."""
        if ghost in self.ghosts:
            self.ghosts.remove(ghost)
            self._free(ghost, now_s)

    def _hold(self, need: Need, now_s: float) -> list[Use]:
        uses = []
        for key, slots in need.keys:
            use = self._use(key, now_s)
            use.running += slots
            uses.append(use)
        return uses

    def _enter(self, lease: Lease, now_s: float) -> None:
        self.leases[lease.key] = lease
        for key, _ in lease.need.keys:
            self._use(key, now_s).leases[lease] = None

    def _report(self, lease: Lease, begun: int, now_s: float) -> None:
        for key, _ in lease.need.keys:
            meter = self.uses[key].meter
            if meter is not None:
                meter.report(lease.tokens, begun, now_s)
                self._freed[key] = None
        lease.tokens = 0

    def _free(self, lease: Lease, now_s: float) -> None:
        if lease.tokens:  # nobody said how many were used
            self._report(lease, lease.tokens, now_s)
        for key, slots in lease.need.keys:
            use = self.uses[key]
            use.running -= slots
            use.leases.pop(lease, None)
            self._freed[key] = None
            self._tidy(key, now_s)

    # ── what is to be given back ──

    def yields(self, now_s: float) -> list[Lease]:
        """Leases to be given back as soon as what runs on them has ended; each is asked once."""
        self._review_s = math.inf
        out: list[Lease] = []
        for key in list(self._over):
            out += self._above(key)
        for key in self._contended:
            out += self._overdue(self.uses[key], now_s)
        return out

    def _above(self, key: str) -> Iterator[Lease]:
        """After a new definition: what must not start anything more."""
        use = self.uses[key]
        most = math.inf if use.limit.max_running is None else use.limit.max_running
        kept = use.running - sum(dict(lease.need.keys)[key] for lease in use.leases if lease.yielding)
        for lease in [lease for lease in use.leases if not lease.yielding]:
            if kept > most or (use.meter is not None and not lease.metered):
                kept -= dict(lease.need.keys)[key]
                lease.yielding = True
                yield lease
        del self._over[key]

    def _overdue(self, use: Use, now_s: float) -> Iterator[Lease]:
        """Leases that others wait for, and that have lasted for a quantum."""
        if use.limit.max_running is None:
            return
        waiting = {label for lane in use.lanes.values() for label in islice(lane, len(use.leases) + 1)}
        asked = sum(lease.yielding for lease in use.leases)
        for lease in use.leases:
            if asked >= use.waiting:
                return
            if lease.yielding or waiting == {lease.label}:
                continue
            if lease.since_s + QUANTUM_S > now_s:
                self._review_s = min(self._review_s, lease.since_s + QUANTUM_S)
                return
            lease.yielding = True
            asked += 1
            yield lease

    def next_review_s(self, now_s: float) -> float | None:
        """Seconds until `offers` or `yields` may answer more although nothing happened; None when they cannot."""
        at = [self._review_s - now_s] if self._review_s < math.inf else []
        for key in self._metered:
            use = self.uses[key]
            if use.waiting and use.meter is not None and (next_s := use.meter.next_s(now_s)) is not None:
                at.append(next_s)
        for claim in islice(self._greedy.values(), SET_ASIDE_MAX):
            if claim.parked is not None and claim.since_s + PATIENCE_S > now_s:
                at.append(claim.since_s + PATIENCE_S - now_s)
                break
        return max(0.0, min(at)) if at else None

    # ── for people ──

    @property
    def parked(self) -> int:
        """Tasks of claims that do not bid for a slot, since a permit is missing."""
        return sum(claim.waiting for claim in self.claims.values() if claim.parked is not None)

    def usage(self) -> dict[str, tuple[int, int]]:
        """key -> permits in use, tasks that wait for one (or for something else that they need beside it)."""
        out = {key: (use.running, 0) for key, use in self.uses.items()}
        for claim in self.claims.values():
            for key, _ in claim.need.keys:
                running, waiting = out.get(key, (0, 0))
                out[key] = running, waiting + claim.waiting
        return out
