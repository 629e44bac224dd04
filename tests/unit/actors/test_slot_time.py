"""What worker slots are charged: expected at first, what it really was in the end, nothing for what did not compete."""

from __future__ import annotations

import pytest

from actors.bound_work import BoundWork
from actors.crew import Seat
from actors.readiness import Sending
from actors.slot_time import COUNT_S, SlotTime
from orchestrator.shares import Path, Shares

A, B = ("a", "manual", "d"), ("b", "backfill", "d")


def there(leads: dict[Path, float]) -> dict[Path, float]:
    """The same, in the default pool."""
    return {("default", *path): seconds for path, seconds in leads.items()}


def sending(costs: dict[Path, float], worker: str = "w", charged: bool = True) -> Sending:
    return Sending(Seat(worker, "i", 1), costs=costs, charged=charged)


class Books:
    """Slot time, and what it came to in the tree."""

    def __init__(self, competing: bool = True) -> None:
        self.shares = Shares()
        self.shares.arrive(A)
        self.shares.arrive(B)
        self.time = SlotTime(self.shares, BoundWork(), Shares())
        if competing:
            self.time.take_leads(there({A: 0.0}), 0.0)

    def send(self, number: int, costs: dict[Path, float], now_s: float, worker: str = "w") -> None:
        for leaf, cost in costs.items():
            self.shares.charge(leaf, cost)
        self.time.sent(sending(costs, worker), number, now_s)

    def ahead(self) -> float:
        """Seconds by which A was served more than B."""
        return round(self.shares.lead(A, B), 6)


def test_a_batch_costs_in_the_end_what_it_took() -> None:
    books = Books()
    books.send(1, {A: 0.2}, 10.0)
    assert books.ahead() == 0.2
    books.time.ended("w", 1, 10.05)
    assert books.ahead() == 0.05
    assert dict(books.time.take_untold()) == pytest.approx(there({A: 0.05}))
    assert books.time.take_untold() == ()


def test_a_long_task_is_charged_while_it_runs() -> None:
    books = Books()
    books.send(1, {A: 0.2}, 10.0)
    books.time.accrue(15.0)
    assert books.ahead() == 5.0
    books.time.ended("w", 1, 16.0)
    assert books.ahead() == 6.0


def test_a_batch_that_waits_behind_another_one_counts_from_its_end() -> None:
    books = Books()
    books.send(1, {A: 0.01}, 10.0)
    books.send(2, {B: 0.01}, 10.0)
    books.time.ended("w", 1, 11.0)
    books.time.ended("w", 2, 11.25)
    assert books.ahead() == 0.75


def test_the_time_of_a_batch_is_split_as_it_was_charged() -> None:
    books = Books()
    books.send(1, {A: 0.03, B: 0.01}, 10.0)
    books.time.ended("w", 1, 10.4)
    assert dict(books.time.take_untold()) == pytest.approx(there({A: 0.3, B: 0.1}))


def test_what_ran_before_anybody_competed_is_nobodys_debt() -> None:
    books = Books(competing=False)
    books.send(1, {A: 0.2}, 10.0)
    assert books.time.take_untold() == ()
    books.time.take_leads(there({A: 0.0, B: 0.0}), 3600.0)
    books.time.ended("w", 1, 3601.0)
    assert dict(books.time.take_untold()) == pytest.approx(there({A: 1.0}))


def test_what_the_scheduler_was_not_told_counts_on_top_of_what_it_says() -> None:
    books = Books()
    books.send(1, {A: 0.2}, 10.0)
    books.time.take_leads(there({A[:1]: 1.0, B[:1]: 0.0}), 10.1)
    assert books.ahead() == 1.2


def test_what_a_batch_that_never_left_was_charged_is_given_back() -> None:
    books = Books()
    books.shares.charge(A, 0.2)
    books.time.kept(sending({A: 0.2}))
    assert books.ahead() == 0.0


def test_a_worker_that_dies_is_charged_until_then_and_a_late_answer_nothing() -> None:
    books = Books()
    books.send(1, {A: 0.2}, 10.0)
    books.time.gone("w", 10.5)
    books.time.ended("w", 1, 99.0)
    assert books.ahead() == 0.5


def test_what_could_not_be_told_is_told_again() -> None:
    books = Books()
    books.send(1, {A: 0.25}, 10.0)
    told = books.time.take_untold()
    books.time.keep_untold(told)
    assert books.time.take_untold() == told


def test_metrics_get_whole_milliseconds_now_and_then_and_lose_none() -> None:
    books = Books(competing=False)
    for number in range(10):
        books.send(number, {A: 0.01}, 10.0 + number)
        books.time.ended("w", number, 10.0 + number + 0.00078125)
    assert books.time.counts(20.0) == [("slot_time_ms|a|manual", 7)]
    books.send(11, {A: 0.01}, 20.0)
    books.time.ended("w", 11, 20.01)
    assert books.time.counts(20.0 + COUNT_S / 2) == []
    assert books.time.counts(20.0 + COUNT_S) == [("slot_time_ms|a|manual", 10)]


def test_who_is_alone_is_charged_nothing_and_counted_all_the_same() -> None:
    books = Books(competing=False)
    books.time.sent(sending({A: 0.2}, charged=False), 1, 10.0)
    books.time.ended("w", 1, 10.5)
    assert books.ahead() == 0.0
    assert books.time.counts(20.0) == [("slot_time_ms|a|manual", 500)]


def test_a_task_that_began_uncharged_is_charged_from_when_others_compete() -> None:
    books = Books(competing=False)
    books.time.sent(sending({A: 0.2}, charged=False), 1, 10.0)
    books.time.take_leads(there({A: 0.0, B: 0.0}), 3600.0)
    books.time.accrue(3602.0)
    assert books.ahead() == 2.0
    books.time.ended("w", 1, 3603.0)
    assert books.ahead() == 3.0
