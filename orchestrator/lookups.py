"""Tasks of one run that may start, and whose result may be known already: they are looked up before a worker is asked.

    may start ──▶ wanted ──▶ asked ──▶ found: succeeded (`run_commands.Recall`)
                    ▲          │  └──▶ not found: it waits for a slot like any other task
                    └──────────┘ the run does not go on at the moment

Part of a run's memory, and a cache of it: of a run that is read again whatever may start is looked up again. A task is
looked up once, before its first attempt: who retries it, or reprocesses the run, wants it computed.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.run_state import Run


class Lookups:
    """Made with the run; takes over those of its ready tasks that are to be looked up."""

    __slots__ = ("asked", "known", "wanted")

    def __init__(self, run: Run) -> None:
        #: positions to be looked up; being looked up; nothing is known of, so that they are to be computed
        self.wanted: dict[int, None] = {}
        self.asked: set[int] = set()
        self.known: set[int] = set()
        run.ready = [entry for entry in run.ready if not self.offer(run, entry[1])]
        heapq.heapify(run.ready)

    @property
    def size(self) -> int:
        """Tasks that wait here."""
        return len(self.wanted) + len(self.asked)

    def offer(self, run: Run, position: int) -> bool:
        """Is it to be looked up first? Then it waits here now."""
        if run.compiled.specs[position].cache_ttl_s is None or run.tasks[position].attempt or position in self.known:
            return False
        if position not in self.asked:
            self.wanted[position] = None
        return True

    def take(self, run: Run) -> list[int]:
        """Positions to look up now, each startable."""
        wanted, self.wanted = self.wanted, {}
        taken = [position for position in wanted if run.could_start(position)]
        self.asked.update(taken)
        return taken

    def answered(self, position: int) -> bool:
        """Was it asked about? Then it does not wait here any more."""
        if position not in self.asked:
            return False
        self.asked.remove(position)
        return True

    def clear(self) -> None:
        """Nothing waits any more."""
        self.wanted.clear()
        self.asked.clear()
