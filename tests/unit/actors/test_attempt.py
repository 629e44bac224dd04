"""actors.attempt: a cancel reaches user code, and nothing else."""

from __future__ import annotations

import threading
import time

import pytest

from actors.attempt import LiveAttempt, _raise_in, _take_back
from orchestrator.errors import TaskCancelled


def cancel_soon(attempt: LiveAttempt, entered: threading.Event) -> threading.Thread:
    def canceller() -> None:
        entered.wait(5)
        attempt.cancel("cancelled")

    thread = threading.Thread(target=canceller)
    thread.start()
    return thread


def test_a_cancel_interrupts_a_loop() -> None:
    attempt, entered = LiveAttempt(), threading.Event()
    thread = cancel_soon(attempt, entered)

    def forever() -> None:
        entered.set()
        while True:
            pass

    with pytest.raises(TaskCancelled):
        attempt.interruptible(forever)
    thread.join()
    assert attempt.end() == "cancelled"


def test_nothing_is_raised_once_the_code_has_ended() -> None:
    """The cancel lands at a random instant around the end; the exception may surface inside, and nowhere after."""
    for turn in range(300):
        attempt, entered = LiveAttempt(), threading.Event()
        thread = cancel_soon(attempt, entered)

        def work(entered: threading.Event = entered, turn: int = turn) -> None:
            entered.set()
            for _ in range(turn * 3):
                pass

        try:
            attempt.interruptible(work)
        except TaskCancelled:
            assert attempt.reason == "cancelled"
        for _ in range(300):
            pass
        thread.join()
        for _ in range(300):
            pass


def test_code_does_not_start_when_the_attempt_is_cancelled_already() -> None:
    attempt = LiveAttempt()
    assert attempt.cancel("timed_out")
    with pytest.raises(TaskCancelled):
        attempt.interruptible(lambda: pytest.fail("started"))


def test_an_ended_attempt_cannot_be_cancelled() -> None:
    attempt = LiveAttempt()
    assert attempt.end() is None
    assert not attempt.cancel("cancelled")
    assert attempt.reason is None


def test_the_first_reason_stays() -> None:
    attempt = LiveAttempt()
    assert attempt.cancel("timed_out")
    assert attempt.cancel("cancelled")
    assert attempt.end() == "timed_out"


def test_a_callback_runs_once_whether_it_comes_before_or_after_the_cancel() -> None:
    attempt, called = LiveAttempt(), []
    attempt.on_cancel(lambda: called.append("before"))
    attempt.cancel("cancelled")
    attempt.cancel("cancelled")
    attempt.on_cancel(lambda: called.append("after"))
    assert called == ["before", "after"]


def test_shielded_work_is_finished_before_the_cancel_is_raised() -> None:
    attempt, entered, finished = LiveAttempt(), threading.Event(), []
    thread = cancel_soon(attempt, entered)

    def work() -> None:
        with attempt.shielded():
            entered.set()
            deadline = time.monotonic() + 5
            while attempt.reason is None and time.monotonic() < deadline:
                pass
            for _ in range(10_000):
                pass
            finished.append(True)
        pytest.fail("went on after the shield")

    with pytest.raises(TaskCancelled):
        attempt.interruptible(work)
    thread.join()
    assert finished == [True]


class SurfacesOnTheWayOut:
    """A lock at whose second acquisition, the one of `_leave`, the cancel's exception surfaces."""

    def __init__(self) -> None:
        self.acquired = 0

    def __enter__(self) -> None:
        self.acquired += 1
        if self.acquired == 2:
            raise TaskCancelled("cancelled")

    def __exit__(self, *_: object) -> None:
        pass


def test_an_exception_that_surfaces_on_the_way_out_still_closes_the_door() -> None:
    attempt = LiveAttempt()
    attempt._lock = SurfacesOnTheWayOut()  # type: ignore[assignment] # no other way to hit that bytecode every time
    with pytest.raises(TaskCancelled):
        attempt.interruptible(lambda: None)
    assert attempt._thread is None


def test_an_exception_that_is_taken_back_does_not_surface() -> None:
    gate, outcome = threading.Lock(), []

    def wait_in_c() -> None:
        try:
            gate.acquire()
            outcome.append("went on")
        except TaskCancelled:
            outcome.append("interrupted")

    for take_back in (False, True):
        gate = threading.Lock()
        gate.acquire()
        thread = threading.Thread(target=wait_in_c)
        thread.start()
        time.sleep(0.05)
        assert thread.ident is not None
        _raise_in(thread.ident)
        if take_back:
            _take_back(thread.ident)
        gate.release()
        thread.join(5)
    assert outcome == ["interrupted", "went on"]


def test_an_error_inside_a_shield_is_not_hidden_by_the_cancel_that_is_absent() -> None:
    attempt = LiveAttempt()

    def work() -> None:
        with attempt.shielded():
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        attempt.interruptible(work)
