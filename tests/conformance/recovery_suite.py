"""What every `ports.Journal` counts, and finds again. `test_journals.py` runs it on each."""

from __future__ import annotations

import asyncio
from collections import Counter

from orchestrator.ports import METRICS_MAX, Journal
from orchestrator.rows import Beat, OwnerRow, RunFilter
from orchestrator.steps import CreatedRun, Creation
from tests.conformance.journal_builders import NOW_MS, Owner, append, create, new_run, progress, put
from tests.conformance.journal_reads import backfilled


class RecoverySuite:
    """Subclasses give the fixture `journal`: an empty one."""

    async def test_ends_are_counted_and_measured(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        for state, took in (("succeeded", 3), ("succeeded", 700), ("failed", 4_000_000)):
            [run] = await create(journal, new_run())
            await owner.commit(append(run, 1, state=state, finished_ms=NOW_MS + took))
        found = await journal.metrics()
        assert found == {
            "runs_total|d|succeeded": 2,
            "runs_total|d|failed": 1,
            "run_latency_seconds|d|le|0.005": 1,
            "run_latency_seconds|d|le|1": 1,
            "run_latency_seconds|d|count": 3,
            "run_latency_seconds|d|sum_ms": 4_000_703,
        }
        await journal.count([("http|GET", 2), ("http|GET", 3)])
        assert (await journal.metrics())["http|GET"] == 5
        dag = await journal.dag("t", "d")
        assert dag is not None
        assert dag.run_counts == {"succeeded": 2, "failed": 1}

    async def test_metrics_of_very_many_dags_are_counted_under_one_name(self, journal: Journal) -> None:
        await journal.count([(f"runs_total|d{n}|failed", 1) for n in range(METRICS_MAX)])
        owner = await Owner(journal).start()
        failed = (("runs_total|new|failed", 2), ("runs_total|newer|failed", 3), ("runs_total|d7|failed", 4))
        await owner.commit(counts=(*failed, ("jobs|count", 1)))
        await journal.count([("runs_total|newest|failed", 5), ("http|GET|/health|200|count", 1)])
        found = await journal.metrics()
        assert (found["runs_total|other|failed"], found["runs_total|d7|failed"]) == (10, 5)
        assert (found["jobs|count"], found["http|GET|/health|200|count"], len(found)) == (1, 1, METRICS_MAX + 3)

    async def test_a_histogram_that_is_kept_by_name_stays_whole(self, journal: Journal) -> None:
        took = (("le|1", 1), ("sum_ms", 700), ("count", 1))
        await journal.count([(f"run_latency_seconds|d|{part}", n) for part, n in took])
        await journal.count([(f"runs_total|d{n}|failed", 1) for n in range(METRICS_MAX)])
        slower = (("le|60", 1), ("sum_ms", 50_000), ("count", 1))
        for dag_id in ("d", "new"):
            await journal.count([(f"run_latency_seconds|{dag_id}|{part}", n) for part, n in slower])
        found = {field: n for field, n in (await journal.metrics()).items() if field.startswith("run_latency")}
        of_all = {f"run_latency_seconds|other|{part}": n for part, n in slower}
        of_d = {"le|1": 1, "le|60": 1, "sum_ms": 50_700, "count": 2}
        assert found == of_all | {f"run_latency_seconds|d|{part}": n for part, n in of_d.items()}

    # recovery

    async def test_everything_open_is_found_again(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        ids = await create(journal, *(new_run() for _ in range(5)))
        await owner.commit(append(ids[0], 1, state="succeeded"), append(ids[1], 1, state="running"))
        backfill = await backfilled(journal, 2)
        found = await journal.queued_and_active()
        assert [row.run_id for row in found] == sorted(
            [*ids[1:], backfill.run_id, *(w.run_id for w in backfill.windows)]
        )
        assert {row.run_id: row.state for row in found}[ids[1]] == "running"

    async def test_histories_are_loaded_whole(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        ids = await create(journal, *(new_run() for _ in range(700)))
        await owner.commit(*(append(run, 1, 2) for run in ids))
        found = await journal.load([*ids, "run_unknown"])
        assert [h.row.run_id for h in found] == ids
        assert {tuple(b.last_version for b in h.batches) for h in found} == {(1, 3)}
        assert found[3].batches[1].events == progress(2)

    async def test_a_run_that_is_to_be_alone_is_refused_while_another_one_goes_on(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        await journal.put_dag(put("@plan/p"))
        await journal.put_dag(put("@plan/q"))
        first, second, third = (new_run(dag_id="@plan/p", alone=True) for _ in range(3))
        other = new_run(dag_id="@plan/q", alone=True)
        made = await journal.create_runs([Creation((run,)) for run in (first, second, other)])
        assert [result.status for result in made] == ["ok", "busy", "ok"]
        assert made[1].runs == (CreatedRun(first.run_id, "queued", "existing"),)
        assert await journal.summary(second.run_id) is None
        assert [result.status for result in await journal.create_runs([Creation((first,))])] == ["ok"]
        await owner.commit(append(first.run_id, 1, state="running"))
        busy = (await journal.create_runs([Creation((third,))]))[0]
        assert (busy.status, busy.runs[0].state) == ("busy", "running")
        await owner.commit(append(first.run_id, 2, state="cancelling"))
        assert (await journal.create_runs([Creation((third,))]))[0].status == "busy"
        await owner.commit(append(first.run_id, 3, state="cancelled", finished_ms=NOW_MS))
        assert (await journal.create_runs([Creation((third,))]))[0].status == "ok"
        elsewhere = new_run(dag_id="@plan/p", alone=True, tenant="u")
        await journal.put_dag(put("@plan/p", tenant="u"))
        assert (await journal.create_runs([Creation((elsewhere,))]))[0].status == "ok"

    async def test_starters_at_the_same_moment_get_one_run(self, journal: Journal) -> None:
        await journal.put_dag(put("@plan/p"))
        runs = [new_run(dag_id="@plan/p", alone=True) for _ in range(20)]
        answers = await asyncio.gather(*(journal.create_runs([Creation((run,))]) for run in runs))
        statuses = Counter(answer[0].status for answer in answers)
        assert statuses == {"ok": 1, "busy": 19}
        [stands] = {answer[0].runs[0].run_id for answer in answers}
        assert await journal.summary(stands) is not None

    async def test_signs_of_life_are_kept_beside_the_run_until_they_are_forgotten(self, journal: Journal) -> None:
        assert await journal.beats() == []
        await journal.beat("orch-2", 0, NOW_MS)
        await journal.beat("orch-1", 7, NOW_MS)
        await journal.beat("orch-2", 8, NOW_MS + 10)
        await journal.beat("orch-2", 0, NOW_MS + 20)
        await journal.keep("orch-2", 5)
        await journal.keep("orch-3", 5)
        found = await journal.beats()
        assert found == [Beat("orch-1", 7, NOW_MS), Beat("orch-2", 8, NOW_MS + 20, 5)]
        await journal.forget("orch-1")
        await journal.forget("orch-1")
        assert [beat.run_id for beat in await journal.beats()] == ["orch-2"]

    async def test_unknown_things_are_empty_not_errors(self, journal: Journal) -> None:
        assert await journal.summary("x") is None
        assert await journal.tasks("x") == {}
        assert await journal.look("x") is None
        assert await journal.events("x", 0, 5) == []
        assert await journal.children("x") == []
        assert await journal.child_counts("x") == {}
        assert await journal.owned("x") == []
        assert await journal.owner("x") == OwnerRow(0, 0, "0-0")
        assert await journal.position("x") == "0-0"
        assert await journal.log("x", "a", 1) is None
        assert (await journal.summaries(RunFilter(tenant="t", parent="x"), None, 5)).rows == ()
        assert await journal.ping()
