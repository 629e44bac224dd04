"""What every `ports.Journal` does about held runs, records, lines and rates. `test_journals.py` runs it on each."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest

from orchestrator import codec, streams
from orchestrator.ports import Journal
from orchestrator.rows import RunFilter, RunRow
from orchestrator.steps import Append, Creation, NewRun, Quota, StoredReply
from orchestrator.streams import Born, InboxItem, TimerFired
from tests.conformance.journal_builders import (
    NOW_MS,
    Owner,
    append,
    create,
    create_windows,
    new_backfill,
    new_run,
    put,
)

OWNER = "gateway-0.jobs"
BLUEPRINT = "@job/hello"
_numbers = itertools.count(1)


def held(**changes: object) -> NewRun:
    """A job of a blueprint, whose id says nothing about its age."""
    n = next(_numbers)
    run_id = f"{hash(n) * 7919 % 10_007:08x}-0000-4000-8000-{n:012x}"
    return new_run(**{"run_id": run_id, "dag_id": BLUEPRINT, "run_type": "job", "owner": OWNER, **changes})


async def hold(journal: Journal, *runs: NewRun) -> list[str]:
    """Ids of these held runs."""
    [result] = await journal.create_runs([Creation(runs)])
    assert result.status == "ok"
    assert [(run.state, run.how) for run in result.runs] == [("queued", "created")] * len(runs)
    return [run.run_id for run in result.runs]


async def row_of(journal: Journal, run: str) -> RunRow:
    row = await journal.summary(run)
    assert row is not None
    return row


async def letters(journal: Journal, actor: str = OWNER) -> list[list[InboxItem]]:
    """Items of the inbox, entry by entry."""
    return [codec.decode_inbox(entry.item) for entry in await journal.tail(streams.inbox(actor), "0-0", 0)]


async def listed(journal: Journal, **wanted: object) -> list[str]:
    """Newest first, page by page."""
    found, cursor = list[str](), None
    while True:
        page = await journal.summaries(RunFilter(**{"tenant": "t", "kind": "@job", **wanted}), cursor, 2)
        found, cursor = [*found, *(row.run_id for row in page.rows)], page.next_cursor
        if cursor is None:
            return found


class HeldSuite:
    """Subclasses give the fixture `journal`: an empty one."""

    # quotas, and how many there are

    async def test_a_quota_counts_what_it_let_be_created_and_nothing_else(self, journal: Journal) -> None:
        async def ask(run: NewRun, key: str = "acme:2026-01", idem: StoredReply | None = None) -> str:
            [result] = await journal.create_runs([Creation((run,), idem, Quota(key, 2))])
            return result.status

        once = StoredReply("k", "f")
        first = held()
        assert await ask(first, idem=once) == "ok"
        assert [await ask(held(), idem=once), await ask(held(), idem=StoredReply("k", "g"))] == ["replayed", "conflict"]
        assert await ask(first) == "ok"  # sent again after a lost answer
        assert [await ask(held()), await ask(held()), await ask(held())] == ["ok", "exhausted", "exhausted"]
        assert [await ask(held(), "acme:2026-02"), await ask(held(), "other:2026-01")] == ["ok", "ok"]
        assert await ask(held(), idem=once) == "replayed"
        assert len(await listed(journal)) == 4

    async def test_of_creations_in_one_step_only_as_many_succeed_as_the_quota_allows(self, journal: Journal) -> None:
        asked = [Creation((held(),), None, Quota("acme", 2)) for _ in range(4)]
        assert [each.status for each in await journal.create_runs(asked)] == ["ok", "ok", "exhausted", "exhausted"]

    async def test_runs_of_a_kind_are_counted_by_state(self, journal: Journal) -> None:
        await hold(journal, held(), held(dag_id="@job/other"), held(dag_id="@ci/x"), held(tenant="u"))
        [run] = await hold(journal, held())
        owner = await Owner(journal, OWNER).start()
        await owner.commit(append(run, 1, state="waiting"))
        await journal.put_dag(put())
        await create(journal, new_run())
        assert await journal.state_counts("t", "@job") == {"queued": 2, "waiting": 1}
        assert await journal.state_counts("t", "@ci") == {"queued": 1}
        assert await journal.state_counts("t", "") == {"queued": 1}
        assert await journal.state_counts("nobody", "@job") == {}

    # birth

    async def test_a_held_run_belongs_to_its_owner_from_the_start(self, journal: Journal) -> None:
        [run] = await hold(journal, held(parent="other"))
        row = await row_of(journal, run)
        assert (row.owner, row.holder, row.state, row.version) == (OWNER, OWNER, "queued", 1)
        assert (row.parent, row.watchers) == ("other", ())
        assert await journal.owned(OWNER) == [run]

    async def test_the_owner_is_told_of_everything_that_one_request_made_in_one_entry(self, journal: Journal) -> None:
        one, two, other = held(schema=3, event='[{"é":"\\"\\n"}]'.encode()), held(), held(owner="gateway-0.pipelines")
        await journal.create_runs([Creation((one,)), Creation((other, two))])
        items = [Born(one.run_id, 3, one.event.decode()), Born(two.run_id, 1, two.event.decode())]
        assert await letters(journal) == [items]
        assert await letters(journal, "gateway-0.pipelines") == [[Born(other.run_id, 1, other.event.decode())]]
        for born in items:
            assert await journal.events(born.run_id, 0, 10) == [born.batch()]

    async def test_a_held_run_sent_again_is_not_born_again(self, journal: Journal) -> None:
        run = held()
        await hold(journal, run)
        await hold(journal, run)
        assert len(await letters(journal)) == 1
        assert len(await journal.events(run.run_id, 0, 10)) == 1

    async def test_a_key_answers_the_first_held_run(self, journal: Journal) -> None:
        idem = StoredReply("k", "f", b'{"job":1}')
        first, second = held(), held()
        [made] = await journal.create_runs([Creation((first,), idem)])
        [replayed] = await journal.create_runs([Creation((second,), idem)])
        assert (made.status, replayed.status, replayed.reply) == ("ok", "replayed", idem.reply)
        assert [run.run_id for run in replayed.runs] == [first.run_id]
        assert await journal.summary(second.run_id) is None
        [conflict] = await journal.create_runs([Creation((second,), msgspec.structs.replace(idem, fingerprint="g"))])
        assert conflict.status == "conflict"
        assert len(await letters(journal)) == 1

    async def test_a_held_run_needs_no_definition(self, journal: Journal) -> None:
        [run] = await hold(journal, held(dag_version=17))
        assert (await row_of(journal, run)).dag_version == 17
        assert await journal.dag("t", BLUEPRINT) is None

    async def test_a_held_run_is_refused_while_it_has_to_be_alone(self, journal: Journal) -> None:
        first = held(alone=True)
        await hold(journal, first)
        [busy] = await journal.create_runs([Creation((held(alone=True),))])
        assert (busy.status, [run.run_id for run in busy.runs]) == ("busy", [first.run_id])

    # life

    async def test_the_scheduler_never_hears_of_a_held_run(self, journal: Journal) -> None:
        owner = await Owner(journal, OWNER).start()
        one, two = await hold(journal, held(), held())
        await owner.commit(append(one, 1, state="running"), append(two, 1, state="waiting"))
        await owner.commit(append(one, 2, state="succeeded", finished_ms=NOW_MS), append(two, 2, passive=True))
        await owner.commit(append(one, 3, state="running"))
        assert await journal.tail(streams.SCHED, "0-0", 0) == []
        assert await journal.queued_and_active() == []

    async def test_a_held_run_stands_beside_an_ordinary_one_in_one_request(self, journal: Journal) -> None:
        await journal.put_dag(put())
        before = await journal.position(streams.SCHED)
        ordinary = new_run()
        [result] = await journal.create_runs([Creation((held(), ordinary))])
        assert result.status == "ok"
        [entry] = await journal.tail(streams.SCHED, before, 0)
        [item] = codec.decode_sched(entry.item)
        assert isinstance(item, streams.RunsCreated)
        assert item.run_ids == (ordinary.run_id,)
        assert [row.run_id for row in await journal.queued_and_active()] == [ordinary.run_id]

    async def test_an_owner_lets_go_of_a_held_run_at_its_end_only(self, journal: Journal) -> None:
        owner = await Owner(journal, OWNER).start()
        [run] = await hold(journal, held())
        await owner.commit(append(run, 1, state="running", passive=True))
        assert await journal.owned(OWNER) == [run]
        await owner.commit(append(run, 2, state="failed", finished_ms=NOW_MS + 5, error="boom"))
        assert await journal.owned(OWNER) == []
        row = await row_of(journal, run)
        assert (row.owner, row.holder, row.state, row.error) == ("", OWNER, "failed", "boom")
        assert row.finished_ms == NOW_MS + 5

    async def test_nobody_else_writes_to_a_held_run(self, journal: Journal) -> None:
        other = await Owner(journal, "run-actor-1").start()
        [run] = await hold(journal, held())
        [result] = await journal.commit(other.step(append(run, 1)))
        assert (result.status, result.owner, result.version) == ("stale", OWNER, 1)

    async def test_events_carry_the_schema_they_were_written_under(self, journal: Journal) -> None:
        owner = await Owner(journal, OWNER).start()
        [run] = await hold(journal, held(schema=2))
        await owner.commit(Append(run_id=run, expected=1, count=2, events=b"[{},{}]", schema=5), append(run, 3))
        assert [(b.last_version, b.schema) for b in await journal.events(run, 0, 10)] == [(1, 2), (3, 5), (4, 1)]

    async def test_a_durable_timer_of_a_held_run_reaches_its_owner(self, journal: Journal) -> None:
        scheduler, owner = await Owner(journal, "scheduler").start(), await Owner(journal, OWNER).start()
        [run] = await hold(journal, held())
        await owner.commit(append(run, 1, wake_at_ms=1000))
        assert await journal.pop_timers(scheduler.epoch, 1000) == 1
        assert (await letters(journal))[-1] == [TimerFired(run, "wake", 1000)]

    async def test_the_feed_tells_of_held_runs(self, journal: Journal) -> None:
        owner = await Owner(journal, OWNER).start()
        [run] = await hold(journal, held())
        await owner.commit(append(run, 1, 2, state="running"))
        entries = await journal.tail(streams.FEED, "0-0", 0)
        assert [codec.decode_feed(e.item) for e in entries] == [[(run, 1, "queued")], [(run, 3, "running")]]

    async def test_ends_of_held_runs_are_counted_under_their_kind(self, journal: Journal) -> None:
        owner = await Owner(journal, OWNER).start()
        [run] = await hold(journal, held())
        await owner.commit(append(run, 1, state="succeeded", finished_ms=NOW_MS + 700))
        metrics = await journal.metrics()
        assert metrics["runs_total|@job|succeeded"] == 1
        assert metrics["run_latency_seconds|@job|le|1"] == 1
        assert metrics["run_latency_seconds|@job|sum_ms"] == 700

    # lists

    async def test_held_runs_are_listed_newest_first_whatever_their_ids(self, journal: Journal) -> None:
        made = [await hold(journal, held(created_ms=NOW_MS + n)) for n in range(7)]
        assert await listed(journal) == [run for [run] in reversed(made)]
        assert await listed(journal, kind="@ci") == await listed(journal, kind="") == []

    async def test_lists_of_held_runs_follow_state_definition_and_tenant(self, journal: Journal) -> None:
        owner = await Owner(journal, OWNER).start()
        one, two, three = await hold(journal, *(held(created_ms=NOW_MS + n) for n in range(3)))
        await hold(journal, held(tenant="other"))
        [four] = await hold(journal, held(dag_id="@job/bye", created_ms=NOW_MS + 3))
        await owner.commit(append(two, 1, state="running"), append(three, 1, state="cancelled"))
        assert await listed(journal) == [four, three, two, one]
        assert await listed(journal, dag_id=BLUEPRINT) == [three, two, one]
        assert await listed(journal, state="queued") == [four, one]
        assert await listed(journal, state="running") == [two]
        assert await listed(journal, state="cancelled", dag_id=BLUEPRINT) == [three]
        assert await listed(journal, run_type="job", state="failed") == []

    # erasure

    async def test_an_erased_run_is_gone_from_everywhere(self, journal: Journal) -> None:
        owner = await Owner(journal, OWNER).start()
        gone, ended, kept = await hold(journal, held(sla_ms=NOW_MS), held(), held())
        await owner.commit(
            append(gone, 1, wake_at_ms=5, tasks=(("a", "r"),)), append(ended, 1, state="failed", finished_ms=NOW_MS)
        )
        await journal.add_lines(gone, [b"x"])
        assert await journal.erase([gone, ended, "unknown", gone]) == 2
        for run in (gone, ended):
            assert await journal.summary(run) is None
            assert (await journal.events(run, 0, 10), await journal.load([run])) == ([], [])
            assert (await journal.tasks(run), await journal.lines(run, 0, 10)) == ({}, [])
        assert await journal.owned(OWNER) == await listed(journal) == await listed(journal, state="queued") == [kept]
        assert await listed(journal, state="failed") == []
        assert await journal.next_due() is None
        assert await owner.commit(append(gone, 2), append(kept, 1)) == ["missing", "ok"]

    async def test_an_erased_run_is_not_counted(self, journal: Journal) -> None:
        [one, _two] = await hold(journal, held(), held())
        await journal.erase([one])
        await journal.put_dag(put(BLUEPRINT))
        dag = await journal.dag("t", BLUEPRINT)
        assert dag is not None
        assert dag.run_counts == {"queued": 1}

    async def test_an_erased_run_can_be_created_again(self, journal: Journal) -> None:
        run = held()
        await hold(journal, run)
        await journal.erase([run.run_id])
        await hold(journal, run)
        assert await listed(journal) == await journal.owned(OWNER) == [run.run_id]
        assert len(await journal.events(run.run_id, 0, 10)) == 1

    async def test_an_ordinary_run_is_erased_only_when_it_has_ended_and_has_no_window(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        open_, ended, window = await create(journal, new_run(), new_run(), new_run("2025-01-01"))
        backfill = new_backfill(create_windows(["2025-02-01"]))
        assert (await journal.create_backfill(backfill)).status == "created"
        [child] = [row.run_id for row in await journal.children(backfill.run_id)]
        over = {"state": "cancelled", "finished_ms": NOW_MS}
        await owner.commit(*(append(run, 1, **over) for run in (ended, window, child, backfill.run_id)))
        assert await journal.erase([open_, ended, window, child, backfill.run_id]) == 1
        assert await journal.summary(ended) is None
        assert {row.run_id for row in await journal.children(backfill.run_id)} == {child}
        assert set(await journal.by_window("t", "d", ["2025-01-01/2025-01-01"])) == {"2025-01-01/2025-01-01"}

    async def test_many_runs_are_erased_in_one_call(self, journal: Journal) -> None:
        runs = await hold(journal, *(held() for _ in range(600)))
        assert await journal.erase(runs) == 600
        assert await listed(journal) == []

    # records

    async def test_records_are_kept_replaced_and_removed(self, journal: Journal) -> None:
        await journal.put_records("worker", {"a": b'{"n":1}', "b": '{"n":"é"}'.encode(), "c": b"3"})
        await journal.put_records("worker", {"a": b'{"n":2}', "c": None, "never": None})
        await journal.put_records("runner", {"a": b"{}"})
        await journal.put_records("worker", {})
        assert await journal.records("worker") == {"a": b'{"n":2}', "b": '{"n":"é"}'.encode()}
        assert await journal.record("worker", "a") == b'{"n":2}'
        assert await journal.record("worker", "c") is None
        assert await journal.record("nothing", "a") is None
        assert await journal.records("nothing") == {}

    async def test_thousands_of_records_fit_one_step(self, journal: Journal) -> None:
        many = {f"w{n}": b'{"id":%d}' % n for n in range(2_500)}
        await journal.put_records("worker", many)
        assert await journal.records("worker") == many
        await journal.put_records("worker", dict.fromkeys(many))
        assert await journal.records("worker") == {}

    # lines

    async def test_lines_are_numbered_from_one_and_read_from_any_number(self, journal: Journal) -> None:
        [run] = await hold(journal, held())
        assert await journal.add_lines(run, [b'{"n":1}', '{"n":"é"}'.encode()]) == 2
        assert await journal.add_lines(run, [b"3", b"4"]) == 4
        assert await journal.lines(run, 0, 10) == [b'{"n":1}', '{"n":"é"}'.encode(), b"3", b"4"]
        assert await journal.lines(run, 1, 2) == ['{"n":"é"}'.encode(), b"3"]
        assert (
            await journal.lines(run, 4, 10) == await journal.lines(run, 9, 10) == await journal.lines(run, 0, 0) == []
        )

    @pytest.mark.parametrize("state", ["running", "succeeded"])
    async def test_new_lines_wake_who_follows_the_run(self, journal: Journal, state: str) -> None:
        owner = await Owner(journal, OWNER).start()
        [run] = await hold(journal, held())
        await owner.commit(append(run, 1, state=state, finished_ms=NOW_MS))
        before = await journal.position(streams.FEED)
        await journal.add_lines(run, [b"late"])
        [entry] = await journal.tail(streams.FEED, before, 0)
        assert codec.decode_feed(entry.item) == [(run, 2, state)]

    async def test_thousands_of_lines_fit_one_step(self, journal: Journal) -> None:
        [run] = await hold(journal, held())
        many = [b"%d" % n for n in range(2_500)]
        assert await journal.add_lines(run, many) == 2_500
        assert await journal.lines(run, 0, 5_000) == many

    async def test_lines_of_no_run_are_not_kept(self, journal: Journal) -> None:
        assert await journal.add_lines("unknown", [b"x"]) == 0
        assert await journal.lines("unknown", 0, 10) == []
        assert await journal.tail(streams.FEED, "0-0", 0) == []

    # rates

    async def test_at_most_so_many_pass_in_a_window_and_the_next_is_told_when(self, journal: Journal) -> None:
        assert [await journal.ask_leave("k", 3, 60_000) for _ in range(3)] == [0, 0, 0]
        for _ in range(3):
            assert 55_000 < await journal.ask_leave("k", 3, 60_000) <= 60_000
        assert await journal.ask_leave("other", 3, 60_000) == 0

    async def test_who_waited_as_long_as_told_may_ask_again(self, journal: Journal) -> None:
        for _ in range(3):
            assert [await journal.ask_leave("k", 2, 80) for _ in range(2)] == [0, 0]
            wait_ms = await journal.ask_leave("k", 2, 80)
            assert 0 < wait_ms <= 80, "what was refused does not count"
            await asyncio.sleep(wait_ms / 1000 + 0.03)

    async def test_of_many_at_once_exactly_so_many_pass(self, journal: Journal) -> None:
        waits = await asyncio.gather(*(journal.ask_leave("k", 20, 60_000) for _ in range(50)))
        assert sum(wait == 0 for wait in waits) == 20

    async def test_a_limit_that_was_changed_holds_at_once(self, journal: Journal) -> None:
        assert [await journal.ask_leave("k", 5, 60_000) for _ in range(5)] == [0] * 5
        assert await journal.ask_leave("k", 2, 60_000) > 0
        assert [bool(await journal.ask_leave("k", 6, 60_000)) for _ in range(2)] == [False, True]
