"""How an actor reaches another one: the port that `directory.py` implements over Ray.

Names go in, never handles; bytes in, bytes out. Every call has a deadline.
"""

from __future__ import annotations

from typing import Any, Protocol

from orchestrator.errors import Unavailable


class WorkerGone(Unavailable):
    """The worker died, or does not answer any more; what it was doing is lost."""

    def __init__(self, worker: str, why: str) -> None:
        super().__init__(worker, why)
        self.worker = worker
        self.why = why

    def __str__(self) -> str:
        return f"worker {self.worker} is gone: {self.why}"


class WorkerUnreachable(WorkerGone):
    """A call did not arrive, or its answer did not. The worker may have died, or be at what it was told to do."""

    def __str__(self) -> str:
        return f"worker {self.worker} is not reached: {self.why}"


class Peers(Protocol):
    """What control actors say to each other and to workers."""

    def meet(self, worker: str, incarnation: str) -> None:
        """A worker of that incarnation has the name now: whoever had it before is not called any more."""
        ...

    async def look_up(self, worker: str, incarnation: str) -> None:
        """Find the way to a worker that is not needed yet: while Ray's GCS is away nobody can be found."""
        ...

    async def exchange(self, worker: str, blob: bytes) -> bytes:
        """Run a batch at a worker; answers when it ended. Raises WorkerGone, or WorkerUnreachable if nobody knows."""
        ...

    async def is_dead(self, worker: str) -> bool:
        """Is it certain that a worker that was not reached has died?"""
        ...

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        """A method of the worker that answers while user code runs. Raises as `exchange`, also after 3 s of silence."""
        ...

    async def kill(self, worker: str) -> None:
        """End the worker's process; Ray starts it again."""
        ...

    async def tell(self, actor: str, method: str, blob: bytes) -> None:
        """Deliver a message to a control actor. Raises ActorUnreachable."""
        ...

    async def ask(self, actor: str, method: str, blob: bytes) -> bytes:
        """A message and its answer. Raises ActorUnreachable."""
        ...
