"""Runs whose tasks are Kubernetes Jobs: real shells beside a stand-in of the cluster, and each of them replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from actors import kubernetes_actor, kubernetes_seat
from actors.names import KUBERNETES
from orchestrator import events as e
from orchestrator.definition import Container, TaskSpec
from tests.kubernetes_api import HANGS, KubernetesApi, Play
from tests.kubernetes_builders import name_of
from tests.kubernetes_stage import RUN_ACTOR, Stage, until
from tests.world_clients import TENANT

T = TypeVar("T")
CREATED = r"^POST /apis/batch/v1/namespaces/default/jobs$"


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi() as api:
        yield api


@pytest.fixture(autouse=True)
def no_time_to_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_actor, "PAUSE_S", 0.02)
    monkeypatch.setattr(kubernetes_seat, "PAUSE_S", 0.02)


def played(api: KubernetesApi, course: Callable[[Stage], Awaitable[T]], **settings: Any) -> T:
    return Stage(api, k8s_image="ours:1", **settings).play(course)


def a_task(name: str, *needs: str, **changes: Any) -> TaskSpec:
    values: dict[str, Any] = {"type": "core.noop", "retry_delay_s": 0.0}
    return TaskSpec(id=name, depends_on=needs, **(values | changes))


def names(api: KubernetesApi) -> list[str]:
    """Jobs that were created, in order; each once."""
    return [job["metadata"]["name"] for job in api.posted]


def test_a_run_goes_through_its_tasks_job_after_job(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        run_id = await stage.triggered(a_task("a"), a_task("b", "a"), a_task("c", "a"), a_task("d", "b", "c"))
        assert await stage.ended(run_id) == "succeeded"
        created = names(api)
        assert created[0] == name_of("a", 1, run_id)
        assert set(created[1:3]) == {name_of("b", 1, run_id), name_of("c", 1, run_id)}
        assert created[3:] == [name_of("d", 1, run_id)]
        started = stage.of_task(run_id, e.TaskStarted)
        assert {(event.worker, event.incarnation) for event in started} == {("kubernetes", "kubernetes")}
        values = [event.value for event in stage.of_task(run_id, e.TaskSucceeded)]
        assert all(value is not None and bytes(value.inline) == b"null" for value in values)

    played(api, course)


def test_a_job_is_what_its_node_says(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        box = Container("acme:7", ("load", "--all"))
        run_id = await stage.triggered(a_task("a", container=box, timeout_s=90.0, params={"n": 1}), a_task("b", "a"))
        assert await stage.ended(run_id) == "succeeded"
        [first, second] = (job["spec"]["template"]["spec"]["containers"][0] for job in api.posted)
        assert (first["image"], first["command"]) == ("acme:7", ["load", "--all"])
        assert (second["image"], "command" in second) == ("ours:1", False)
        assert api.posted[0]["spec"]["activeDeadlineSeconds"] == 90
        assert api.posted[0]["metadata"]["labels"] == {"orchestrator/run-id": run_id}

    played(api, course)


def test_tasks_of_any_type_run_where_images_know_them(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> str:
        api.plays("a", Play())
        return await stage.ended(await stage.triggered(a_task("a", type="acme.anything")))

    assert played(api, course) == "succeeded"


def test_short_jobs_do_not_wait_for_long_ones(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.plays("long", HANGS)
        shorts = [a_task(f"s{n}", *([f"s{n - 1}"] if n else [])) for n in range(4)]
        run_id = await stage.triggered(a_task("long"), *shorts)
        await until(lambda: len(stage.of_task(run_id, e.TaskSucceeded)) == 4)
        api.ends(name_of("long", 1, run_id))
        assert await stage.ended(run_id) == "succeeded"

    played(api, course)


def test_more_ready_tasks_than_one_turn_takes_all_become_jobs(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.readiness.JOBS_MAX", 3)
    monkeypatch.setattr("actors.run_actor.SWEEP_S", 3600.0)

    async def course(stage: Stage) -> None:
        for n in range(10):
            api.plays(f"t{n}", HANGS)
        run_id = await stage.triggered(*(a_task(f"t{n}") for n in range(10)))
        running = [await stage.running(run_id, f"t{n}") for n in range(10)]
        for name in running:
            api.ends(name)
        assert await stage.ended(run_id) == "succeeded"

    played(api, course)


def test_an_attempt_that_fails_is_tried_again_under_another_name(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        run_id = await stage.triggered(a_task("a", type="core.fail", params={"times": 1}, retries=1))
        assert await stage.ended(run_id) == "succeeded"
        assert names(api) == [name_of("a", 1, run_id), name_of("a", 2, run_id)]
        [retry] = stage.of_task(run_id, e.TaskRetrying)
        assert (retry.error, retry.lost) == ("JobFailed: exit code 1: told to fail", False)

    played(api, course)


def test_a_run_fails_with_what_its_last_attempt_said(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.plays("a", Play(exit_code=2, message="no such table", log="reading\n"))
        run_id = await stage.triggered(a_task("a"), a_task("b", "a"))
        assert await stage.ended(run_id) == "failed"
        [failed] = stage.of_task(run_id, e.TaskFailed)
        assert failed.error == "JobFailed: exit code 2: no such table"
        assert stage.logs.text("a") == "reading\n"

    played(api, course)


def test_a_task_beyond_its_limit_has_timed_out(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.plays("a", HANGS)
        run_id = await stage.triggered(a_task("a"))
        api.overruns(await stage.running(run_id, "a"))
        assert await stage.ended(run_id) == "failed"
        [failed] = stage.of_task(run_id, e.TaskFailed)
        assert failed.timed_out

    played(api, course)


def test_a_job_that_vanishes_is_a_failure_that_is_tried_again(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.plays("a", HANGS, Play())
        run_id = await stage.triggered(a_task("a", retries=1))
        api.removes(await stage.running(run_id, "a"))
        assert await stage.ended(run_id) == "succeeded"
        [retry] = stage.of_task(run_id, e.TaskRetrying)
        assert (retry.error, retry.lost) == ("JobGone: the Job was deleted before it had ended", False)

    played(api, course)


def test_what_the_api_refuses_is_not_tried_again(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.fails("POST", "/jobs", 422, reason="Invalid", message="image: Required value", times=9)
        run_id = await stage.triggered(a_task("a", retries=5))
        assert await stage.ended(run_id) == "failed"
        assert len(api.asked(CREATED)) == 1

    played(api, course)


def test_a_cancelled_run_has_its_jobs_deleted(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.plays("a", HANGS)
        api.plays("b", HANGS)
        run_id = await stage.triggered(a_task("a"), a_task("b"), a_task("c", "a"))
        await stage.running(run_id, "a")
        await stage.running(run_id, "b")
        await stage.gateway.cancel_run(TENANT, run_id, None)
        assert stage.journal.runs[run_id].state == "cancelled"
        await until(lambda: not api.jobs)
        assert len(api.asked(r"^DELETE .*propagationPolicy=Background")) == 2
        assert await stage.ended(run_id) == "cancelled"

    played(api, course)


def test_a_skipped_task_has_its_job_deleted_and_the_run_goes_on(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.plays("a", HANGS)
        run_id = await stage.triggered(a_task("a"), a_task("b", "a"))
        name = await stage.running(run_id, "a")
        await stage.gateway.skip_task(TENANT, run_id, "a", None)
        assert await stage.ended(run_id) == "succeeded"
        await until(lambda: name not in api.jobs)

    played(api, course)


# ── who was replaced ──


def test_a_kubernetes_actor_that_is_replaced_finds_the_job_again(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.plays("a", HANGS)
        run_id = await stage.triggered(a_task("a"), a_task("b", "a"))
        name = await stage.running(run_id, "a")
        stage.end(KUBERNETES)
        await asyncio.sleep(0.05)
        stage.start(KUBERNETES)
        await until(lambda: len(api.asked(CREATED)) == 2)  # asked for again, and adopted
        api.ends(name, Play(log="still here\n"))
        assert await stage.ended(run_id) == "succeeded"
        assert [event.attempt for event in stage.of_task(run_id, e.TaskStarted)] == [1, 1]
        assert set(api.jobs) == {name, name_of("b", 1, run_id)}
        assert stage.logs.text("a") == "still here\n"

    played(api, course)


def test_a_job_that_ends_while_there_is_no_kubernetes_actor_counts(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.plays("a", HANGS)
        run_id = await stage.triggered(a_task("a"))
        name = await stage.running(run_id, "a")
        stage.end(KUBERNETES)
        api.ends(name)
        stage.start(KUBERNETES)
        assert await stage.ended(run_id) == "succeeded"
        assert len(stage.of_task(run_id, e.TaskStarted)) == 1

    played(api, course)


def test_a_run_that_begins_before_there_is_a_kubernetes_actor_waits_for_it(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        stage.end(KUBERNETES)
        run_id = await stage.triggered(a_task("a"))
        await until(lambda: stage.of_task(run_id, e.TaskStarted))
        await asyncio.sleep(0.1)
        stage.start(KUBERNETES)
        assert await stage.ended(run_id) == "succeeded"
        assert not stage.of_task(run_id, e.TaskRetrying)

    played(api, course)


@pytest.mark.parametrize("ends_meanwhile", [False, True])
def test_a_run_actor_that_is_replaced_takes_its_jobs_over(api: KubernetesApi, ends_meanwhile: bool) -> None:
    async def course(stage: Stage) -> None:
        api.plays("a", HANGS)
        run_id = await stage.triggered(a_task("a"), a_task("b", "a"))
        name = await stage.running(run_id, "a")
        stage.end(RUN_ACTOR)
        if ends_meanwhile:
            api.ends(name)
        await asyncio.sleep(0.05)
        stage.start(RUN_ACTOR)
        if not ends_meanwhile:
            await asyncio.sleep(0.1)
            api.ends(name)
        assert await stage.ended(run_id) == "succeeded"
        assert [event.attempt for event in stage.of_task(run_id, e.TaskStarted)] == [1, 1]
        assert names(api) == [name, name_of("b", 1, run_id)]

    played(api, course)


def test_after_everything_was_replaced_the_same_attempt_goes_on(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.plays("a", HANGS)
        run_id = await stage.triggered(a_task("a"))
        name = await stage.running(run_id, "a")
        for who in ("scheduler", RUN_ACTOR, KUBERNETES):
            stage.end(who)
        for who in (RUN_ACTOR, "scheduler", KUBERNETES):
            stage.start(who)
        await until(lambda: len(api.asked(CREATED)) == 2)
        assert list(api.jobs) == [name]
        api.ends(name)
        assert await stage.ended(run_id) == "succeeded"
        assert len(stage.of_task(run_id, e.TaskStarted)) == 1

    played(api, course)


def test_a_cancel_reaches_a_kubernetes_actor_that_was_not_there(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.plays("a", HANGS)
        run_id = await stage.triggered(a_task("a"))
        await stage.running(run_id, "a")
        stage.end(KUBERNETES)
        await stage.gateway.cancel_run(TENANT, run_id, None)
        await asyncio.sleep(0.1)
        stage.start(KUBERNETES)
        await until(lambda: not api.jobs)
        await asyncio.sleep(0.1)
        assert len(api.posted) == 1

    played(api, course)


def test_a_watch_that_is_lost_costs_no_attempt(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        for n in range(5):
            api.plays(f"t{n}", HANGS)
        run_id = await stage.triggered(*(a_task(f"t{n}") for n in range(5)))
        running = [await stage.running(run_id, f"t{n}") for n in range(5)]
        api.fails("GET", "/jobs", 503, times=2)
        api.cut_watches()
        for name in running:
            api.ends(name)
        api.forgets()
        assert await stage.ended(run_id) == "succeeded"
        assert len(stage.of_task(run_id, e.TaskStarted)) == 5

    played(api, course)


def test_an_attempt_of_which_nobody_says_anything_times_out(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_seat, "LATE_S", 0.1)

    async def course(stage: Stage) -> None:
        stage.end(KUBERNETES)
        run_id = await stage.triggered(a_task("a", timeout_s=0.2))
        assert await stage.ended(run_id) == "failed"
        [failed] = stage.of_task(run_id, e.TaskFailed)
        assert (failed.timed_out, failed.error) == (
            True,
            "timed out after 0.2 s, and actor kubernetes said nothing of it",
        )

    played(api, course)


def test_without_a_cluster_a_run_fails_at_once(api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_seat, "configured", lambda _: False)

    async def course(stage: Stage) -> None:
        run_id = await stage.triggered(a_task("a", retries=3))
        assert await stage.ended(run_id) == "failed"
        assert stage.of_task(run_id, e.TaskFailed)[0].error == "no Kubernetes cluster is configured"

    played(api, course)


def test_a_run_in_kubernetes_wants_no_worker(api: KubernetesApi) -> None:
    async def course(stage: Stage) -> None:
        api.plays("a", HANGS)
        run_id = await stage.triggered(a_task("a"), a_task("b"))
        await stage.running(run_id, "a")
        load = await stage.wire.ask("scheduler", "load", b"")
        assert b'"waiting_tasks":0' in load.replace(b" ", b"")
        await stage.gateway.cancel_run(TENANT, run_id, None)

    played(api, course)
