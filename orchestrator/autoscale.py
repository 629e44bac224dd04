"""How many workers a pool should have: a pure function of what waits, what works, and the time.

    need = busy + ceil(waiting / tasks_per_worker), within min..max

    need > current   more, at once when there is none, else when tasks have waited for `scale_up_wait_s`;
                     at most `step` at a time, and the next ones no sooner than STEP_S later
    need < current   fewer, once that was so for `idle_timeout_s` without a break: the most that was needed meanwhile

Going up is judged by the moment, going down by the most that was needed over the whole idle time, so a load that comes
and goes within that time moves nothing. What remembers this is a `Course`, of constant size; whoever loses it waits
one idle time longer before workers end, and that is all.

The other design was a target utilisation with a moving average, as for servers: it needs tuning per pool, and reaches
zero never or late. Here a worker slot does one task at a time, so what is needed can simply be counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.pools import PoolSpec

#: seconds between two steps up: those of the former one have hardly begun by then
STEP_S = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """A pool as it is now."""

    #: ready tasks that would start if there were slots
    waiting: int = 0
    #: seconds for which some have waited, without a break
    waiting_s: float = 0.0
    #: workers that have work
    busy: int = 0


@dataclass(frozen=True, slots=True)
class Course:
    """How many there should be, and what later decisions depend on. Times are seconds of a monotonic clock."""

    wanted: int
    #: since when fewer are needed than there are; None = that is not so
    surplus_since_s: float | None = None
    #: the most that was needed since then
    peak: int = 0
    #: when there were more the last time
    stepped_s: float | None = None


def needed(spec: PoolSpec, load: Load) -> int:
    """Workers that have or would have work, within the bounds."""
    more = -(-load.waiting // spec.tasks_per_worker)
    return max(spec.min, min(spec.max, load.busy + more))


def steer(spec: PoolSpec, load: Load, course: Course, now_s: float) -> Course:
    """The course from now on."""
    current = max(spec.min, min(spec.max, course.wanted))
    need = needed(spec, load)
    if need > current and _may_grow(spec, load, course, current, now_s):
        return Course(min(need, current + spec.step), stepped_s=now_s)
    if need >= current:
        return Course(current, stepped_s=course.stepped_s)
    since_s = now_s if course.surplus_since_s is None else course.surplus_since_s
    peak = max(need, course.peak)
    if now_s - since_s >= spec.idle_timeout_s:
        return Course(peak, stepped_s=course.stepped_s)
    return Course(current, since_s, peak, course.stepped_s)


def _may_grow(spec: PoolSpec, load: Load, course: Course, current: int, now_s: float) -> bool:
    rested = course.stepped_s is None or now_s - course.stepped_s >= STEP_S
    return current == 0 or (rested and load.waiting_s >= spec.scale_up_wait_s)
