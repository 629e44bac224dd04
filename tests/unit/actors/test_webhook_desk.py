"""What API replicas ask the outbox of webhooks: its log by tenant and status, another try, and nothing at all."""

from __future__ import annotations

import asyncio

import pytest

from actors.webhook_desk import WebhookDesk
from actors.webhooks import BODY, RECORD
from orchestrator import outside_codec
from orchestrator import webhook_messages as wm
from orchestrator.errors import ActorUnreachable
from orchestrator.webhook import DEAD, DELIVERED, PENDING
from tests.virtual_time import virtually
from tests.webhook_stage import HOUR_S, Stage


async def ask(stage: Stage, request: wm.Request) -> wm.Answer:
    blob = await WebhookDesk(stage.outbox).ask(outside_codec.encode_webhook_request(request))
    return outside_codec.decode_webhook_answer(blob)


async def ids(stage: Stage, tenant: str = "t", limit: int = 10, state: str | None = None) -> list[str]:
    return [each.id for each in (await ask(stage, wm.Deliveries(tenant, limit, state))).deliveries]


async def one_of_each(stage: Stage) -> None:
    """msg_1 is dead, msg_2 delivered, msg_3 pending; all are of tenant `t`, and msg_4 of another one."""
    stage.receiver.down.add("dead.example")
    await stage.tell(1, host="dead.example")
    await asyncio.sleep(HOUR_S)
    await stage.tell(2)
    await asyncio.sleep(1)
    stage.receiver.down.add("late.example")
    await stage.tell(3, host="late.example")
    await stage.tell(4, tenant="other")
    await asyncio.sleep(1)


def test_the_log_is_by_tenant_and_status_newest_first() -> None:
    async def story() -> None:
        stage = Stage()
        await one_of_each(stage)
        assert await ids(stage) == ["msg_3", "msg_2", "msg_1"]
        assert await ids(stage, limit=2) == ["msg_3", "msg_2"]
        assert [await ids(stage, state=each) for each in (DEAD, DELIVERED, PENDING)] == [
            ["msg_1"],
            ["msg_2"],
            ["msg_3"],
        ]
        assert await ids(stage, "other") == ["msg_4"]
        assert await ids(stage, "nobody") == []
        [dead] = (await ask(stage, wm.Deliveries("t", 10, DEAD))).deliveries
        assert dead.log[0].error == "ConnectError: refused"
        await stage.restart()
        assert await ids(stage) == ["msg_3", "msg_2", "msg_1"]

    virtually(story())


def test_a_dead_letter_is_tried_again_by_its_tenant_alone_and_once() -> None:
    async def story() -> None:
        stage = Stage()
        await one_of_each(stage)
        stage.receiver.down.clear()
        assert (await ask(stage, wm.Again("other", "msg_1"))).refused == "not_found"
        assert (await ask(stage, wm.Again("t", "msg_9"))).refused == "not_found"
        assert await ask(stage, wm.Again("t", "msg_2")) == wm.Answer(refused="conflict", message=DELIVERED)
        first, second = await asyncio.gather(*(ask(stage, wm.Again("t", "msg_1")) for _ in range(2)))
        assert [(each.state, each.attempts) for each in first.deliveries] == [(PENDING, 0)]
        assert second == wm.Answer(refused="conflict", message=PENDING)
        await asyncio.sleep(1)
        assert stage.receiver.ids["msg_1"] == 1
        assert await ids(stage, state=DEAD) == []

    virtually(story())


def test_a_flush_leaves_no_delivery_and_nothing_is_tried_afterwards() -> None:
    async def story() -> None:
        stage = Stage()
        await one_of_each(stage)
        assert await ask(stage, wm.Flush()) == wm.Answer()
        assert await stage.journal.records(RECORD) == await stage.journal.records(BODY) == {}
        missed = len(stage.receiver.missed)
        await asyncio.sleep(HOUR_S)
        assert (await ids(stage), len(stage.receiver.missed)) == ([], missed)

    virtually(story())


def test_a_flush_takes_notices_too_that_are_on_their_way() -> None:
    async def story() -> None:
        stage = Stage()
        await stage.tell(1)
        await asyncio.sleep(1)
        stage.receiver.down.add("a.example")
        await stage.tell(2)
        await ask(stage, wm.Flush())
        await asyncio.sleep(HOUR_S)
        assert (await ids(stage), stage.receiver.missed) == ([], [])
        assert await stage.journal.records(RECORD) == await stage.journal.records(BODY) == {}

    virtually(story())


def test_an_outbox_that_was_replaced_changes_nothing() -> None:
    async def story() -> None:
        stage = Stage()
        await one_of_each(stage)
        old = WebhookDesk(stage.outbox)
        stage.outbox = stage.start()
        await stage.outbox.ping()
        with pytest.raises(ActorUnreachable):
            await old.ask(outside_codec.encode_webhook_request(wm.Again("t", "msg_1")))
        assert await ids(stage, state=DEAD) == ["msg_1"]

    virtually(story())
