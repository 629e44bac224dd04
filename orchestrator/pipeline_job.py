"""One CI job: who may have it, when it is tried again, how it ends.

    queued ──claimed──▶ running ──ended──▶ succeeded | failed | cancelled | timed_out
      ▲ │                  │
      │ └──────ended───────│──────────────▶ (cancelled, timed_out; after a loss also the others)
      └──retried | lost────┘

A claim is a compare and set on `queued`. Messages of runners do not name their sender: of two runners that have had a
job, the first completion wins and the next is refused. A job that is queued because its runner was silent still takes
a completion; the runner that it then shows is the lost one. Repeating the last accepted completion changes nothing
until the job is claimed again: the answer got lost. A claim's idempotency key stands in the event of the claim, so
that replaying it needs nothing beside the job.

Nothing owes an effect: runners ask. What is left is time (`next_wake`), and lines of the job's own log (`own_lines`).
Texts of errors are the contract's. Source: pipelines contract, sections 2 (details), 3, 7, "details decided".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator import pipeline_events as e
from orchestrator.errors import Broken, Conflict, Invalid
from orchestrator.pipeline_views import JobResult, LogEntry
from orchestrator.retry import ceiling_s

#: of a job that took too long, as `timeout` of coreutils has it
TIMED_OUT_CODE = 124
LOST_CODE = -1
#: how long a claim's idempotency key holds
KEY_TTL = timedelta(hours=24)
#: the longest limit that makes a difference
_LONGEST_S = 366 * 86_400


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


_S = JobState
TERMINAL = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.TIMED_OUT})
#: state -> the contract's word
WORDS: Mapping[JobState, str] = {
    _S.QUEUED: "Queued",
    _S.RUNNING: "Running",
    _S.SUCCEEDED: "Succeeded",
    _S.FAILED: "Failed",
    _S.CANCELLED: "Cancelled",
    _S.TIMED_OUT: "TimedOut",
}
STATES = {word: state for state, word in WORDS.items()}

#: state -> event -> the states it may lead to; `ended` says which
TRANSITIONS: Mapping[JobState, Mapping[type[e.PipelineEvent], frozenset[JobState]]] = {
    _S.QUEUED: {e.JobClaimed: frozenset({_S.RUNNING}), e.JobRetried: frozenset({_S.QUEUED}), e.JobEnded: TERMINAL},
    _S.RUNNING: {
        e.JobRetried: frozenset({_S.QUEUED}),
        e.JobLost: frozenset({_S.QUEUED}),
        e.JobEnded: TERMINAL,
    },
    _S.SUCCEEDED: {},
    _S.FAILED: {},
    _S.CANCELLED: {},
    _S.TIMED_OUT: {},
}


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide (pipelines contract, section 6)."""

    lost_runner_retries: int = 1
    queue_timeout_s: float = 86_400.0
    retry_delay_s: float = 1.0
    retry_cap_s: float = 60.0


# ── commands ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Claim:
    """The runner wants the job. `capabilities` None = unknown: it fits every job."""

    runner_id: str
    runner_tenant: str
    capabilities: frozenset[str] | None = None
    key: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Somebody says in which status the job is, in the contract's word."""

    word: str


@dataclass(frozen=True, slots=True)
class Complete:
    """The attempt has ended. `word`: terminal status, or None = as the result says."""

    result: JobResult
    word: str | None = None
    #: equal for equal completions
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Lose:
    """The runner that has the job is silent, or deleted."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The job is to end."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The instant of `next_wake` may have come."""


Command = Claim | SetStatus | Complete | Lose | Cancel | Tick

# ── the machine ───────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class PipelineJob:
    """A job in memory; `apply` changes it in place."""

    launched: e.JobLaunched
    state: JobState = JobState.QUEUED
    retry_count: int = 0
    #: since when it is queued, and from when on it is listed
    queued_at: datetime = field(init=False)
    due: datetime = field(init=False)
    #: of the present attempt; after a loss that of the lost one, which `runner_id` does not show
    started_at: datetime | None = None
    runner: tuple[str, str] | None = None
    completed_at: datetime | None = None
    result: JobResult | None = None
    #: of the last completion that was accepted and not followed by a claim
    completion: str = ""
    #: it is queued because its runner was lost
    lost: bool = False
    #: claims so far
    claims: int = 0
    #: idempotency key -> fingerprint and instant of the claim
    keys: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queued_at = self.due = self.launched.at

    @property
    def job_id(self) -> str:
        """Lower-case uuid4."""
        return self.launched.job_id

    @property
    def word(self) -> str:
        """Its status, as the contract says it."""
        return WORDS[self.state]

    @property
    def ended(self) -> bool:
        """Is it terminal?"""
        return self.state in TERMINAL

    @property
    def held_by(self) -> tuple[str, str] | None:
        """(tenant, id) of the runner that has it now."""
        return self.runner if self.state is JobState.RUNNING else None


def revived(first: e.AnyPipelineEvent) -> PipelineJob:
    """The job that begins with this event."""
    if not isinstance(first, e.JobLaunched):
        raise Broken(f"a CI job begins with {type(first).__name__}")
    return PipelineJob(first)


def decide(job: PipelineJob, command: Command, now: datetime, rules: Rules) -> list[e.PipelineEvent]:
    """Events that follow from the command; none when it changes nothing. Raises Invalid, Conflict (a reused key)."""
    match command:
        case Claim():
            return _claim(job, command, now)
        case SetStatus():
            return _set_status(job, command.word, now)
        case Complete():
            return _complete(job, command, now, rules)
        case Lose():
            return _lose(job, now, rules)
        case Cancel():
            if job.ended:
                raise Invalid(f"Job {job.job_id} is already completed (current: {job.word})")
            return [e.JobEnded(now, JobState.CANCELLED)]
        case Tick():
            return _tick(job, now, rules)


def _claim(job: PipelineJob, wanted: Claim, now: datetime) -> list[e.PipelineEvent]:
    known = job.keys.get(wanted.key) if wanted.key else None
    if known is not None and now - known[1] < KEY_TTL:
        if known[0] != wanted.fingerprint:
            raise Conflict("Idempotency key reused")
        return []
    if job.state is not JobState.QUEUED:
        raise Invalid(f"Job {job.job_id} is not in Queued state (current: {job.word})")
    if lacking := missing_modules(job, wanted.capabilities):
        raise Invalid(f"Runner {wanted.runner_id} lacks required modules: {', '.join(lacking)}")
    return [e.JobClaimed(now, wanted.runner_id, wanted.runner_tenant, wanted.key, wanted.fingerprint)]


def missing_modules(job: PipelineJob, capabilities: frozenset[str] | None) -> list[str]:
    """What the job requires and such a runner has not."""
    if capabilities is None:
        return []
    return [module for module in job.launched.required_modules if module not in capabilities]


def _set_status(job: PipelineJob, word: str, now: datetime) -> list[e.PipelineEvent]:
    wanted, digest = STATES.get(word), f"status:{word}"
    if wanted is JobState.RUNNING and not job.ended:
        return [] if job.state is JobState.RUNNING else [e.JobClaimed(now)]
    if wanted in TERMINAL:
        if job.completion == digest:
            return []
        if job.state is JobState.RUNNING or (job.state is JobState.QUEUED and _ends_queued(job, wanted)):
            return [e.JobEnded(now, wanted, completion=digest)]
    raise Invalid(f"Invalid status transition: {job.word} -> {word}")


def _ends_queued(job: PipelineJob, wanted: JobState | None) -> bool:
    return job.lost or wanted is JobState.CANCELLED


def _complete(job: PipelineJob, wanted: Complete, now: datetime, rules: Rules) -> list[e.PipelineEvent]:
    given = STATES.get(wanted.word or "")
    if wanted.word is not None and given not in TERMINAL:
        raise Invalid(f"Invalid completion status: {wanted.word}")
    if wanted.digest and job.completion == wanted.digest:
        return []
    if job.ended:
        raise Invalid(f"Job {job.job_id} is already completed (current: {job.word})")
    if job.state is JobState.QUEUED and not job.lost:
        raise Invalid(f"Job {job.job_id} is not running (current: {job.word})")
    outcome = given or (JobState.SUCCEEDED if wanted.result.success else JobState.FAILED)
    if outcome is JobState.FAILED and job.retry_count < job.launched.max_retries:
        return [e.JobRetried(now, due=now + _delay(job, rules), completion=wanted.digest)]
    return [e.JobEnded(now, outcome, wanted.result, wanted.digest)]


def _lose(job: PipelineJob, now: datetime, rules: Rules) -> list[e.PipelineEvent]:
    if job.state is not JobState.RUNNING or job.runner is None:
        return []
    if job.retry_count < max(job.launched.max_retries, rules.lost_runner_retries):
        return [e.JobLost(now, due=now + _delay(job, rules))]
    result = JobResult(False, LOST_CODE, None, f"Runner {job.runner[1]} lost")
    return [e.JobEnded(now, JobState.FAILED, result, lost=True)]


def _delay(job: PipelineJob, rules: Rules) -> timedelta:
    return timedelta(seconds=ceiling_s(rules.retry_delay_s, rules.retry_cap_s, job.retry_count + 1))


def _tick(job: PipelineJob, now: datetime, rules: Rules) -> list[e.PipelineEvent]:
    wake = next_wake(job, rules)
    if wake is None or now < wake:
        return []
    if job.state is JobState.QUEUED:
        why = "No runner claimed the job"
    else:
        why = f"Timed out after {job.launched.timeout_seconds} s"
    return [e.JobEnded(now, JobState.TIMED_OUT, JobResult(False, TIMED_OUT_CODE, None, why))]


def next_wake(job: PipelineJob, rules: Rules) -> datetime | None:
    """The next instant at which a Tick is due."""
    if job.state is JobState.QUEUED:
        return job.queued_at + timedelta(seconds=min(rules.queue_timeout_s, _LONGEST_S))
    limit_s = job.launched.timeout_seconds
    if job.state is JobState.RUNNING and job.started_at is not None and limit_s is not None:
        return job.started_at + timedelta(seconds=min(limit_s, _LONGEST_S))
    return None


def apply(job: PipelineJob, event: e.PipelineEvent) -> None:
    """The event has happened; never refuses what `decide` decided. A KeyError here is a bug in a decision."""
    allowed = TRANSITIONS[job.state][type(event)]
    match event:
        case e.JobClaimed():
            after = JobState.RUNNING
            job.runner = None if event.runner_id is None else (event.runner_tenant, event.runner_id)
            job.started_at, job.completion, job.lost = event.at, "", False
            job.claims += 1
            if event.key:
                job.keys[event.key] = (event.fingerprint, event.at)
        case e.JobRetried():
            after = _queue(job, event.at, event.due)
            job.completion, job.lost = event.completion, False
            job.runner = job.started_at = None
        case e.JobLost():
            after = _queue(job, event.at, event.due)
            job.lost = True
        case e.JobEnded():
            after = JobState(event.outcome)
            if job.state is JobState.QUEUED and not event.completion:
                job.runner = job.started_at = None
            job.completed_at, job.result, job.completion = event.at, event.result, event.completion
        case _:
            raise Broken(f"{type(event).__name__} cannot follow in a CI job")
    if after not in allowed:
        raise Broken(f"{type(event).__name__} leads from {job.state} to {after}")
    job.state = after


def _queue(job: PipelineJob, at: datetime, due: datetime) -> JobState:
    job.retry_count += 1
    job.queued_at, job.due = at, due
    return JobState.QUEUED


def own_lines(before: PipelineJob, event: e.PipelineEvent) -> list[LogEntry]:
    """What the job's own log says about the event; `before` is the job as it was until then."""
    lines = []
    lost = isinstance(event, e.JobLost) or (isinstance(event, e.JobEnded) and event.lost)
    if lost and before.runner is not None:
        lines.append(LogEntry(log_time(event.at), "Warning", f"runner {before.runner[1]} lost"))
    if isinstance(event, e.JobLost | e.JobRetried):
        lines.append(LogEntry(log_time(event.at), "Info", f"attempt {before.retry_count + 2} queued"))
    return lines


def log_time(at: datetime) -> str:
    """An instant as log lines have it: RFC 3339, UTC, six digits."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
