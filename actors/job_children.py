"""Sub-jobs: made once their parent's wish is durable, found again after a restart, never left behind.

The id of a sub-job is in its parent's events, so making it twice makes it once. A parent that waits is told the end of
its sub-job in the commit of that end; after a restart it asks again, and is told what the sub-job's events say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Protocol, TypeVar

from actors.clock import Clock
from actors.held_job import HeldJob
from actors.holder import Turn
from actors.pinned_blueprints import PinnedBlueprints
from orchestrator.job import Cancel, ChildEnded, ChildRefused, Command, Job, StartChild
from orchestrator.job_birth import Birth, new_job
from orchestrator.rows import TERMINAL, RunRow
from orchestrator.steps import CreatedRun, NewRun

T = TypeVar("T")


class Cradle(Protocol):
    """What the holder of the jobs does for this."""

    name: str

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The journal's answer, however long it is away."""

    async def find(self, run_id: str) -> HeldJob | None:
        """A job, held or ended."""

    async def create(self, run: NewRun) -> CreatedRun:
        """It exists."""

    async def row(self, job_id: str) -> RunRow | None:
        """What the journal says of it."""

    def command(self, job_id: str, command: Command) -> None:
        """In a later turn, if it is held."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Go on with this by the way."""


class JobChildren:
    """Sub-jobs of the jobs of one holder."""

    def __init__(self, clock: Clock, blueprints: PinnedBlueprints, cradle: Cradle) -> None:
        self._clock = clock
        self._blueprints = blueprints
        self._cradle = cradle
        #: sub-jobs that were made, or are being made, for a parent that waits
        self._made: set[str] = set()
        self._looked: set[str] = set()

    def start(self, turn: Turn[HeldJob], parent: Job, effect: StartChild) -> None:
        """The sub-job exists soon after the commit."""
        if effect.child_id in self._made:
            return
        self._made.add(effect.child_id)
        turn.after.append(self._later(partial(self._make, parent, effect)))

    def look_after(self, turn: Turn[HeldJob], parent: Job, child_id: str) -> None:
        """The parent is to end, and the sub-job is not here: it has ended, was never made, or is on its way here."""
        if child_id not in self._looked:
            self._looked.add(child_id)
            turn.after.append(self._later(partial(self._look, parent, child_id)))

    def adopted(self, turn: Turn[HeldJob], child: Job, parent: HeldJob | None) -> None:
        """A sub-job is here: if its parent wants it to end, or has ended, so does it.

        One that was released goes on for itself: its parent had been told of its end.
        """
        if parent is not None:
            turn.touch(parent)
        elif not child.releases:
            turn.after.append(self._later(partial(self._ask_for_parent, child)))

    def ended(self, child_id: str) -> None:
        """Nothing about it is to be remembered."""
        self._made.discard(child_id)
        self._looked.discard(child_id)

    def _later(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        return lambda: self._cradle.spawn(work())

    async def _make(self, parent: Job, effect: StartChild) -> None:
        found = await self._cradle.insist(lambda: self._blueprints.deployed(effect.blueprint))
        if found is None:
            refused = ChildRefused(effect.child_id, f"Blueprint '{effect.blueprint}' not found")
            return self._cradle.command(parent.job_id, refused)
        birth = Birth(
            job_id=effect.child_id,
            tenant=parent.tenant,
            initial_data=effect.initial_data,
            client=parent.client,
            parent_job_id=parent.job_id,
            depth=effect.depth,
        )
        made = await self._cradle.create(new_job(birth, *found, self._cradle.name, self._clock.now()))
        if made.state in TERMINAL:
            await self._tell_end(parent.job_id, effect.child_id)

    async def _look(self, parent: Job, child_id: str) -> None:
        row = await self._cradle.row(child_id)
        if row is None and child_id not in self._made:
            self._cradle.command(parent.job_id, ChildEnded(child_id, "cancelled", "cancelled", None))
        elif row is not None and row.state in TERMINAL:
            await self._tell_end(parent.job_id, child_id)
        self._looked.discard(child_id)

    async def _tell_end(self, parent_id: str, child_id: str) -> None:
        child = await self._cradle.find(child_id)
        if child is not None and child.ended:
            job = child.job
            self._cradle.command(parent_id, ChildEnded(child_id, str(job.status), str(job.state), job.error))

    async def _ask_for_parent(self, child: Job) -> None:
        row = await self._cradle.row(child.parent_job_id or "")
        if row is None or row.state in TERMINAL:
            self._cradle.command(child.job_id, Cancel())
