"""Dispatch to remote workers: whose turn a task is, who gets it, why nobody does; and that thousands cost little."""

from __future__ import annotations

import time

import pytest

from orchestrator.remote_dispatch import RemoteDispatch, Waiting, why
from orchestrator.remote_worker import RemoteWorker, requirements_of


def a_task(task_id: str, **given: object) -> Waiting:
    values: dict[str, object] = {"job_id": "j", "tenant": "default", "type": "video", "since": 0.0, **given}
    return Waiting(task_id=task_id, **values)  # type: ignore[arg-type]  # fields by their names


def a_worker(worker_id: str, tenant: str = "default", **body: object) -> RemoteWorker:
    return RemoteWorker(tenant, worker_id, {"supported_tasks": ["video"], **body})


def a_dispatch(*workers: RemoteWorker, polls: int = 1) -> RemoteDispatch:
    """Each worker has open polls (worker id, 0), (worker id, 1), …"""
    made = RemoteDispatch()
    for worker in workers:
        made.know(worker)
        for number in range(polls):
            made.open((worker.tenant, worker.worker_id), (worker.worker_id, number))
    return made


def given_out(made: RemoteDispatch) -> list[tuple[str, str]]:
    return [(each.waiting.task_id, each.worker[1]) for each in made.assign()]


def test_the_higher_priority_goes_first_then_the_older_one() -> None:
    made = a_dispatch(a_worker("w1"), polls=3)
    made.offer(a_task("late", since=2.0))
    made.offer(a_task("early", since=1.0))
    made.offer(a_task("urgent", since=3.0, priority=1.0))
    assert [task for task, _ in given_out(made)] == ["urgent", "early", "late"]


def test_capacity_is_never_exceeded_however_many_polls_are_open() -> None:
    made = a_dispatch(a_worker("w1", max_concurrent_tasks=2), polls=5)
    for number in range(5):
        made.offer(a_task(f"t{number}"))
    assert len(given_out(made)) == 2
    made.drop("t0")
    assert given_out(made) == [("t2", "w1")]


def test_several_polls_of_a_worker_get_different_tasks() -> None:
    made = a_dispatch(a_worker("w1"), polls=2)
    made.offer(a_task("a"))
    made.offer(a_task("b"))
    assert [(each.waiting.task_id, each.poll) for each in made.assign()] == [("a", ("w1", 0)), ("b", ("w1", 1))]


@pytest.mark.parametrize(
    ("strategy", "winner"),
    [
        ("default", "hot"),
        ("cheapest", "cheap"),
        ("least_connections", "idle"),
        ("best_value", "trusted"),
        ("round_robin", "hot"),
        ("unheard-of", "hot"),
    ],
)
def test_a_strategy_prefers_one_of_those_that_poll(strategy: str, winner: str) -> None:
    workers = [
        a_worker("hot", hot_cache=["video"], cost_per_second=5, load=0.9),
        a_worker("cheap", cost_per_second=1, load=0.9),
        a_worker("idle", cost_per_second=5, load=0.1),
        a_worker("trusted", cost_per_second=1.5, load=0.9),
    ]
    workers[1].reputation = 0.5
    made = a_dispatch(*workers)
    made.offer(a_task("t", strategy=strategy))
    assert given_out(made) == [("t", winner)]


def test_round_robin_takes_who_was_served_longest_ago() -> None:
    made = a_dispatch(a_worker("w1"), a_worker("w2"), polls=3)
    for number in range(4):
        made.offer(a_task(f"t{number}", strategy="round_robin"))
    assert [worker for _, worker in given_out(made)] == ["w1", "w2", "w1", "w2"]


def test_a_strategy_is_no_reason_to_wait_for_a_better_worker() -> None:
    made = a_dispatch(a_worker("dear", cost_per_second=9))
    made.know(a_worker("cheap", cost_per_second=1))
    made.offer(a_task("t", strategy="cheapest"))
    assert given_out(made) == [("t", "dear")]


def test_a_worker_that_drains_or_has_had_enough_gets_nothing() -> None:
    worker = a_worker("w1")
    made = a_dispatch(worker)
    made.offer(a_task("t"))
    for heartbeat in ({"status": "draining"}, {"status": "busy", "supported_tasks": []}):
        worker.merge(heartbeat)
        made.know(worker)
        assert given_out(made) == []
    worker.merge({"status": "idle"})
    made.know(worker)
    assert given_out(made) == [("t", "w1")]


def test_a_poll_that_was_withdrawn_gets_nothing() -> None:
    made = a_dispatch(a_worker("w1"))
    assert made.close(("w1", 0)) == ("default", "w1")
    assert made.close(("w1", 0)) is None
    made.offer(a_task("t"))
    assert given_out(made) == []


def test_a_tenants_worker_gets_none_of_another_tenants_tasks() -> None:
    made = a_dispatch(a_worker("w1", "acme"))
    made.offer(a_task("t", tenant="other"))
    assert given_out(made) == []
    made.know(a_worker("w2"))
    made.open(("default", "w2"), ("r", 1))
    assert given_out(made) == [("t", "w2")]


def test_a_task_held_by_a_worker_that_is_not_known_yet_counts_when_it_is() -> None:
    made = RemoteDispatch()
    made.hold("t0", ("default", "w1"))
    made.know(a_worker("w1", max_concurrent_tasks=1))
    made.open(("default", "w1"), ("r", 1))
    made.offer(a_task("t1"))
    assert given_out(made) == []


@pytest.mark.parametrize(
    ("workers", "text"),
    [
        ([], "no live worker offers 'video'"),
        ([a_worker("w1", "acme")], "no live worker offers 'video'"),
        ([a_worker("w1", cost_per_second=2)], "1 live worker offers 'video', none for a cost of at most 1"),
        ([a_worker("w1", cost_per_second=1)], "1 live worker offers 'video', none meets the resource requirements"),
        (
            [a_worker("w1", cost_per_second=1, installed_models=["sd"], status="draining")],
            "1 live worker offers 'video', all are draining",
        ),
        (
            [a_worker(name, cost_per_second=1, installed_models=["sd"]) for name in ("w1", "w2")],
            "2 live workers offer 'video', none asks for a task now",
        ),
    ],
)
def test_it_says_why_a_task_waits(workers: list[RemoteWorker], text: str) -> None:
    task = a_task("t", wanted=requirements_of({"installed_models": ["sd"]}, 1.0))
    assert why(task, workers) == text


def test_ten_thousand_tasks_and_ten_thousand_polling_workers_take_a_second_or_so() -> None:
    made = RemoteDispatch()
    gpu = requirements_of({"gpu_info": {"vram_gb": 80}}, None)
    began = time.process_time()
    for number in range(10_000):
        made.offer(a_task(f"gpu{number}", wanted=gpu))  # which nobody can take
    for number in range(10_000):
        made.know(a_worker(f"w{number}", max_concurrent_tasks=1))
        made.open(("default", f"w{number}"), ("r", number))
        assert made.assign() == []
    for number in range(10_000):
        made.offer(a_task(f"t{number}", strategy="round_robin"))
        assert len(made.assign()) == 1
        made.drop(f"t{number}")
        made.open(("default", f"w{number}"), ("r", 10_000 + number))
    assert time.process_time() - began < 5.0
