"""actors.kubernetes_actor, against a stand-in of the Kubernetes API, over HTTP and with the official client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from actors import kubernetes_actor
from actors.attempt_log import LOG_MAX, TRUNCATION_MARK
from actors.clock import Clock
from actors.kubernetes_actor import KubernetesActor
from actors.kubernetes_cluster import Cluster
from actors.settings import Settings
from orchestrator import actor_codec
from orchestrator.messages import JobOrder, Report, Settled
from tests.kubernetes_api import HANGS, KubernetesApi, Play
from tests.kubernetes_builders import RUN, an_order, name_of
from tests.worker_builders import FakeLogs

JOBS = r"/apis/batch/v1/namespaces/\w+/jobs"
CREATED, WATCHED = rf"^POST {JOBS}$", rf"^GET {JOBS}\?.*watch=true"
LISTED = rf"^GET {JOBS}\?(?!.*watch=true)"
FAILS = Play(exit_code=3, message="no such table", log="reading\n")


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi() as api:
        yield api


@pytest.fixture
def logs() -> FakeLogs:
    return FakeLogs()


@pytest.fixture(autouse=True)
def no_time_to_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_actor, "PAUSE_S", 0.02)


Starter = Callable[..., Awaitable[KubernetesActor]]


@pytest.fixture
async def started(api: KubernetesApi, logs: FakeLogs) -> AsyncIterator[Starter]:
    """Starts actors; each comes with its watch open."""
    actors = []

    async def start(**changes: Any) -> KubernetesActor:
        before = len(api.asked(WATCHED))
        settings = Settings(k8s_api_url=api.url, **changes)
        actors.append(KubernetesActor(Cluster(settings), logs, Clock(), settings))
        actors[-1].start()
        await until(lambda: len(api.asked(WATCHED)) > before)
        return actors[-1]

    yield start
    for actor in actors:
        actor.stop()


@pytest.fixture
async def actor(started: Starter) -> KubernetesActor:
    return await started()


async def until(holds: Callable[[], object], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 # the stand-in lives in another thread
            await asyncio.sleep(0.005)


async def settled(actor: KubernetesActor, order: JobOrder, within_s: float = 10.0) -> Settled:
    async with asyncio.timeout(within_s):
        return actor_codec.decode_settled(await actor.exchange(actor_codec.encode_job_order(order)))


async def report(actor: KubernetesActor, order: JobOrder) -> Report:
    [one] = (await settled(actor, order)).reports
    return one


def begun(actor: KubernetesActor, order: JobOrder) -> asyncio.Task[Report]:
    return asyncio.get_running_loop().create_task(report(actor, order))


async def running(actor: KubernetesActor, api: KubernetesApi, order: JobOrder) -> asyncio.Task[Report]:
    """The pending report of an attempt whose Job runs."""
    pending = begun(actor, order)
    name = name_of(order.task.task, order.task.attempt)
    await until(lambda: api.jobs.get(name, {}).get("status", {}).get("active"))
    return pending


# ── how Jobs end ──


async def test_a_job_that_completes_is_a_success_with_null(actor: KubernetesActor, api: KubernetesApi) -> None:
    answer = await settled(actor, an_order("a", type="core.noop"))
    [one] = answer.reports
    assert (answer.worker, answer.incarnation, answer.untouched) == ("kubernetes", "kubernetes", ())
    assert (one.run_id, one.task, one.attempt, one.outcome, one.error) == (RUN, "a", 1, "ok", None)
    assert bytes(one.value.inline) == b"null"
    assert [job["metadata"]["name"] for job in api.posted] == [name_of("a")]


async def test_the_job_it_creates_is_one_the_api_has_no_fault_with(actor: KubernetesActor, api: KubernetesApi) -> None:
    await report(actor, an_order("a", type="core.echo", params={"x": "$(HOME)"}))
    [posted] = api.posted
    assert posted["metadata"]["labels"] == {"orchestrator/run-id": RUN}
    assert posted["spec"]["backoffLimit"] == 0
    [pod] = api.pods.values()
    assert pod["spec"]["containers"][0]["image"] == "acme:1"


async def test_a_job_that_fails_tells_what_its_container_said(actor: KubernetesActor, api: KubernetesApi) -> None:
    api.plays("a", FAILS)
    one = await report(actor, an_order("a"))
    assert (one.outcome, one.error, one.permanent) == ("error", "JobFailed: exit code 3: no such table", False)


async def test_a_job_beyond_its_deadline_has_timed_out(actor: KubernetesActor, api: KubernetesApi) -> None:
    pending = await running(actor, api, an_order("a"))
    api.overruns(name_of("a"))
    one = await pending
    assert (one.outcome, one.permanent) == ("timed_out", False)
    assert one.error is not None
    assert one.error.startswith("JobTimedOut: DeadlineExceeded")


async def test_a_job_that_somebody_deletes_has_failed_and_may_be_tried_again(
    actor: KubernetesActor, api: KubernetesApi
) -> None:
    pending = await running(actor, api, an_order("a"))
    api.removes(name_of("a"))
    one = await pending
    assert (one.outcome, one.permanent) == ("error", False)
    assert one.error == "JobGone: the Job was deleted before it had ended"


async def test_a_short_job_is_told_while_long_ones_go_on(actor: KubernetesActor, api: KubernetesApi) -> None:
    long = [await running(actor, api, an_order(f"long{n}")) for n in range(20)]
    assert (await report(actor, an_order("short", type="core.noop"))).outcome == "ok"
    assert await actor.ping() == 20
    for n in range(20):
        api.ends(name_of(f"long{n}"))
    assert {one.outcome for one in await asyncio.gather(*long)} == {"ok"}
    assert await actor.ping() == 0


async def test_all_jobs_are_heard_of_by_one_list_and_one_watch(actor: KubernetesActor, api: KubernetesApi) -> None:
    await asyncio.gather(*(report(actor, an_order(f"t{n}", type="core.noop")) for n in range(30)))
    assert (len(api.asked(LISTED)), len(api.asked(WATCHED))) == (1, 1)
    assert api.asked(rf"^GET {JOBS}/") == []


async def test_the_servers_image_is_for_tasks_that_name_none(api: KubernetesApi, started: Starter) -> None:
    actor = await started(k8s_image="ours:2", k8s_namespace="jobs")
    assert (await report(actor, an_order("a", type="core.noop", image=None))).outcome == "ok"
    assert api.posted[0]["spec"]["template"]["spec"]["containers"][0]["image"] == "ours:2"
    assert api.jobs[name_of("a")]["metadata"]["namespace"] == "jobs"


async def test_without_an_image_the_attempt_fails_for_good(actor: KubernetesActor, api: KubernetesApi) -> None:
    one = await report(actor, an_order("a", image=None))
    assert (one.outcome, one.permanent) == ("error", True)
    assert api.posted == []


# ── logs ──


async def test_the_pods_log_is_the_attempts_log(actor: KubernetesActor, api: KubernetesApi, logs: FakeLogs) -> None:
    api.plays("a", FAILS)
    api.plays("b", Play(log="all is well\n"))
    await report(actor, an_order("a", 2))
    await report(actor, an_order("b"))
    assert logs.text("a", 2) == "reading\n"
    assert logs.text("b", 1) == "all is well\n"


async def test_a_log_is_kept_up_to_the_bound_of_all_logs(
    actor: KubernetesActor, api: KubernetesApi, logs: FakeLogs
) -> None:
    api.plays("a", Play(log="x" * (LOG_MAX + 100)))
    await report(actor, an_order("a"))
    assert logs.text("a") == "x" * LOG_MAX + TRUNCATION_MARK
    [asked] = api.asked("/log")
    assert f"limitBytes={LOG_MAX + 1}" in asked


async def test_a_log_that_cannot_be_had_changes_nothing(actor: KubernetesActor, api: KubernetesApi) -> None:
    api.fails("GET", "/log", 500, times=100)
    api.fails("GET", "/pods", 403, reason="Forbidden", times=100)
    assert (await report(actor, an_order("a", type="core.noop"))).outcome == "ok"


async def test_a_log_is_asked_for_again_after_a_hiccup(
    actor: KubernetesActor, api: KubernetesApi, logs: FakeLogs
) -> None:
    api.plays("a", Play(log="here\n"))
    api.fails("GET", "/log", 503, times=1)
    await report(actor, an_order("a"))
    assert logs.text("a") == "here\n"


# ── when the API is in trouble ──


async def test_a_refusal_is_final_and_says_what_the_api_said(actor: KubernetesActor, api: KubernetesApi) -> None:
    api.fails("POST", "/jobs", 403, reason="Forbidden", message="jobs.batch is forbidden: no quota")
    one = await report(actor, an_order("a"))
    assert (one.outcome, one.permanent) == ("error", True)
    assert one.error == "the Kubernetes API refused the Job: jobs.batch is forbidden: no quota (403)"
    assert len(api.asked(CREATED)) == 1


@pytest.mark.parametrize(
    ("status", "reason"), [(500, "InternalError"), (503, ""), (429, "TooManyRequests"), (409, "Conflict")]
)
async def test_a_hiccup_is_met_again(actor: KubernetesActor, api: KubernetesApi, status: int, reason: str) -> None:
    api.fails("POST", "/jobs", status, reason=reason, times=3)
    assert (await report(actor, an_order("a", type="core.noop"))).outcome == "ok"
    assert len(api.asked(CREATED)) == 4


async def test_a_job_whose_creation_was_not_confirmed_is_not_created_twice(
    actor: KubernetesActor, api: KubernetesApi
) -> None:
    api.fails("POST", "/jobs", 500, done=True)
    api.plays("a", HANGS)
    pending = await running(actor, api, an_order("a"))
    await until(lambda: len(api.asked(CREATED)) == 2)
    api.ends(name_of("a"))
    assert (await pending).outcome == "ok"


async def test_an_attempt_whose_job_never_came_to_be_times_out(actor: KubernetesActor, api: KubernetesApi) -> None:
    api.fails("POST", "/jobs", 503, message="etcd is down", times=1_000_000)
    one = await report(actor, an_order("a", timeout_s=1.0))
    assert one.outcome == "timed_out"
    assert one.error is not None
    assert "etcd is down" in one.error
    assert len(api.asked(CREATED)) > 2
    assert api.asked("^DELETE")


async def test_a_job_that_the_cluster_does_not_end_in_time_is_ended_here(
    actor: KubernetesActor, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_actor, "OVERDUE_S", -3599.5)
    one = await report(actor, an_order("a", timeout_s=3600.0))
    assert (one.outcome, one.error) == ("timed_out", "timed out after 0.5 s: the cluster did not end the Job")
    assert api.jobs == {}


async def test_an_error_that_nobody_foresaw_fails_one_attempt(
    actor: KubernetesActor, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_actor, "job_of", lambda *_: 1 / 0)
    one = await report(actor, an_order("a"))
    assert (one.outcome, one.error) == ("error", "ZeroDivisionError: division by zero")


# ── the watch ──


async def test_a_watch_that_breaks_off_is_opened_again_and_misses_nothing(
    actor: KubernetesActor, api: KubernetesApi
) -> None:
    pending = await running(actor, api, an_order("a"))
    api.fails("GET", "watch=true", 503, times=1)
    api.cut_watches()
    api.ends(name_of("a"))
    assert (await pending).outcome == "ok"
    assert len(api.asked(LISTED)) >= 2


async def test_versions_that_the_cluster_has_forgotten_are_listed_anew(
    actor: KubernetesActor, api: KubernetesApi
) -> None:
    pending = await running(actor, api, an_order("a"))
    api.cut_watches()
    api.ends(name_of("a"))
    api.forgets()
    assert (await pending).outcome == "ok"


async def test_a_job_that_vanished_while_nobody_watched_is_missed(actor: KubernetesActor, api: KubernetesApi) -> None:
    pending = await running(actor, api, an_order("a"))
    kept = await running(actor, api, an_order("b"))
    api.fails("GET", "watch=true", 503, times=1)
    api.cut_watches()
    api.removes(name_of("a"))
    api.forgets()
    assert (await pending).error == "JobGone: the Job was deleted before it had ended"
    assert not kept.done()


async def test_a_list_that_is_older_than_the_job_does_not_miss_it(actor: KubernetesActor, api: KubernetesApi) -> None:
    asked_s = Clock().monotonic()
    pending = await running(actor, api, an_order("a"))
    await until(lambda: actor._by_name[name_of("a")].exists_s)
    actor.take_list([], asked_s)
    api.ends(name_of("a"))
    assert (await pending).outcome == "ok"


async def test_more_jobs_than_fit_on_a_page_are_all_listed(
    api: KubernetesApi, started: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.kubernetes_cluster.PAGE", 4)
    actor = await started()
    pending = [await running(actor, api, an_order(f"t{n}")) for n in range(10)]
    api.fails("GET", "watch=true", 503, times=1)
    api.cut_watches()
    for n in range(10):
        api.ends(name_of(f"t{n}"))
    assert {one.outcome for one in await asyncio.gather(*pending)} == {"ok"}
    assert len(api.asked(r"continue=8")) >= 1


# ── cancelling ──


async def test_a_cancelled_attempt_has_its_job_deleted_with_its_pods(
    actor: KubernetesActor, api: KubernetesApi
) -> None:
    pending = await running(actor, api, an_order("a"))
    assert await actor.cancel(RUN, "a", 1, "cancelled")
    one = await pending
    assert (one.outcome, one.error) == ("cancelled", "cancelled")
    assert (api.jobs, api.pods) == ({}, {})
    assert api.asked("^DELETE") == [
        f"DELETE /apis/batch/v1/namespaces/default/jobs/{name_of('a')}?propagationPolicy=Background"
    ]


async def test_a_deletion_is_asked_for_until_it_is_done(actor: KubernetesActor, api: KubernetesApi) -> None:
    pending = await running(actor, api, an_order("a"))
    api.fails("DELETE", "/jobs", 503, times=3)
    await actor.cancel(RUN, "a", 1, "cancelled")
    assert (await pending).outcome == "cancelled"
    assert api.jobs == {}


async def test_a_cancel_that_overtakes_its_order_keeps_the_job_from_being_created(
    actor: KubernetesActor, api: KubernetesApi
) -> None:
    assert not await actor.cancel(RUN, "a", 1, "cancelled")
    one = await report(actor, an_order("a"))
    assert (one.outcome, one.error) == ("cancelled", "cancelled before it started")
    assert api.posted == []


async def test_a_cancel_while_the_api_is_silent_ends_the_tries(actor: KubernetesActor, api: KubernetesApi) -> None:
    api.fails("POST", "/jobs", 503, times=1_000_000)
    pending = begun(actor, an_order("a"))
    await until(lambda: len(api.asked(CREATED)) >= 2)
    await actor.cancel(RUN, "a", 1, "cancelled")
    assert (await pending).outcome == "cancelled"
    tries = len(api.asked(CREATED))
    await asyncio.sleep(0.1)
    assert len(api.asked(CREATED)) == tries


async def test_a_cancel_that_comes_too_late_has_no_effect(actor: KubernetesActor, api: KubernetesApi) -> None:
    await report(actor, an_order("a", type="core.noop"))
    assert not await actor.cancel(RUN, "a", 1, "cancelled")
    assert name_of("a") in api.jobs


# ── orders that come again ──


async def test_an_order_that_comes_twice_is_one_job_with_one_log(
    actor: KubernetesActor, api: KubernetesApi, logs: FakeLogs
) -> None:
    api.plays("a", Play(runs_s=None))
    first = await running(actor, api, an_order("a"))
    second = begun(actor, an_order("a"))
    api.ends(name_of("a"), Play(log="once\n"))
    assert await first == await second
    assert await report(actor, an_order("a")) == await first
    assert (len(api.posted), logs.text("a")) == (1, "once\n")


async def test_a_caller_that_goes_away_leaves_the_attempt_to_its_successor(
    actor: KubernetesActor, api: KubernetesApi
) -> None:
    first = await running(actor, api, an_order("a"))
    first.cancel()
    second = begun(actor, an_order("a", epoch=2))
    await asyncio.sleep(0.05)
    api.ends(name_of("a"))
    assert (await second).outcome == "ok"
    assert len(api.posted) == 1


async def test_another_attempt_is_another_job(actor: KubernetesActor, api: KubernetesApi) -> None:
    await report(actor, an_order("a", 1, type="core.noop"))
    await report(actor, an_order("a", 2, type="core.noop"))
    assert set(api.jobs) == {name_of("a", 1), name_of("a", 2)}


async def test_an_actor_that_was_replaced_adopts_the_job_that_runs(
    actor: KubernetesActor, api: KubernetesApi, started: Starter
) -> None:
    pending = await running(actor, api, an_order("a"))
    actor.stop()
    pending.cancel()
    other = await started()
    again = begun(other, an_order("a"))
    await until(lambda: api.asked(rf"^GET {JOBS}/{name_of('a')}"))
    api.ends(name_of("a"))
    assert (await again).outcome == "ok"
    assert len(api.jobs) == 1


async def test_an_actor_that_was_replaced_adopts_the_job_that_has_ended(
    actor: KubernetesActor, api: KubernetesApi, started: Starter
) -> None:
    pending = await running(actor, api, an_order("a"))
    actor.stop()
    pending.cancel()
    api.ends(name_of("a"), FAILS)
    one = await report(await started(), an_order("a"))
    assert one.error == "JobFailed: exit code 3: no such table"
    assert len({job["metadata"]["uid"] for job in api.jobs.values()}) == 1


async def test_a_job_that_is_deleted_just_when_it_is_adopted_has_gone(
    actor: KubernetesActor, api: KubernetesApi
) -> None:
    api.fails("POST", "/jobs", 409, reason="AlreadyExists", message="already exists")
    assert (await report(actor, an_order("a"))).error == "JobGone: the Job was deleted before it had ended"


async def test_what_a_former_incarnation_still_orders_is_not_begun(actor: KubernetesActor, api: KubernetesApi) -> None:
    await report(actor, an_order("a", type="core.noop", epoch=2))
    answer = await settled(actor, an_order("b", epoch=1))
    assert (answer.reports, answer.untouched) == ((), ((RUN, "b", 1),))
    assert len(api.posted) == 1


async def test_reports_are_kept_for_a_while_only(
    actor: KubernetesActor, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_actor, "REPORTS_MAX", 1)
    for task in ("a", "b"):
        await report(actor, an_order(task, type="core.noop"))
    before = len(api.requests)
    await report(actor, an_order("b", type="core.noop"))
    assert len(api.requests) == before
    await report(actor, an_order("a", type="core.noop"))
    assert re.search(CREATED, api.requests[before])
