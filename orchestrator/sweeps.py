"""Sweeps, as the journal keeps them: what ended before an instant goes, and how far that is.

    wanted ──▶ running ──▶ done | failed

Somebody asks for one, or a sweeper makes one by itself (AUTOMATIC); one that was put off, or cut off, is still open.
What goes, and where to: `archive.py` and `reclaim.py`, which each have one kind of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

#: id of the sweep that nobody asked for
AUTOMATIC = "automatic"
#: how a sweep ends, as metrics count it: carried out, refused for good, or cut short by a journal or store that is away
ENDS = ("done", "failed", "put_off")
#: sweeps that have ended and are still told of
TOLD = 20


class AnySweep(msgspec.Struct, frozen=True, kw_only=True):
    """One errand."""

    id: str
    #: what ended before then goes
    before_ms: int
    #: wanted | running | done | failed
    state: str = "wanted"
    #: why it failed, or why it is put off and tried again
    error: str = ""
    #: of the request that asked for it under a key
    fingerprint: str = ""
    asked_ms: int = 0
    updated_ms: int = 0

    @property
    def open(self) -> bool:
        """Is there something to do?"""
        return self.state in ("wanted", "running")


S = TypeVar("S", bound=AnySweep)


@dataclass(frozen=True, slots=True)
class Kind(Generic[S]):
    """One kind of sweeps."""

    #: kind of their records in the journal: id -> sweep
    records: str
    #: counters of their ends are named so, and after the end
    counted: str
    encode: Callable[[S], bytes]
    #: raises Broken
    decode: Callable[[bytes], S]

    def in_order(self, records: Mapping[str, bytes]) -> list[S]:
        """All of them, the one asked for first first."""
        return sorted(map(self.decode, records.values()), key=lambda sweep: (sweep.asked_ms, sweep.id))
