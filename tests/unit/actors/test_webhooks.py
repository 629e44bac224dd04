"""The outbox of webhooks in virtual time: outages, crashes, duplicates, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from actors import names, webhooks
from actors.webhooks import BODY, RECORD
from orchestrator.errors import Conflict, NotFound
from orchestrator.steps import Commit, CommitResult
from orchestrator.streams import inbox
from orchestrator.webhook import DEAD, DELIVERED, PENDING
from tests.virtual_time import virtually
from tests.webhook_stage import HOUR_S, Stage


def staged(story: Callable[[Stage], Awaitable[None]]) -> None:
    async def play() -> None:
        stage = Stage()
        await story(stage)
        assert stage.crashes == 0

    virtually(play())


def test_a_notice_is_told_at_once_byte_for_byte_and_signed() -> None:
    async def story(stage: Stage) -> None:
        await stage.tell(1)
        await asyncio.sleep(1.0)
        [(at_s, url, headers, body)] = stage.receiver.arrived
        assert at_s < 0.1
        assert (url, body) == ("https://a.example/hook", b'{"n": 1}')
        assert headers["webhook-id"] == "msg_1"
        assert headers["webhook-signature"].startswith("v1,")
        assert await stage.states() == {DELIVERED: 1}
        assert await stage.journal.records(BODY) == {}
        assert await stage.outbox.ping() == 0

    staged(story)


def test_every_attempt_has_the_same_id_and_the_waits_of_the_contract() -> None:
    async def story(stage: Stage) -> None:
        stage.receiver.status = 500
        await stage.tell(1)
        await asyncio.sleep(800.0)
        at_s = [at_s for at_s, *_ in stage.receiver.arrived]
        assert [round(b - a) for a, b in pairwise(at_s)] == [2, 4, 30, 120, 600]
        assert stage.receiver.ids == {"msg_1": 6}
        [dead] = await stage.outbox.deliveries("t")
        assert (dead.state, [each.status for each in dead.log]) == (DEAD, [500] * 6)

    staged(story)


def test_a_receiver_that_was_down_for_an_hour_gets_each_webhook_once_per_id() -> None:
    async def story(stage: Stage) -> None:
        stage.receiver.down.add("a.example")
        for n in range(100):
            await stage.tell(n)
            await asyncio.sleep(HOUR_S / 100)
        tries = len(stage.receiver.missed)
        assert tries <= 100 * 6 + 4, "dead letters are held while their receiver is down"
        stage.receiver.down.clear()
        await asyncio.sleep(16 * 60)
        assert stage.receiver.ids == {f"msg_{n}": 1 for n in range(100)}
        assert await stage.states() == {DELIVERED: 100}

    staged(story)


def test_after_an_outage_with_restarts_each_webhook_arrives_once_per_id() -> None:
    async def story(stage: Stage) -> None:
        stage.receiver.down.add("a.example")
        for n in range(40):
            await stage.tell(n)
            await asyncio.sleep(HOUR_S / 40)
            if n % 7 == 0:
                await stage.restart()
        stage.receiver.down.clear()
        await asyncio.sleep(16 * 60)
        assert stage.receiver.ids == {f"msg_{n}": 1 for n in range(40)}

    staged(story)


def test_one_success_frees_all_dead_letters_of_its_receiver_and_of_no_other() -> None:
    async def story(stage: Stage) -> None:
        stage.receiver.down |= {"a.example", "b.example"}
        await stage.tell(*range(20))
        await stage.tell(*range(20, 25), host="b.example")
        await asyncio.sleep(2 * HOUR_S)
        assert await stage.states() == {DEAD: 25}
        stage.receiver.down.clear()
        await stage.tell(99)
        await asyncio.sleep(1.0)
        assert len(stage.receiver.arrived) >= 20
        assert all(url == "https://a.example/hook" for _, url, _, _ in stage.receiver.arrived)
        await asyncio.sleep(16 * 60)
        assert stage.receiver.ids == {f"msg_{n}": 1 for n in [*range(25), 99]}

    staged(story)


def test_a_day_after_its_death_a_letter_is_left_alone_until_it_is_driven_again() -> None:
    async def story(stage: Stage) -> None:
        stage.receiver.down.add("a.example")
        await stage.tell(1)
        await asyncio.sleep(26 * HOUR_S)
        missed = len(stage.receiver.missed)
        assert missed == 6 + 96
        stage.receiver.down.clear()
        await asyncio.sleep(HOUR_S)
        assert stage.receiver.arrived == []
        again = await stage.outbox.again("t", "msg_1")
        assert again.state == PENDING
        await asyncio.sleep(1.0)
        assert stage.receiver.ids == {"msg_1": 1}
        with pytest.raises(Conflict):
            await stage.outbox.again("t", "msg_1")
        with pytest.raises(NotFound):
            await stage.outbox.again("other", "msg_1")

    staged(story)


def test_mail_that_comes_twice_is_told_once() -> None:
    async def story(stage: Stage) -> None:
        await stage.tell(1, 1)
        await asyncio.sleep(1.0)
        await stage.tell(1)
        await asyncio.sleep(1.0)
        assert stage.receiver.ids == {"msg_1": 1}

    staged(story)


def test_a_crash_before_the_cursor_moved_adds_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stage: Stage) -> None:
        await stage.outbox.ping()
        commit = stage.journal.commit

        async def stuck(wanted: Commit) -> list[CommitResult]:
            return await (commit(wanted) if wanted.owner == names.JOBS else asyncio.sleep(HOUR_S, []))

        monkeypatch.setattr(stage.journal, "commit", stuck)
        await stage.tell(1)
        await asyncio.sleep(1.0)
        assert set(await stage.journal.records(RECORD)) == {"msg_1"}
        assert stage.receiver.arrived == []
        monkeypatch.setattr(stage.journal, "commit", commit)
        await stage.restart()
        await asyncio.sleep(1.0)
        assert stage.receiver.ids == {"msg_1": 1}
        assert await stage.states() == {DELIVERED: 1}

    staged(story)


def test_a_crash_after_the_answer_and_before_its_record_repeats_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stage: Stage) -> None:
        await stage.outbox.ping()
        stage.receiver.down.add("a.example")
        await stage.tell(1)
        await asyncio.sleep(1.0)
        put = stage.journal.put_records

        async def stuck(*_: object) -> None:
            await asyncio.sleep(HOUR_S)

        stage.receiver.down.clear()
        monkeypatch.setattr(stage.journal, "put_records", stuck)
        await asyncio.sleep(2.0)
        assert stage.receiver.ids == {"msg_1": 1}
        monkeypatch.setattr(stage.journal, "put_records", put)
        await stage.restart()
        await asyncio.sleep(1.0)
        assert stage.receiver.ids == {"msg_1": 2}

    staged(story)


def test_notices_that_came_while_nobody_was_there_are_told() -> None:
    async def story(stage: Stage) -> None:
        for task in list(stage.outbox._tasks):
            task.cancel()
        await stage.tell(1, 2)
        await stage.restart()
        await asyncio.sleep(1.0)
        assert stage.receiver.ids == {"msg_1": 1, "msg_2": 1}

    staged(story)


def test_an_outage_of_the_journal_loses_nothing() -> None:
    async def story(stage: Stage) -> None:
        await stage.outbox.ping()
        await stage.tell(1, 2)
        stage.journal.failing = [False, True, False, True, False, True]
        await asyncio.sleep(10.0)
        assert set(stage.receiver.ids) == {"msg_1", "msg_2"}
        assert await stage.states() == {DELIVERED: 2}

    staged(story)


def test_what_cannot_be_read_is_not_in_the_way() -> None:
    async def story(stage: Stage) -> None:
        stage.journal._write(inbox(names.WEBHOOKS), b'[{"k":"mail","sender":"x","data":{"no":"notice"}}]')
        await stage.tell(1)
        await asyncio.sleep(1.0)
        assert stage.receiver.ids == {"msg_1": 1}

    staged(story)


def test_a_receiver_that_hangs_does_not_hold_up_the_others() -> None:
    async def story(stage: Stage) -> None:
        stage.receiver.hanging.add("slow.example")
        await stage.tell(*range(200), host="slow.example")
        await stage.tell(*range(200, 260))
        await asyncio.sleep(1.0)
        assert len(stage.receiver.arrived) == 60
        assert stage.outbox._busy == {"https://slow.example": webhooks.PER_RECEIVER}
        stage.receiver.hanging.clear()
        await asyncio.sleep(HOUR_S)
        assert len(stage.receiver.ids) == 260

    staged(story)


def test_an_error_that_nobody_thought_of_is_an_attempt_like_any_other() -> None:
    async def story(stage: Stage) -> None:
        async def broken(*_: object) -> int:
            raise RuntimeError("never seen before")

        stage.outbox._post = broken
        await stage.tell(1)
        await asyncio.sleep(1.0)
        [delivery] = await stage.outbox.deliveries("t")
        assert [attempt.error for attempt in delivery.log] == ["RuntimeError"]

    staged(story)


def test_only_the_newest_ended_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "KEPT_MAX", 3)
    monkeypatch.setattr(webhooks, "DEAD_MAX", 2)

    async def story(stage: Stage) -> None:
        for n in range(5):
            await stage.tell(n)
            await asyncio.sleep(1.0)
        stage.receiver.status = 404
        for n in range(10, 14):
            await stage.tell(n)
            await asyncio.sleep(HOUR_S)
        assert await stage.states() == {DELIVERED: 3, DEAD: 2}
        assert set(await stage.journal.records(BODY)) == {"msg_12", "msg_13"}
        found = await stage.outbox.deliveries("t")
        assert [delivery.id for delivery in found] == ["msg_13", "msg_12", "msg_4", "msg_3", "msg_2"]

    staged(story)


def test_a_tenant_sees_its_own_and_a_flush_leaves_nothing() -> None:
    async def story(stage: Stage) -> None:
        await stage.tell(1)
        await stage.tell(2, tenant="other")
        stage.receiver.down.add("c.example")
        await stage.tell(3, host="c.example")
        await asyncio.sleep(1.0)
        assert [delivery.id for delivery in await stage.outbox.deliveries("other")] == ["msg_2"]
        await stage.outbox.flush()
        await asyncio.sleep(HOUR_S)
        assert await stage.journal.records(RECORD) == await stage.journal.records(BODY) == {}
        assert len(stage.receiver.missed) == 1

    staged(story)


def test_no_secret_is_kept() -> None:
    async def story(stage: Stage) -> None:
        stage.receiver.down.add("a.example")
        await stage.tell(1)
        await asyncio.sleep(10.0)
        for kind in (RECORD, BODY):
            for record in (await stage.journal.records(kind)).values():
                assert b"t-ann" not in record

    staged(story)
