"""Which of two rosters is the later one: they may come late, twice, and overtake one another.

The upper bits of a number are the millisecond in which its supervisor began, the lower ones count what changed since
then. Of one supervisor the higher number is the later roster. Of two the one that began later says who ought to exist;
a clock that was set back between them makes the later one look older, until the scheduler asks: whoever answers is it.
"""

from __future__ import annotations

from msgspec.structs import replace

from orchestrator.control import Roster

#: bits for what changes during the life of one supervisor
_COUNT_BITS = 20


def first_number(now_s: float) -> int:
    """For the empty roster with which a supervisor begins at that instant of wall time."""
    return int(now_s * 1000) << _COUNT_BITS


def numbered(wanted: Roster, former: Roster) -> Roster:
    """The roster that is wanted now, under the number of the former one if it is the same, else the next."""
    same = replace(wanted, number=former.number)
    return same if same == former else replace(same, number=former.number + 1)


class RosterOrder:
    """What a scheduler takes, and what is late."""

    def __init__(self) -> None:
        self._taken = 0

    def is_news(self, told: Roster) -> bool:
        """Nothing later was taken; it is, from now on."""
        if told.number < self._taken:
            return False
        self._taken = told.number
        return True

    def is_so(self, answer: Roster) -> bool:
        """It is what the supervisor says that lives now, unless that has said something else since."""
        if answer.number >> _COUNT_BITS == self._taken >> _COUNT_BITS:
            return self.is_news(answer)
        self._taken = answer.number
        return True
