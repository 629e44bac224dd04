"""A job in its holder's memory: what a turn appends to the journal, and what is owed once."""

from __future__ import annotations

import pytest

from actors.held_job import HeldJob, pinned, read
from orchestrator import codec
from orchestrator import job_events as e
from orchestrator.blueprint import Dispatch, Outcome, Transition
from orchestrator.errors import Broken
from orchestrator.job import Begin, Cancel, Deliver, MakeVisit, Recall, Release, Rules, Settle, Visited
from orchestrator.rows import EventBatch
from orchestrator.steps import Append
from tests.job_stories import AT, Chances, a_blueprint

BLUEPRINT, RULES, CHANCE = a_blueprint(), Rules(retries_max=0), Chances()
CREATED = e.JobCreated(AT, "job", "t", "flow", 3, state="start")
AT_MS = 1_767_323_045_000


def batch(version: int, *events: e.JobEvent) -> EventBatch:
    return EventBatch(version, e.SCHEMA, codec.encode_job_events(events))


def held() -> HeldJob:
    return HeldJob(read([batch(1, CREATED)], BLUEPRINT), RULES)


def appended(job: HeldJob) -> Append:
    append = job.append()
    assert append is not None
    job.committed()
    return append


def test_nothing_happened_is_nothing_to_commit() -> None:
    job = held()
    assert (job.append(), job.ended, job.run_id) == (None, False, "job")


def test_a_turn_is_one_append_on_the_version_that_the_journal_has() -> None:
    job = held()
    job.step(Begin(), AT, CHANCE)
    job.step(Visited(1, Outcome(Dispatch("video"))), AT, CHANCE)
    append = appended(job)
    assert (append.expected, append.count, append.state, append.started_ms) == (1, 3, "waiting", AT_MS)
    assert (append.finished_ms, append.error, append.schema) == (None, None, e.SCHEMA)
    assert job.append() is None


def test_the_end_has_its_state_its_instant_and_its_error() -> None:
    job = held()
    job.step(Begin(), AT, CHANCE)
    appended(job)
    job.step(Visited(1, Outcome(error="boom")), AT, CHANCE)
    append = appended(job)
    assert (append.expected, append.state, append.finished_ms, append.error) == (2, "failed", AT_MS, "boom")
    assert job.ended


def test_a_cancelled_job_that_never_began_has_no_start() -> None:
    job = held()
    job.step(Cancel(), AT, CHANCE)
    append = appended(job)
    assert (append.state, append.started_ms, append.finished_ms) == ("cancelled", None, AT_MS)


def test_a_released_job_has_no_end_any_more() -> None:
    job = held()
    job.step(Begin(), AT, CHANCE)
    job.step(Visited(1, Outcome(error="boom", again=True)), AT, CHANCE)
    assert appended(job).state == "quarantined"
    job.step(Release(), AT, CHANCE)
    append = appended(job)
    assert (append.state, append.finished_ms, append.error, append.started_ms) == ("running", 0, "", None)
    job.step(Visited(2, Outcome(Transition("finished"))), AT, CHANCE)
    assert (appended(job).state, job.ended) == ("succeeded", True)


def test_a_result_is_answered_and_part_of_the_turn() -> None:
    job = held()
    job.step(Begin(), AT, CHANCE)
    job.step(Visited(1, Outcome(Dispatch("video", transitions={"success": "finished"}))), AT, CHANCE)
    [offer] = job.owed()
    task = offer.task_id  # type: ignore[union-attr]  # what a queued task owes
    job.step(Deliver(task, "w1"), AT, CHANCE)
    assert job.settle(Settle(task, "w1", "success"), AT, CHANCE) == {"status": "result_accepted_success"}
    appended(job)
    assert job.settle(Settle(task, "w1", "success"), AT, CHANCE) == {"status": "result_accepted_success"}
    assert job.append() is None


def test_a_recall_is_owed_once_and_other_effects_every_time() -> None:
    job = held()
    job.step(Begin(), AT, CHANCE)
    assert [type(effect) for effect in (*job.owed(), *job.owed())] == [MakeVisit, MakeVisit]
    job.step(Visited(1, Outcome(Dispatch("video"))), AT, CHANCE)
    [offer] = job.owed()
    task = offer.task_id  # type: ignore[union-attr]  # what a queued task owes
    job.step(Deliver(task, "w1"), AT, CHANCE)
    job.step(Cancel(), AT, CHANCE)
    assert job.owed() == [Recall(task, "w1")]
    assert job.owed() == []


def test_a_job_comes_back_from_its_batches_pinned_to_its_blueprint() -> None:
    job = held()
    job.step(Begin(), AT, CHANCE)
    append = appended(job)
    batches = [batch(1, CREATED), EventBatch(2, append.schema, append.events)]
    assert read(batches, BLUEPRINT).status == job.job.status
    assert pinned(batches) == ("flow", 3)


def test_batches_that_begin_no_job_are_broken() -> None:
    wrong = [batch(1, e.JobReleased(AT))]
    with pytest.raises(Broken):
        pinned(wrong)
    with pytest.raises(Broken):
        read(wrong, BLUEPRINT)
