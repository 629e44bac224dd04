"""Whatever dies and whenever: each webhook arrives, and once per id unless a crash cut off the record of its answer."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.virtual_time import virtually
from tests.webhook_stage import Stage

HOSTS = ("a.example", "b.example")
#: what happens, to which receiver, and how long nothing else does
_steps = st.lists(
    st.tuples(
        st.sampled_from(["tell", "tell", "tell", "down", "up", "hang", "restart", "journal", "twice"]),
        st.sampled_from(HOSTS),
        st.sampled_from([0.0, 1.0, 11.0, 700.0, 3000.0]),
    ),
    min_size=6,
    max_size=25,
)


async def _play(steps: list[tuple[str, str, float]]) -> tuple[Stage, int]:
    stage, told = Stage(), 0
    await stage.outbox.ping()
    for kind, host, wait_s in steps:
        receiver = stage.receiver
        match kind:
            case "tell" | "twice":
                await stage.tell(told, *([told] if kind == "twice" else []), host=host)
                told += 1
            case "down":
                receiver.down.add(host)
            case "hang":
                receiver.hanging.add(host)
            case "up":
                receiver.down.discard(host)
                receiver.hanging.discard(host)
            case "restart":
                await stage.restart()
            case "journal":
                stage.journal.failing = [False, True, False]
                await asyncio.sleep(2.0)  # only the outbox is to meet it
                stage.journal.failing = []
        await asyncio.sleep(wait_s)
    stage.receiver.down.clear()
    stage.receiver.hanging.clear()
    await asyncio.sleep(32 * 60)
    return stage, told


@settings(max_examples=100, deadline=None)
@given(_steps)
def test_every_webhook_arrives_once_its_receiver_is_there(steps: list[tuple[str, str, float]]) -> None:
    async def story() -> None:
        stage, told = await _play(steps)
        assert set(stage.receiver.ids) == {f"msg_{n}" for n in range(told)}
        if all(kind != "restart" for kind, *_ in steps):
            assert set(stage.receiver.ids.values()) <= {1}
        assert await stage.outbox.ping() == 0
        assert set(await stage.states()) <= {"delivered"}
        assert stage.crashes == 0
        assert not stage.outbox._busy
        assert not stage.outbox._parked

    virtually(story())
