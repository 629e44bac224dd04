"""actors.scheduler_actor: weights of tenants are told on when they change, and only then."""

from __future__ import annotations

from actors.clock import Clock
from actors.scheduler_actor import SchedulerActor, _Host
from actors.settings import Settings
from orchestrator import codec
from tests.fakes_journal import MemoryJournal
from tests.unit.actors.test_supervisor import NoPeers


async def test_a_weight_that_was_taken_back_is_told_once() -> None:
    scheduler = SchedulerActor(MemoryJournal(), NoPeers(), Clock(), Settings())  # type: ignore[arg-type]  # asked nothing
    host = scheduler._hosts["run-actor-0"] = _Host("run-actor-0")
    told = []
    for records in ({"acme": codec.encode_share(2.0)}, {}, {}):
        scheduler._take_weights(records)
        told.append((host.weights_due, dict(scheduler._weights)))
        scheduler._shares_for(host)
    assert told == [(True, {"acme": 2.0}), (True, {"acme": 1.0}), (False, {"acme": 1.0})]
