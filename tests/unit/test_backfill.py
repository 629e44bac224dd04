"""One backfill: what it makes of what its windows do (contracts/dags.md sections 3 and 4)."""

from __future__ import annotations

import pytest

from orchestrator import events as e
from orchestrator.backfill import (
    TRANSITIONS,
    CancelAll,
    CancelWindow,
    Observe,
    PauseAll,
    Recap,
    ResumeAll,
    apply,
    count,
    owed,
)
from orchestrator.errors import Conflict
from orchestrator.run_state import ENDED, RunState
from tests.builders import AT, Watch
from tests.invariants import check_backfill, check_replayed_backfill

S = RunState


def checked(watch: Watch) -> Watch:
    assert check_backfill(watch.events) == watch.state
    check_replayed_backfill(watch.backfill, watch.replayed())
    return watch


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(RunState) - {S.TIMED_OUT}


def test_only_windows_that_go_on_lead_out_of_a_terminal_state() -> None:
    for state in ENDED & set(TRANSITIONS):
        assert TRANSITIONS[state] == {e.RunRevived: S.RUNNING, e.RunRestarted: S.QUEUED}


def test_it_runs_when_its_first_window_starts() -> None:
    watch = Watch(3)
    assert watch.see(c2="running") == ["run_started", "window_changed"]
    assert (watch.state, watch.backfill.attempts) == (S.RUNNING, 1)


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        (("succeeded", "succeeded"), S.SUCCEEDED),
        (("succeeded", "failed"), S.FAILED),
        (("timed_out", "succeeded"), S.FAILED),
        (("cancelled", "succeeded"), S.FAILED),
        (("cancelled", "cancelled"), S.FAILED),
    ],
)
def test_its_outcome_is_that_of_its_windows(ends: tuple[str, str], verdict: RunState) -> None:
    watch = Watch(2)
    watch.see(c1=ends[0])
    assert watch.state is S.RUNNING
    watch.see(c2=ends[1])
    assert checked(watch).state is verdict


def test_a_cancelled_backfill_is_cancelled_whatever_its_windows_became() -> None:
    watch = Watch(3)
    watch.see(c1="failed", c2="running")
    assert [type(event) for event in watch.do(CancelAll())] == [e.RunCancelling]
    assert owed(watch.backfill) == [CancelWindow("c2"), CancelWindow("c3")]
    watch.see(c2="succeeded")
    assert watch.state is S.CANCELLING
    watch.see(c3="cancelled")
    assert checked(watch).state is S.CANCELLED
    assert owed(watch.backfill) == []


def test_cancelling_twice_is_done_once() -> None:
    watch = Watch(1)
    watch.do(CancelAll())
    assert watch.do(CancelAll()) == []
    watch.see(c1="cancelled")
    assert watch.do(CancelAll()) == []


def test_a_backfill_that_ended_by_itself_cannot_be_cancelled() -> None:
    watch = Watch(1)
    watch.see(c1="succeeded")
    with pytest.raises(Conflict, match="already succeeded"):
        watch.do(CancelAll())


def test_cancelling_when_nothing_is_open_ends_at_once() -> None:
    watch = Watch(2, kept=["c1", "c2"])
    assert [type(event) for event in watch.do(CancelAll())] == [e.RunCancelling, e.RunCancelled]


def test_kept_windows_count_as_skipped_and_do_not_influence_it() -> None:
    watch = Watch(3, kept=["c1"])
    assert watch.see(c1="failed") == []
    watch.see(c2="succeeded", c3="succeeded")
    assert checked(watch).state is S.SUCCEEDED
    last = [event for event in watch.events if isinstance(event, e.WindowChanged)][-1]
    assert last.counts == e.Counts(total=3, succeeded=2, skipped=1)


def test_a_backfill_of_kept_windows_only_succeeds_when_somebody_looks() -> None:
    watch = Watch(2, kept=["c1", "c2"])
    assert watch.see() == ["run_succeeded"]


def test_the_same_news_twice_change_nothing() -> None:
    watch = Watch(2)
    watch.see(c1="running")
    version = watch.backfill.version
    assert watch.see(c1="running") == []
    assert watch.backfill.version == version


def test_states_in_between_may_be_missed() -> None:
    watch = Watch(1)
    assert watch.see(c1="succeeded") == ["run_started", "window_changed", "run_succeeded"]


def test_two_news_of_one_window_at_once_are_told_one_after_the_other() -> None:
    watch = Watch(2)
    watch.do(Observe((("c1", "running"), ("c1", "failed"))))
    changes = [(event.before, event.after) for event in watch.events if isinstance(event, e.WindowChanged)]
    assert changes == [("queued", "running"), ("running", "failed")]
    checked(watch)


def test_news_of_a_foreign_window_are_ignored() -> None:
    assert Watch(1).see(zz="succeeded") == []


def test_a_window_that_goes_on_makes_the_backfill_go_on() -> None:
    watch = Watch(2)
    watch.see(c1="failed", c2="succeeded")
    assert watch.see(c1="running") == ["run_revived", "window_changed"]
    assert (watch.state, watch.backfill.attempts) == (S.RUNNING, 2)
    watch.see(c1="succeeded")
    assert checked(watch).state is S.SUCCEEDED


def test_a_restarted_backfill_whose_windows_have_ended_before_anybody_looked_has_started() -> None:
    watch = Watch(2)
    watch.see(c1="succeeded", c2="failed")
    again = e.RunRestarted(AT, 1)
    apply(watch.backfill, again)
    watch.events.append(again)
    assert watch.see(c2="failed") == ["run_started", "run_failed"]
    assert checked(watch).backfill.attempts == 2


def test_a_restarted_backfill_that_is_cancelled_waits_for_what_its_windows_do_now() -> None:
    watch = Watch(2)
    watch.see(c1="succeeded", c2="failed")
    again = e.RunRestarted(AT, 1)
    apply(watch.backfill, again)
    watch.events.append(again)
    watch.do(CancelAll())
    assert watch.state == S.CANCELLING
    watch.see(c2="running")
    assert owed(watch.backfill) == [CancelWindow("c2")]
    watch.see(c2="cancelled")
    assert checked(watch).state == S.CANCELLED


def test_every_window_counts_once() -> None:
    words = ["queued", "running", "paused", "cancelling", "succeeded", "failed", "timed_out", "cancelled"]
    counts = count(dict.fromkeys(words, 1), skipped=2)
    assert counts == e.Counts(total=10, queued=1, running=3, succeeded=1, failed=2, cancelled=1, skipped=2)


def test_a_pause_and_a_resume_are_told_once() -> None:
    watch = Watch(2)
    watch.see(c1="running")
    assert [type(event) for event in watch.do(PauseAll())] == [e.RunPaused]
    assert (watch.do(PauseAll()), watch.state) == ([], S.PAUSED)
    assert [type(event) for event in watch.do(ResumeAll())] == [e.RunResumed]
    assert (watch.do(ResumeAll()), checked(watch).state) == ([], S.RUNNING)


def test_a_backfill_that_is_paused_before_its_first_window_has_started() -> None:
    watch = Watch(2)
    assert [type(event) for event in watch.do(PauseAll())] == [e.RunStarted, e.RunPaused]
    watch.do(ResumeAll())
    assert watch.see(c1="running") == ["window_changed"]
    assert (checked(watch).state, watch.backfill.attempts) == (S.RUNNING, 1)


def test_windows_that_run_go_on_in_a_pause_and_may_be_the_last() -> None:
    watch = Watch(2)
    watch.see(c1="running")
    watch.do(PauseAll())
    watch.see(c1="succeeded")
    assert watch.state is S.PAUSED
    watch.see(c2="cancelled")
    assert checked(watch).state is S.FAILED


def test_a_paused_backfill_of_kept_windows_ends_when_somebody_looks() -> None:
    watch = Watch(1, kept=["c1"])
    watch.do(PauseAll())
    assert watch.see() == ["run_succeeded"]


def test_a_paused_backfill_may_be_cancelled() -> None:
    watch = Watch(1)
    watch.do(PauseAll())
    watch.do(CancelAll())
    watch.see(c1="cancelled")
    assert checked(watch).state is S.CANCELLED


@pytest.mark.parametrize("command", [PauseAll(), ResumeAll(), Recap(2)])
@pytest.mark.parametrize("ended", [True, False])
def test_a_backfill_that_has_ended_or_is_ending_is_not_changed(
    command: PauseAll | ResumeAll | Recap, ended: bool
) -> None:
    watch = Watch(1)
    if ended:
        watch.see(c1="succeeded")
    else:
        watch.do(CancelAll())
    with pytest.raises(Conflict, match="already"):
        watch.do(command)


def test_a_cap_is_told_when_it_is_another_one() -> None:
    watch = Watch(1)
    assert watch.do(Recap(None)) == []
    assert watch.do(Recap(2)) == [e.BackfillCapped(watch.events[0].at, 2)]
    assert (watch.do(Recap(2)), checked(watch).backfill.max_active_runs) == ([], 2)
