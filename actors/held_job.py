"""A job in the memory of its holder: the machine of the core, and what a turn changed of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from actors.hosted import milliseconds
from orchestrator import codec, job
from orchestrator.blueprint import Blueprint
from orchestrator.errors import Broken
from orchestrator.job import Chance, Command, Effect, Job, Recall, Rules, Settle
from orchestrator.job_events import SCHEMA, AnyJobEvent, JobCreated
from orchestrator.rows import EventBatch
from orchestrator.steps import Append


class HeldJob:
    """One job, held under `rules`. It implements `holder.Held`."""

    __slots__ = ("_before", "_events", "_recalled", "_rules", "_version", "_was_over", "job")

    def __init__(self, revived: Job, rules: Rules) -> None:
        self.job = revived
        self._rules = rules
        #: recalls that were asked for already
        self._recalled: set[Recall] = set()
        self._settled()

    def _settled(self) -> None:
        self._events: list[AnyJobEvent] = []
        self._before, self._was_over = job.CORE_STATES[self.job.status], self.job.ended
        self._version = self.job.version

    @property
    def run_id(self) -> str:
        """The job's id."""
        return self.job.job_id

    @property
    def ended(self) -> bool:
        """Is it terminal?"""
        return self.job.ended

    def next_wake(self) -> datetime | None:
        """When a Tick is due."""
        return job.next_wake(self.job, self._rules)

    def step(self, command: Command, now: datetime, chance: Chance) -> list[AnyJobEvent]:
        """Decide and apply; what happened. Raises what `job.decide` raises."""
        return self._take(job.decide(self.job, command, now, chance, self._rules))

    def settle(self, result: Settle, now: datetime, chance: Chance) -> dict[str, str]:
        """The same for a worker's result; the body it is answered once the turn is durable."""
        events, body = job.settle(self.job, result, now, chance, self._rules)
        self._take(events)
        return body

    def owed(self) -> list[Effect]:
        """What is to be done for it now; recalls only when they were not listed before."""
        effects = job.owed(self.job)
        recalls = {effect for effect in effects if isinstance(effect, Recall)}
        new, self._recalled = recalls - self._recalled, recalls
        return [effect for effect in effects if not isinstance(effect, Recall) or effect in new]

    def _take(self, events: list[AnyJobEvent]) -> list[AnyJobEvent]:
        for event in events:
            job.apply(self.job, event)
        self._events += events
        return events

    def append(self) -> Append | None:
        """Everything since the last commit; None = nothing."""
        if not self._events:
            return None
        state, held = job.CORE_STATES[self.job.status], self.job
        return Append(
            run_id=held.job_id,
            expected=self._version,
            count=len(self._events),
            events=codec.encode_job_events(self._events),
            schema=SCHEMA,
            state=state if state != self._before else None,
            started_ms=milliseconds(held.started_at) if self._before == "queued" and held.started_at else None,
            finished_ms=milliseconds(held.finished_at) if held.finished_at else (0 if self._was_over else None),
            error=held.error or ("" if self._was_over else None),
        )

    def committed(self) -> None:
        """The last `append` is durable."""
        self._settled()


def read(batches: Sequence[EventBatch], blueprint: Blueprint | None) -> Job:
    """The job that these batches make. Raises Broken."""
    events = [event for batch in batches for event in codec.decode_job_events(batch.events, batch.schema)]
    return job.revive(events, blueprint)


def pinned(batches: Sequence[EventBatch]) -> tuple[str, int]:
    """Name and version of the blueprint that the job in these batches is a job of. Raises Broken."""
    first = codec.decode_job_events(batches[0].events, batches[0].schema)[0]
    if not isinstance(first, JobCreated):
        raise Broken("the events of a job do not begin with its creation")
    return first.blueprint, first.version
