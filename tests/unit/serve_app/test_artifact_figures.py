"""Metrics of artifacts: counted where they go, there from the start."""

from __future__ import annotations

from orchestrator.reclaim import ArtifactSweep, Tally
from serve_app.artifact_figures import families
from serve_app.health import exposition


def lines(counters: dict[str, int], *sweeps: ArtifactSweep) -> list[str]:
    return exposition([*families(counters, sweeps)]).decode().splitlines()


def a_sweep(state: str, updated_ms: int, there: Tally) -> ArtifactSweep:
    return ArtifactSweep(id=f"s{updated_ms}", before_ms=0, state=state, updated_ms=updated_ms, there=there)


def test_what_went_is_told_and_is_there_as_zero_before() -> None:
    assert "orchestrator_artifact_removed_bytes_total 0.0" in lines({})
    text = lines({"artifact_files_removed": 3, "artifact_bytes_removed": 70, "artifact_sweeps_put_off": 2})
    assert "orchestrator_artifact_removed_files_total 3.0" in text
    assert "orchestrator_artifact_removed_bytes_total 70.0" in text
    assert 'orchestrator_artifact_sweeps_total{end="put_off"} 2.0' in text
    assert 'orchestrator_artifact_sweeps_total{end="failed"} 0.0' in text


def test_what_is_there_is_what_the_last_sweep_that_was_done_saw() -> None:
    text = lines(
        {},
        a_sweep("done", 70, Tally(2, 200)),
        a_sweep("done", 40, Tally(9, 900)),
        a_sweep("failed", 90, Tally()),
    )
    assert "orchestrator_artifact_files 2.0" in text
    assert "orchestrator_artifact_bytes 200.0" in text
    assert not [each for each in lines({}) if each.startswith("orchestrator_artifact_bytes ")], "nobody has looked yet"
