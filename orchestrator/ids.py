"""Identifiers: how they are written, ordered and read.

A run id is `run_` and 22 base-62 digits: 48 bits of milliseconds, 16 bits of sequence within the
millisecond, 64 random bits. Ids minted by one process ascend, so a list ordered by id is ordered
by creation, and a cursor into that list stays valid while new runs arrive. A run born on another surface
has the digits alone, and its place in a list is that of `run_` and its id. That of an orchestrator instance is
`orch-`, 13 digits of milliseconds, `-`, and 7 base-36 digits of sequence and chance.
"""

from __future__ import annotations

from typing import NewType

RunId = NewType("RunId", str)
DagId = NewType("DagId", str)
TaskId = NewType("TaskId", str)
Tenant = NewType("Tenant", str)
ActorName = NewType("ActorName", str)
#: grows by one at each start of a task and never repeats within a run: the fencing token of a result
Attempt = NewType("Attempt", int)
#: number of the last event of an entity, 1 for its first
Version = NewType("Version", int)

#: of whoever says nothing else; its workers and runners serve all tenants
DEFAULT_TENANT = "default"
#: an orchestrator instance is a run whose id begins so
INSTANCE_PREFIX = "orch-"

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WIDTH = 22


def base62(number: int, width: int = _WIDTH) -> str:
    """`number` in base 62, left-padded to `width`; ASCII order of the text is numeric order."""
    out = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        out.append(_DIGITS[digit])
    return "".join(reversed(out))


def place(any_id: str) -> str:
    """Where a run stands in lists; the form of a cursor."""
    return any_id if any_id.startswith("run_") else f"run_{any_id}"


def instance_id(milliseconds: int, sequence: int, random_bits: int) -> RunId:
    """The id of an orchestrator instance: what a run id says, readable; ids of one process ascend."""
    tail = _base36((sequence & 0xFFFF) << 16 | random_bits & 0xFFFF, 7)
    return RunId(f"{INSTANCE_PREFIX}{milliseconds:013d}-{tail}")


def _base36(number: int, width: int) -> str:
    out = []
    for _ in range(width):
        number, digit = divmod(number, 36)
        out.append("0123456789abcdefghijklmnopqrstuvwxyz"[digit])
    return "".join(reversed(out))


def run_id(milliseconds: int, sequence: int, random_bits: int) -> RunId:
    """The id of a run created at `milliseconds` since the epoch, `sequence`-th of that millisecond."""
    number = (milliseconds << 80) | ((sequence & 0xFFFF) << 64) | (random_bits & 0xFFFFFFFFFFFFFFFF)
    return RunId("run_" + base62(number))
