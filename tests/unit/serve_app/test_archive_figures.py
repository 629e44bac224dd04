"""Metrics of the archive: counted where it happens, there from the start."""

from __future__ import annotations

from orchestrator.archive import Sweep
from serve_app.archive_figures import families
from serve_app.health import exposition


def lines(counters: dict[str, int], *sweeps: Sweep) -> list[str]:
    return exposition([*families(counters, sweeps, 100_000)]).decode().splitlines()


def a_sweep(state: str, updated_ms: int) -> Sweep:
    return Sweep(id=f"s{updated_ms}", before_ms=0, to="", state=state, updated_ms=updated_ms)


def test_a_failure_is_there_as_zero_before_it_happens() -> None:
    text = lines({})
    assert 'orchestrator_archive_sweeps_total{end="failed"} 0.0' in text
    assert 'orchestrator_archive_runs_total{kind="backfill"} 0.0' in text
    assert "orchestrator_archive_bytes_total 0.0" in text


def test_what_was_counted_is_told() -> None:
    text = lines({"archive_runs": 7, "archive_segments": 2, "archive_sweeps_put_off": 3})
    assert 'orchestrator_archive_runs_total{kind="run"} 7.0' in text
    assert "orchestrator_archive_segments_total 2.0" in text
    assert 'orchestrator_archive_sweeps_total{end="put_off"} 3.0' in text


def test_the_age_is_that_of_the_last_sweep_that_was_done() -> None:
    text = lines({}, a_sweep("done", 40_000), a_sweep("done", 70_000), a_sweep("failed", 90_000))
    assert "orchestrator_archive_last_sweep_age_seconds 30.0" in text


def test_there_is_no_age_before_a_sweep_was_done() -> None:
    assert not [each for each in lines({}, a_sweep("failed", 1)) if each.startswith("orchestrator_archive_last")]
