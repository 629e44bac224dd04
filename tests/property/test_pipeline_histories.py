"""Any history of a CI job is legal, replayable, and ends; attempts are counted, and one runner wins."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import codec
from orchestrator import pipeline_events as e
from orchestrator.errors import Refused
from orchestrator.pipeline_fold import fold, view
from orchestrator.pipeline_job import (
    TERMINAL,
    Cancel,
    Command,
    JobState,
    Lose,
    PipelineJob,
    Rules,
    SetStatus,
    Tick,
    next_wake,
)
from tests.pipeline_builders import BAD, GOOD, JobStory, claim, completion

RUNNERS = st.sampled_from(["r1", "r2", "r3"])
CAPABILITIES = st.sampled_from([None, frozenset({"docker"}), frozenset({"log"})])
WORDS = ["Queued", "Running", "Succeeded", "Failed", "Cancelled", "TimedOut", "Nonsense"]
COMMANDS = st.one_of(
    st.builds(
        claim, RUNNERS, capabilities=CAPABILITIES, key=st.sampled_from(["", "k1", "k2"]), fingerprint=st.just("f")
    ),
    st.builds(completion, st.sampled_from([GOOD, BAD]), st.sampled_from([None, *WORDS])),
    st.builds(SetStatus, st.sampled_from(WORDS)),
    st.just(Lose()),
    st.just(Tick()),
    st.just(Cancel()),
)
#: seconds that pass before each command
MOVES = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 40.0, 5_000.0]), COMMANDS), max_size=40)
RULES = st.builds(
    Rules,
    lost_runner_retries=st.integers(0, 2),
    queue_timeout_s=st.sampled_from([30.0, 1e5]),
    retry_delay_s=st.just(1.0),
)


class Player:
    """Plays moves, and keeps an account of its own."""

    def __init__(self, rules: Rules, **given: Any) -> None:
        self.story = JobStory(rules, **given)
        self.max_retries = given["max_retries"]

    @property
    def job(self) -> PipelineJob:
        return self.story.job

    def play(self, seconds: float, command: Command) -> None:
        before, was = asdict(self.job), self.job.state
        self.story.later(seconds)
        try:
            new = self.story.do(command)
        except Refused:
            assert asdict(self.job) == before, "whoever is refused has changed nothing"
            return
        assert len(new) <= 1
        if not new:
            assert asdict(self.job) == before
            return
        assert was not in TERMINAL, "nothing follows a terminal event"
        self.check(new[0], was, before)

    def check(self, event: e.PipelineEvent, was: JobState, before: dict[str, Any]) -> None:
        job, limit = self.job, max(self.max_retries, self.story.rules.lost_runner_retries)
        assert job.retry_count <= limit
        assert job.retry_count - before["retry_count"] == isinstance(event, e.JobRetried | e.JobLost)
        if isinstance(event, e.JobClaimed):
            assert was is JobState.QUEUED
        if isinstance(event, e.JobEnded) and was is JobState.QUEUED and not before["lost"]:
            assert event.outcome in (JobState.CANCELLED, JobState.TIMED_OUT)
        if isinstance(event, e.JobLost):
            assert before["runner"] is not None
        self.check_shown(event.at)

    def check_shown(self, at: datetime) -> None:
        job, shown = self.job, view(self.job)
        assert (shown.completed_at is not None) == (job.state in TERMINAL)
        assert job.state in TERMINAL or shown.result is None
        if job.state is JobState.QUEUED:
            assert (shown.runner_id, shown.started_at) == (None, None)
            assert job.due >= job.queued_at
        if job.state is JobState.RUNNING:
            assert shown.started_at == at
        if shown.runner_id is not None:
            assert shown.started_at is not None
        assert (next_wake(job, self.story.rules) is None) <= (job.state is not JobState.QUEUED), "it ends some day"

    def finish(self) -> None:
        """Replay equals live, also through the bytes of the journal."""
        events = codec.decode_pipeline_events(codec.encode_pipeline_events(self.story.events))
        assert asdict(fold(events)) == asdict(self.job)
        claims = [event for event in events if isinstance(event, e.JobClaimed)]
        assert self.job.claims == len(claims) <= self.job.retry_count + 1


@settings(max_examples=400, deadline=None)
@given(RULES, st.integers(0, 3), st.sampled_from([None, 60]), st.sampled_from([(), ("docker",)]), MOVES)
def test_any_history_is_legal(
    rules: Rules,
    max_retries: int,
    timeout_seconds: int | None,
    modules: tuple[str, ...],
    moves: list[tuple[float, Command]],
) -> None:
    player = Player(rules, max_retries=max_retries, timeout_seconds=timeout_seconds, required_modules=modules)
    for seconds, command in moves:
        player.play(seconds, command)
    player.finish()


@settings(max_examples=100, deadline=None)
@given(RULES, st.integers(0, 3), MOVES)
def test_a_cancelled_job_has_ended_and_every_job_can_be_cancelled(
    rules: Rules, max_retries: int, moves: list[tuple[float, Command]]
) -> None:
    player = Player(rules, max_retries=max_retries)
    for seconds, command in moves:
        player.play(seconds, command)
    player.play(0, Cancel())
    assert player.job.state in TERMINAL


@settings(max_examples=100, deadline=None)
@given(RULES, st.integers(0, 3), MOVES)
def test_time_alone_ends_every_job_that_has_a_limit(
    rules: Rules, max_retries: int, moves: list[tuple[float, Command]]
) -> None:
    player = Player(rules, max_retries=max_retries, timeout_seconds=60)
    for seconds, command in moves:
        player.play(seconds, command)
    while (wake := next_wake(player.job, rules)) is not None:
        player.play(max(0.0, (wake - player.story.now).total_seconds()), Tick())
    assert player.job.state in TERMINAL
