"""A scheduler keeps nothing of runs that have ended, whatever was killed, lost, late or twice.

But for visitors (`actors/hosts.py`), which go when their RunActor tells of something half a minute later.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.world import World


@pytest.mark.parametrize("first", [0, 20_000])
def test_nothing_is_kept_of_runs_that_have_ended(first: int) -> None:
    looked = 0
    for seed in range(first, first + 20):
        process = World(seed, 20).play().wire.processes.get("scheduler")
        if process is None:
            continue  # it was killed last
        looked += 1
        scheduler: Any = process.object
        hosts, kept = scheduler._hosts, scheduler._queue._known
        visitors = {run_id for host in hosts.by_name.values() for run_id in host.visitors}
        assert {run_id for host in hosts.by_name.values() for run_id in host.runs} == set(hosts._placed) == visitors
        assert not [*kept, *hosts._given, *hosts._woken, *hosts._visiting]
        assert {name.partition("\n")[0] for name in scheduler._slots._served} <= set(hosts.by_name)
        assert all(host.standing for host in hosts.by_name.values())
        assert not [*scheduler._refusals._refused, *scheduler._refusals._pauses_s, *scheduler._admissions._shapes]
    assert looked > 10
