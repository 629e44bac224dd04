"""A remote worker: what it says of itself, merged; what it can and costs; how far it is trusted."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from orchestrator.remote_worker import CAPACITY, RemoteWorker, requirements_of

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def a_worker(**body: object) -> RemoteWorker:
    return RemoteWorker("default", "w1", {"supported_tasks": ["video"], **body})


def test_skills_are_all_that_any_generation_names() -> None:
    worker = a_worker(supported_skills=[{"name": "audio", "type": "x"}, "text"], available_skills=["ocr"])
    assert worker.skills == {"video", "audio", "text", "ocr"}


def test_what_is_not_a_name_is_no_skill() -> None:
    worker = RemoteWorker("default", "w1", {"supported_tasks": "video", "supported_skills": [{"type": "x"}, 7, None]})
    assert worker.skills == frozenset()


@pytest.mark.parametrize(
    ("body", "capacity"),
    [
        ({}, CAPACITY),
        ({"max_concurrent_tasks": 2}, 2),
        ({"resources": {"max_concurrent_tasks": 3}}, 3),
        ({"max_concurrent_tasks": 2, "resources": {"max_concurrent_tasks": 3}}, 2),
        ({"max_concurrent_tasks": "many"}, CAPACITY),
        ({"max_concurrent_tasks": -1}, CAPACITY),
        ({"max_concurrent_tasks": True}, CAPACITY),
    ],
)
def test_capacity_is_what_it_says_or_ten(body: dict[str, object], capacity: int) -> None:
    assert a_worker(**body).capacity == capacity


def test_a_heartbeat_overwrites_key_by_key() -> None:
    worker = a_worker(load=0.1, resources={"cpu": 2, "gpu_info": {"model": "A"}})
    worker.merge({"load": 0.9, "resources": {"cpu": 4}})
    assert worker.view()["resources"] == {"cpu": 4}
    assert (worker.load, worker.skills) == (0.9, {"video"})


def test_a_busy_worker_without_tasks_keeps_its_skills_and_gets_no_more() -> None:
    worker = a_worker()
    worker.merge({"status": "busy", "supported_tasks": []})
    assert (worker.skills, worker.sated, worker.view()["status"]) == ({"video"}, True, "busy")
    worker.polled((), ())
    assert not worker.sated


def test_an_idle_worker_without_tasks_has_no_skill() -> None:
    worker = a_worker()
    worker.merge({"status": "idle", "supported_tasks": []})
    assert worker.skills == frozenset()


def test_a_busy_worker_may_name_fewer_skills() -> None:
    worker = a_worker(supported_skills=["audio"])
    worker.merge({"status": "busy", "supported_tasks": [], "supported_skills": ["text"]})
    assert worker.skills == {"video", "text"}


def test_a_poll_may_name_skills_and_none_named_changes_none() -> None:
    worker = a_worker()
    worker.polled(["audio"], ["video"])
    worker.polled((), ())
    assert (worker.skills, worker.hot) == ({"video", "audio"}, {"video"})


def test_a_new_registration_replaces_what_was_said_before() -> None:
    worker = a_worker(status="draining", cost_per_second=1)
    worker.register({"supported_tasks": ["audio"]})
    assert (worker.skills, worker.draining, worker.cost("audio")) == ({"audio"}, False, math.inf)


def test_secrets_are_neither_kept_nor_shown() -> None:
    secrets = {"security": {"k": "v"}, "token": "t", "worker_token": "t"}
    worker = a_worker(**secrets, max_tokens=4096)
    worker.merge(secrets)
    assert not set(secrets) & set(worker.view())
    assert not set(secrets) & set(worker.lasting())
    assert worker.view()["max_tokens"] == 4096


def test_its_view_says_who_it_is_how_trusted_and_when_it_was_seen() -> None:
    worker = a_worker(worker_id="somebody-else", reputation=7)
    worker.seen(1.0, NOW)
    assert worker.view() == {
        "worker_id": "w1",
        "supported_tasks": ["video"],
        "reputation": 1.0,
        "last_seen": "2026-01-02T03:04:05.678901+00:00",
    }


def test_what_is_of_the_moment_does_not_last() -> None:
    worker = a_worker(load=1, current_tasks=[], status="busy", cost_per_second=2)
    assert worker.lasting() == {"supported_tasks": ["video"], "cost_per_second": 2}
    worker.merge({"status": "draining"})
    assert worker.lasting()["status"] == "draining"


def test_a_price_is_of_the_skill_or_else_of_the_second() -> None:
    worker = a_worker(cost_per_second=2, cost_per_skill={"video": 0.5})
    assert (worker.cost("video"), worker.cost("audio"), a_worker().cost("video")) == (0.5, 2.0, math.inf)


GPU = {"gpu_info": {"model": "RTX 4090", "vram_gb": 24}, "installed_models": [{"name": "sd"}, "llama"]}


@pytest.mark.parametrize("body", [GPU, {"resources": GPU}])
@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (None, True),
        ({}, True),
        ({"gpu_info": {"model": "RTX 4090"}}, True),
        ({"gpu_info": {"model": "H100"}}, False),
        ({"gpu_info": {"vram_gb": 24}}, True),
        ({"gpu_info": {"vram_gb": 25}}, False),
        ({"installed_models": ["sd"]}, True),
        ({"installed_models": ["sd", "llama"]}, True),
        ({"installed_models": ["sd", "gpt"]}, False),
        ({"something": "else"}, True),
    ],
)
def test_requirements_are_met_or_not(body: dict[str, object], wanted: dict[str, object] | None, fits: bool) -> None:
    assert a_worker(**body).fits("video", requirements_of(wanted, None)) is fits


def test_who_has_no_gpu_meets_no_requirement_of_one() -> None:
    assert not a_worker().fits("video", requirements_of({"gpu_info": {"vram_gb": 1}}, None))


def test_a_limit_on_cost_keeps_out_the_dear_and_those_without_a_price() -> None:
    limit = requirements_of(None, 1.0)
    assert a_worker(cost_per_second=1.0).fits("video", limit)
    assert not a_worker(cost_per_second=1.1).fits("video", limit)
    assert not a_worker().fits("video", limit)


def test_nobody_does_what_he_does_not_offer() -> None:
    assert not a_worker().fits("audio", requirements_of(None, None))


def test_reputation_falls_with_failures_and_lapses_and_comes_back_with_successes() -> None:
    worker = a_worker()
    worker.settled("success")
    assert worker.reputation == 1.0
    worker.settled("failure")
    assert worker.reputation == pytest.approx(0.9)
    worker.lapsed()
    assert worker.reputation == pytest.approx(0.63)
    worker.settled("cancelled")
    assert worker.reputation == pytest.approx(0.63)
    for _ in range(200):
        worker.settled("success")
    assert worker.view()["reputation"] == 1.0
    for _ in range(5000):
        worker.lapsed()
    assert worker.reputation > 0


def test_workers_serve_their_tenant_and_those_of_default_everybody() -> None:
    own, shared = RemoteWorker("acme", "w1"), RemoteWorker("default", "w1")
    assert (own.serves("acme"), own.serves("default"), own.serves("other")) == (True, False, False)
    assert shared.serves("acme")
