"""actors.worker_actor: the protocol of orchestrator.messages, from the worker's side."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from actors.worker_actor import CONTROL_METHODS, WorkerActor
from orchestrator import actor_codec
from orchestrator.messages import Assignment, Exchange
from tests import worker_tasks
from tests.worker_builders import OWNER, RUN, Bench, InThread, named, python, raw, task


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    worker_tasks.CALLS.clear()
    worker_tasks.EVENTS.clear()
    return Bench(tmp_path)


def started(name: str) -> None:
    assert worker_tasks.EVENTS[f"{name} started"].wait(5)


def let_end(name: str) -> None:
    worker_tasks.EVENTS[f"{name} may end"].set()


def test_a_batch_is_run_in_order_and_reported(bench: Bench) -> None:
    settled = bench.send(task("a"), task("b", "core.echo", x=1))
    assert (settled.batch, settled.worker, settled.incarnation) == (1, "worker-default-0", bench.worker.ping())
    assert [(r.run_id, r.task, r.attempt, r.outcome) for r in settled.reports] == [
        (RUN, "a", 1, "ok"),
        (RUN, "b", 1, "ok"),
    ]
    assert [bytes(r.value.inline) for r in settled.reports] == [b"{}", b'{"x":1}']
    assert settled.untouched == ()


def test_a_batch_that_is_sent_again_is_answered_again_and_not_run_again(bench: Bench) -> None:
    one = _count("one")
    first = bench.send(one, batch=7)
    assert bench.send(one, batch=7) == first
    assert worker_tasks.CALLS == ["one"]


def test_an_acknowledged_batch_that_is_sent_again_is_not_run_again(bench: Bench) -> None:
    bench.send(_count("one"), batch=7)
    bench.send(batch=8, acks=(7,))
    assert bench.send(_count("one"), batch=7).reports == ()
    assert worker_tasks.CALLS == ["one"]


def test_batches_that_overtake_each_other_both_run(bench: Bench) -> None:
    bench.send(_count("later"), batch=8)
    bench.send(_count("earlier"), batch=7)
    assert worker_tasks.CALLS == ["later", "earlier"]


def test_unacknowledged_reports_ride_along_until_they_are_acknowledged(bench: Bench) -> None:
    bench.send(task("a"), batch=1)
    assert named(bench.send(task("b"), batch=2).reports) == {"a": "ok", "b": "ok"}
    assert named(bench.send(task("c"), batch=3, acks=(1,)).reports) == {"b": "ok", "c": "ok"}


def test_an_ack_covers_everything_its_answer_carried(bench: Bench) -> None:
    bench.send(task("a"), batch=1)
    bench.send(task("b"), batch=2)
    assert bench.send(batch=3, acks=(2,)).reports == ()


def test_an_ack_does_not_cover_what_came_after_the_first_answer(bench: Bench) -> None:
    bench.send(task("a"), batch=1)
    bench.send(task("b"), batch=2)
    assert named(bench.send(task("a"), batch=1).reports) == {"a": "ok"}
    assert named(bench.send(batch=3, acks=(1,)).reports) == {"b": "ok"}


def test_a_repeated_ack_covers_nothing_more(bench: Bench) -> None:
    bench.send(task("a"), batch=1)
    bench.send(task("b"), batch=2, acks=(1,))
    bench.send(task("a"), batch=1)
    assert named(bench.send(batch=3, acks=(1,)).reports) == {"b": "ok"}


def test_an_empty_exchange_collects(bench: Bench) -> None:
    bench.send(task("a"), batch=1)
    assert named(bench.send(batch=3).reports) == {"a": "ok"}
    bench.send(task("b"), batch=2)
    assert named(bench.send(batch=3).reports) == {"a": "ok", "b": "ok"}


def test_an_exchange_of_a_former_incarnation_is_refused_whole(bench: Bench) -> None:
    bench.send(batch=1, epoch=2)
    settled = bench.send(_count("late"), batch=9, epoch=1)
    assert settled.reports == ()
    assert settled.untouched == ((RUN, "late", 1),)
    assert worker_tasks.CALLS == []


def test_a_new_incarnation_gets_what_the_former_one_left_and_starts_its_numbers_afresh(bench: Bench) -> None:
    bench.send(task("old"), batch=1, epoch=1)
    settled = bench.send(_count("new"), batch=1, epoch=2)
    assert named(settled.reports) == {"old": "ok", "new": "ok"}
    assert worker_tasks.CALLS == ["new"]
    assert bench.send(batch=2, epoch=2, acks=(1,)).reports == ()


def test_owners_do_not_see_each_other(bench: Bench) -> None:
    bench.send(task("a"), batch=1, owner="run-actor-0")
    assert named(bench.send(task("b"), batch=1, owner="run-actor-1").reports) == {"b": "ok"}
    assert bench.holding("run-actor-2").reports == ()


def test_what_has_not_started_is_given_back_while_a_task_runs(bench: Bench) -> None:
    pending = InThread(bench.send, task("first"), _hold("long"), _count("never"))
    started("long")
    given = bench.give_back(1)
    assert given.untouched == ((RUN, "never", 1),)
    assert named(given.reports) == {"first": "ok"}
    let_end("long")
    settled = pending.result()
    assert named(settled.reports) == {"first": "ok", "long": "ok"}
    assert settled.untouched == ((RUN, "never", 1),)
    assert worker_tasks.CALLS == []


def test_giving_back_reaches_a_batch_that_has_not_arrived(bench: Bench) -> None:
    bench.send(task("a"), batch=3)
    assert bench.give_back(5).batch == 3
    assert bench.send(_count("late"), batch=5).untouched == ((RUN, "late", 1),)
    assert named(bench.send(_count("next"), batch=6).reports)["next"] == "ok"
    assert worker_tasks.CALLS == ["next"]


def test_giving_back_older_batches_leaves_the_running_one_alone(bench: Bench) -> None:
    pending = InThread(bench.send, _hold("long"), task("rest"), batch=4)
    started("long")
    assert bench.give_back(3).untouched == ()
    let_end("long")
    assert named(pending.result().reports) == {"long": "ok", "rest": "ok"}


def test_a_new_incarnation_is_not_bound_by_what_the_former_one_gave_back(bench: Bench) -> None:
    bench.give_back(50, epoch=1)
    assert named(bench.send(task("a"), batch=1, epoch=2).reports) == {"a": "ok"}


def test_a_new_incarnation_can_give_back_what_the_former_one_sent(bench: Bench) -> None:
    pending = InThread(bench.send, _hold("long"), _count("never"), batch=9, epoch=1)
    started("long")
    assert bench.give_back(0, epoch=2).untouched == ((RUN, "never", 1),)
    let_end("long")
    pending.result()
    assert worker_tasks.CALLS == []


def test_a_former_incarnation_cannot_give_back(bench: Bench) -> None:
    bench.send(batch=1, epoch=2)
    bench.give_back(50, epoch=1)
    assert named(bench.send(task("a"), batch=2, epoch=2).reports) == {"a": "ok"}


def test_holding_tells_what_runs_what_waits_and_what_is_reported(bench: Bench) -> None:
    bench.send(task("before"), batch=1)
    pending = InThread(bench.send, task("done"), _hold("long"), task("waits"), batch=2)
    started("long")
    holding = bench.holding()
    assert holding.live == ((RUN, "long", 1), (RUN, "waits", 1))
    assert named(holding.reports) == {"before": "ok", "done": "ok"}
    assert bench.holding("run-actor-9").live == ()
    let_end("long")
    pending.result()
    assert bench.holding().live == ()


def test_after_holding_with_a_new_epoch_what_the_former_incarnation_sent_does_not_start(bench: Bench) -> None:
    bench.holding(epoch=2)
    assert bench.send(_count("late"), batch=8, epoch=1).untouched == ((RUN, "late", 1),)
    assert worker_tasks.CALLS == []


def test_a_waiting_task_can_be_cancelled(bench: Bench) -> None:
    pending = InThread(bench.send, _hold("long"), _count("never"), task("last"))
    started("long")
    assert bench.worker.cancel(RUN, "never", 1, "cancelled") is True
    let_end("long")
    assert named(pending.result().reports) == {"long": "ok", "never": "cancelled", "last": "ok"}
    assert worker_tasks.CALLS == []


def test_a_cancelled_task_that_is_given_back_is_reported_cancelled(bench: Bench) -> None:
    pending = InThread(bench.send, _hold("long"), task("gone"), task("back"))
    started("long")
    assert bench.worker.cancel(RUN, "gone", 1, "cancelled")
    assert bench.give_back(1).untouched == ((RUN, "back", 1),)
    let_end("long")
    assert named(pending.result().reports) == {"long": "ok", "gone": "cancelled"}


def test_a_cancel_that_overtakes_its_exchange_is_remembered(bench: Bench) -> None:
    assert bench.worker.cancel(RUN, "a", 1, "cancelled") is False
    assert named(bench.send(_count("a"), _count("b")).reports) == {"a": "cancelled", "b": "ok"}
    assert worker_tasks.CALLS == ["b"]


def test_the_first_reason_stays_even_when_it_came_early(bench: Bench) -> None:
    bench.worker.cancel(RUN, "a", 1, "cancelled")
    pending = InThread(bench.send, _hold("long"), task("a"))
    started("long")
    assert bench.worker.cancel(RUN, "a", 1, "timed_out") is True
    let_end("long")
    assert named(pending.result().reports) == {"long": "ok", "a": "cancelled"}


def test_a_finished_task_cannot_be_cancelled(bench: Bench) -> None:
    bench.send(task("a"))
    assert bench.worker.cancel(RUN, "a", 1, "cancelled") is False
    assert named(bench.send().reports) == {"a": "ok"}


def test_an_unknown_reason_is_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="bored"):
        bench.worker.cancel(RUN, "a", 1, "bored")


@pytest.mark.parametrize("function", ["spin", "cooperate", "sleep_async", "swallow"])
@pytest.mark.parametrize("reason", ["cancelled", "timed_out", "stalled"])
def test_running_user_code_is_cancelled(bench: Bench, function: str, reason: str) -> None:
    pending = InThread(bench.send, _named(function, "a"), task("next"))
    started("a")
    assert bench.worker.cancel(RUN, "a", 1, reason) is True
    assert named(pending.result(2).reports) == {"a": reason, "next": "ok"}


def test_a_worker_knows_how_long_an_attempt_has_been_silent(bench: Bench) -> None:
    assert bench.worker.silence(RUN, "a", 1) is None
    pending = InThread(bench.send, _named("beat", "a"))
    started("a")
    time.sleep(0.2)
    assert bench.worker.silence(RUN, "a", 1) < 0.1  # type: ignore[operator]  # it runs
    assert bench.worker.silence(RUN, "a", 2) is None
    let_end("a")
    time.sleep(0.2)
    assert bench.worker.silence(RUN, "a", 1) > 0.1  # type: ignore[operator]  # it runs
    bench.worker.cancel(RUN, "a", 1, "stalled")
    assert named(pending.result(2).reports) == {"a": "stalled"}


def test_async_code_cleans_up_when_it_is_cancelled(bench: Bench) -> None:
    pending = InThread(bench.send, _named("sleep_async", "a"))
    started("a")
    bench.worker.cancel(RUN, "a", 1, "cancelled")
    pending.result(2)
    assert worker_tasks.EVENTS["a cleaned up"].is_set()


def test_core_sleep_is_cancelled_within_a_second(bench: Bench) -> None:
    pending = InThread(bench.send, task("a", "core.sleep", seconds=60))
    while not bench.holding().live:
        pass
    assert bench.worker.cancel(RUN, "a", 1, "timed_out") is True
    report = pending.result(1).reports[0]
    assert (report.outcome, report.error) == ("timed_out", "timed out after 60 s")


def test_reports_of_the_present_incarnation_are_never_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.batch_book.KEPT_MAX", 3)
    for batch in range(1, 4):
        bench.send(task(f"a{batch}"), task(f"b{batch}"), batch=batch)
    assert len(bench.holding().reports) == 6


def test_beyond_the_limit_the_oldest_reports_of_former_incarnations_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.batch_book.KEPT_MAX", 3)
    bench.send(task("a"), task("b"), batch=1, epoch=1)
    bench.send(task("c"), task("d"), batch=2, epoch=1)
    settled = bench.send(task("e"), batch=1, epoch=2)
    assert named(settled.reports) == {"c": "ok", "d": "ok", "e": "ok"}


def test_a_task_of_a_run_the_batch_does_not_describe_is_an_error_and_the_rest_runs(bench: Bench) -> None:
    blob = actor_codec.encode_exchange(Exchange(OWNER, 1, 1, (), (task("a", "core.sleep", seconds=0), task("b"))))
    assert named(actor_codec.decode_settled(bench.worker.exchange(blob)).reports) == {"a": "error", "b": "ok"}


def test_control_methods_exist() -> None:
    assert all(callable(getattr(WorkerActor, name)) for name in CONTROL_METHODS)
    assert "exchange" not in CONTROL_METHODS


def _named(function: str, name: str) -> Assignment:
    """A task called `name` whose function gets that name as its parameter."""
    return msgspec.structs.replace(python(function, name), params=raw({"name": name}))


def _hold(name: str) -> Assignment:
    return _named("hold", name)


def _count(name: str) -> Assignment:
    return _named("count", name)
