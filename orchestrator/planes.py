"""Which control plane is in charge of a journal: a lease that one holds, and others wait for.

    nobody ──claim──▶ in charge ──claim (renews)──▶ in charge
       ▲                 │  ├─ its lease ran out ──claim of another──▶ the other one, next term
       └────release──────┘  └─ asked to hand over: it releases, and for a while only who asked may have it

A control plane is the supervisor, scheduler and RunActors of one Ray cluster. Two share a journal while a cluster is
replaced by a new one; the second *stands by*: it answers, and accepts what is durable, but decides nothing.

Time is that of the journal's server alone, so clocks of machines do not matter. What makes it safe is not time but the
*term*, which grows whenever the lease changes hands: epochs are taken within a term, and the journal refuses what is
decided under epochs of a former one (`commit.lua`). So a plane that was paused, and believes itself in charge, is
harmless; time only says when somebody else may try. `scripts/claim_plane.lua` and `release_plane.lua` are these rules
in the journal, held to them by a test.

Two designs were open: take over at once when somebody asks for it, or have the holder step down. The holder steps down:
it ends its workers first, so that no task runs twice at the same time; if it is dead, its lease runs out anyway.
"""

from __future__ import annotations

import msgspec

#: milliseconds that a lease lasts without being renewed, and for which it is kept for who asked for it
LEASE_MS = 10_000
KEPT_MS = 10_000


class Lease(msgspec.Struct, frozen=True):
    """Who is in charge. Instants are epoch milliseconds by the journal's server."""

    #: "" = nobody
    plane: str = ""
    #: grows whenever somebody comes to be in charge, or is not any more; 0 = nobody ever was
    term: int = 0
    #: when it grew last
    since_ms: int = 0
    #: until then it is the plane's, or kept for `wanted`; 0 = for ever, or for nobody
    until_ms: int = 0
    #: what `until_ms` was set ahead by
    span_ms: int = 0
    #: the data directory that the plane was started on
    seat: str = ""
    #: where its API answers
    url: str = ""
    #: the plane that asked for it
    wanted: str = ""


class PlaneView(msgspec.Struct, frozen=True):
    """A plane, and who is in charge."""

    plane: str
    in_charge: bool
    lease: Lease = Lease()
    #: seconds since whoever is in charge renewed the lease, or since nobody is; None = it need not be renewed
    age_s: float | None = None


class Claim(msgspec.Struct, frozen=True):
    """A plane wants to be, or stay, in charge."""

    plane: str
    #: 0 = for ever
    span_ms: int = LEASE_MS
    seat: str = ""
    url: str = ""
    #: it has just been started on its seat, of which whoever was in charge from there is gone
    returning: bool = False
    #: the journal can have no other plane
    alone: bool = False
    #: the holder is to hand over
    wants: bool = False


def claim(lease: Lease, asked: Claim, now_ms: int) -> Lease:
    """The lease after the claim: granted when it names the plane that asked."""
    until_ms = now_ms + asked.span_ms if asked.span_ms else 0
    if lease.plane == asked.plane:
        wanted = "" if lease.wanted == asked.plane else lease.wanted
        return msgspec.structs.replace(lease, until_ms=until_ms, span_ms=asked.span_ms, wanted=wanted)
    if is_open(lease, asked, now_ms):
        return Lease(asked.plane, lease.term + 1, now_ms, until_ms, asked.span_ms, asked.seat, asked.url)
    wanted = asked.plane if asked.wants and lease.plane else lease.wanted
    # further ahead than it was ever set: the clock was set back
    until_ms = min(lease.until_ms, now_ms + lease.span_ms)
    return msgspec.structs.replace(lease, until_ms=until_ms, wanted=wanted)


def is_open(lease: Lease, asked: Claim, now_ms: int) -> bool:
    """May the plane that asked have the lease of another, or of nobody?"""
    if asked.alone:
        return True
    ran_out = lease.until_ms != 0 and lease.until_ms <= now_ms
    if not lease.plane:
        return ran_out or lease.wanted in ("", asked.plane)
    return ran_out or (asked.returning and asked.seat != "" and asked.seat == lease.seat)


def release(lease: Lease, plane: str, now_ms: int) -> Lease:
    """Nobody is in charge if that plane was; whoever asked for the lease may have it first."""
    if lease.plane != plane:
        return lease
    kept_ms = now_ms + KEPT_MS if lease.wanted else 0
    span_ms = KEPT_MS if lease.wanted else 0
    return Lease(term=lease.term + 1, since_ms=now_ms, until_ms=kept_ms, span_ms=span_ms, wanted=lease.wanted)


def age_ms(lease: Lease, now_ms: int) -> int | None:
    """Milliseconds since the plane in charge renewed its lease; while nobody is in charge, since that is so.

    More than LEASE_MS: nobody may be in charge. None = it lasts for ever, or nobody ever was in charge.
    """
    if lease.plane:
        return max(0, now_ms - (lease.until_ms - lease.span_ms)) if lease.span_ms else None
    return max(0, now_ms - lease.since_ms) if lease.since_ms else None


def may_decide(lease: Lease, plane: str) -> bool:
    """May actors of the plane take epochs? Where nobody was ever in charge, anybody's may."""
    return lease.term == 0 or lease.plane == plane
