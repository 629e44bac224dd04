"""orchestrator.reclaim: whose folders are looked at; the rules as a whole: `tests/property/test_reclaim_laws.py`."""

from __future__ import annotations

import pytest

from orchestrator import ids, reclaim
from orchestrator.reclaim import ArtifactSweep, Tally


@pytest.mark.parametrize(
    "name",
    [
        ids.run_id(1_700_000_000_000, 1, 2),
        ids.run_id(1_700_000_000_000, 1, 2).removeprefix("run_"),
        ids.instance_id(1_700_000_000_000, 1, 2),
        "6f2f1b1e-0d6c-4c0a-9a3b-0123456789ab",
    ],
)
def test_folders_of_runs_instances_and_jobs_are_known_by_their_names(name: str) -> None:
    assert reclaim.names_a_run(name)


@pytest.mark.parametrize(
    "name", ["", "data", "lost+found", ".swept-by", "run_1", "run_" + "0" * 23, "run_../x", "٣" * 22]
)
def test_nothing_else_is(name: str) -> None:
    assert not reclaim.names_a_run(name)


def test_a_sweep_is_read_as_it_was_written() -> None:
    sweep = ArtifactSweep(id="one", before_ms=5, dry_run=True, state="done", gone=Tally(1, 2), there=Tally(3, 4))
    late = ArtifactSweep(id="late", before_ms=5, asked_ms=9)
    assert reclaim.SWEEPS.in_order({each.id: reclaim.SWEEPS.encode(each) for each in (late, sweep)}) == [sweep, late]
    assert [sweep.open, late.open] == [False, True]
