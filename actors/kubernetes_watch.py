"""What happens to our Jobs, as the cluster tells it: one list and one watch for all of them, in a thread of its own.

    list ─▶ (all Jobs, version) ─▶ watch from that version ─▶ changes …
      ▲                                │ ended in good order: watch on from the last version
      └────── forgotten (410), cut, refused: list again ◀──┘

A watch that did not last makes the next try wait, longer each time up to a cap. A list is taken as of the instant at
which it was asked for: a Job that was there before, and is not in it, has gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from actors.kubernetes_cluster import WatchExpired
from orchestrator.errors import Refused, Unavailable
from orchestrator.kubernetes_job import Json

_log = logging.getLogger(__name__)

#: pause after a watch that did not last; doubles up to the cap
PAUSE_S, PAUSE_MAX_S = 0.1, 10.0
#: a watch that lasted this long was well
STEADY_S = 10.0


class Jobs(Protocol):
    """The part of `Cluster` that is needed here."""

    def jobs(self) -> tuple[list[Json], str]: ...

    def changes(self, version: str) -> Iterator[tuple[str, Json, str]]: ...


class Listener(Protocol):
    """Who is told, from the watching thread."""

    def listed(self, jobs: list[Json], asked_s: float) -> None:
        """These are all Jobs of ours; the list was asked for at that monotonic instant."""

    def changed(self, kind: str, job: Json) -> None:
        """ADDED, MODIFIED or DELETED."""


class JobWatch:
    """Watches until it is told to stop: `run` is what its thread does. `pause(seconds)` is True when it is to stop."""

    def __init__(
        self, cluster: Jobs, listener: Listener, monotonic: Callable[[], float], pause: Callable[[float], bool]
    ) -> None:
        self._cluster = cluster
        self._listener = listener
        self._monotonic = monotonic
        self._pause = pause
        #: where the next watch begins; None = with a list
        self._version: str | None = None
        #: why nothing is heard just now; empty = all is well
        self.trouble = ""

    def run(self) -> None:
        """Raises only what is neither the cluster's refusal nor its silence."""
        pause_s = 0.0
        while not self._pause(pause_s):
            began_s = self._monotonic()
            try:
                self._follow()
            except WatchExpired as expired:
                _log.info("%s", expired)
                self._version = None
            except (Refused, Unavailable) as failed:
                _log.warning("watch of Jobs: %s", failed)
                self._version, self.trouble = None, str(failed)
            lasted = self._monotonic() - began_s >= STEADY_S
            pause_s = 0.0 if lasted else min(PAUSE_MAX_S, 2 * pause_s or PAUSE_S)

    def _follow(self) -> None:
        """Once until the watch ends."""
        if self._version is None:
            asked_s = self._monotonic()
            jobs, self._version = self._cluster.jobs()
            self.trouble = ""
            self._listener.listed(jobs, asked_s)
        for kind, job, version in self._cluster.changes(self._version):
            self._version = version
            if kind != "BOOKMARK":
                self._listener.changed(kind, job)
