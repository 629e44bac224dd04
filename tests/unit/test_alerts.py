"""When alerts fire: `promtool test rules` plays series to the rules, as Prometheus would."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.unit.test_watched import RULES, RULES_FILE
from tests.watched import promtool

UP = 'up{job="orchestrator",instance="a"}'
#: labels of a scrape at one address
AT = 'job="orchestrator",instance="a"'
#: samples a minute apart: nothing yet, then so many at once, as a counter is first seen
BORN = "_x70 {n}x60"


def series(metric: str, values: str, **labels: str) -> dict[str, str]:
    more = "".join(f',{name}="{value}"' for name, value in labels.items())
    return {f"{metric}{{{AT}{more}}}": values}


#: what a server that does nothing tells
IDLE = {
    UP: "1x130",
    **series("orchestrator_queued_runs", "0x130"),
    **series("orchestrator_active_runs", "0x130"),
    **series("orchestrator_task_queue_length", "0x130"),
    **series("orchestrator_active_workers", "2x130"),
    **series("orchestrator_workers", "2x130", pool="default", state="idle"),
    **series("pool_queue_length", "0x130", pool="default"),
    **series("orchestrator_plane_in_charge", "1x130"),
    **series("orchestrator_plane_lease_age_seconds", "2x130"),
    **series("http_request_duration_seconds_count", "1+4x130", method="GET", route="/metrics", status_code="200"),
    **series(
        "http_request_duration_seconds_bucket", "0x130", method="GET", route="/metrics", status_code="200", le="1.0"
    ),
    **{
        name: values
        for metric in ("orchestrator_archive_sweeps_total", "orchestrator_artifact_sweeps_total")
        for end in ("done", "failed", "put_off")
        for name, values in series(metric, "0x130", end=end).items()
    },
}


def firing(folder: Path, given: dict[str, str], *expected: tuple[str, set[str]]) -> None:
    """At each of these times (such as `20m`), after the start, exactly these alerts fire."""
    told = [{"series": name, "values": values} for name, values in given.items()]
    checks = [
        {
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": at,
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)],
        }
        for at, names in expected
    ]
    test = {"interval": "1m", "input_series": told, "promql_expr_test": checks}
    file = folder / "fired.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES_FILE)], "evaluation_interval": "1m", "tests": [test]}))
    promtool("test", "rules", str(file))


def test_nothing_fires_on_a_server_that_does_nothing(tmp_path: Path) -> None:
    firing(tmp_path, IDLE, *((at, set()) for at in ("0m", "1m", "5m", "20m", "60m")))


def counted(n: int, metric: str = "runs_total", **labels: str) -> dict[str, str]:
    """A counter that is first seen with that number."""
    return series(metric, BORN.format(n=n), **labels)


@pytest.mark.parametrize(
    ("alert", "metric", "n", "labels"),
    [
        ("OrchestratorSlaMissed", "sla_breaches_total", 1, {"dag": "d"}),
        ("OrchestratorSlaMissed", "task_sla_breaches_total", 1, {"dag": "d"}),
        ("OrchestratorFiresDropped", "schedule_fires_dropped_total", 1, {"dag": "d", "reason": "missed"}),
        ("OrchestratorWorkersLost", "orchestrator_task_retries_total", 10, {"dag": "d", "reason": "lost"}),
        ("OrchestratorRunsFail", "runs_total", 3, {"dag": "d", "state": "failed"}),
    ],
)
def test_the_first_time_that_something_goes_wrong_is_told_too(
    tmp_path: Path, alert: str, metric: str, n: int, labels: dict[str, str]
) -> None:
    given = IDLE | counted(n, metric, **labels)
    firing(tmp_path, given, ("69m", set()), ("74m", {alert}))


def test_what_was_counted_before_prometheus_came_is_not_told(tmp_path: Path) -> None:
    given = IDLE | series("sla_breaches_total", "7x60", dag="d") | series("runs_total", "9x60", dag="d", state="failed")
    given |= series("schedule_fires_dropped_total", "7x60", dag="d", reason="missed")
    given |= series("orchestrator_task_retries_total", "70x60", dag="d", reason="lost")
    firing(tmp_path, given, *((at, set()) for at in ("0m", "1m", "14m", "31m", "60m")))


def test_what_was_counted_before_the_server_was_away_is_not_told_when_it_is_back(tmp_path: Path) -> None:
    given = IDLE | {UP: "1x4 0x24 1x100"} | series("sla_breaches_total", "7x4 stale _x24 7x100", dag="d")
    firing(tmp_path, given, ("20m", {"OrchestratorDown"}), *((at, set()) for at in ("30m", "40m", "50m")))


def test_runs_fail_when_most_of_several_do(tmp_path: Path) -> None:
    fine = counted(9, dag="d", state="success")
    firing(tmp_path, IDLE | fine | counted(3, dag="d", state="failed"), ("74m", set()))
    firing(tmp_path, IDLE | counted(2, dag="d", state="failed"), ("74m", set()))
    growing = series("runs_total", "0+1x60", dag="d", state="failed") | series(
        "runs_total", "5x60", dag="d", state="success"
    )
    firing(tmp_path, IDLE | growing, ("2m", set()), ("24m", {"OrchestratorRunsFail"}))


def test_a_pool_is_starved_when_its_tasks_have_waited_long_for_its_first_worker(tmp_path: Path) -> None:
    waits = series("pool_queue_length", "_x10 3x50", pool="gpu")
    starved = {"OrchestratorPoolStarved"}
    firing(tmp_path, IDLE | waits, ("11m", set()), ("14m", set()), ("30m", starved))
    comes = series("orchestrator_workers", "_x12 1x48", pool="gpu", state="busy")
    firing(tmp_path, IDLE | waits | comes, ("11m", set()), ("30m", set()))


@pytest.mark.parametrize(
    ("alert", "at", "given"),
    [
        ("OrchestratorDown", "30m", {UP: "1x20 0x40"}),
        ("OrchestratorDown", "30m", {UP: "1x20 stale"}),
        ("OrchestratorSchedulerSilent", "30m", series("orchestrator_queued_runs", "0x20 stale")),
        ("OrchestratorNobodyInCharge", "30m", series("orchestrator_plane_lease_age_seconds", "1x20 60+60x40")),
        (
            "OrchestratorNoWorkers",
            "30m",
            series("orchestrator_active_workers", "2x20 0x40") | series("orchestrator_task_queue_length", "0x20 5x40"),
        ),
        ("OrchestratorQueueGrows", "50m", series("orchestrator_task_queue_length", "0x5 100+10x55")),
        (
            "OrchestratorWaitsTakeLong",
            "30m",
            {
                name: values
                for le, values in (("3600.0", "0x60"), ("+Inf", "0+1x60"))
                for name, values in series(
                    "orchestrator_task_wait_seconds_bucket", values, kind="approval", le=le
                ).items()
            },
        ),
        (
            "OrchestratorApiErrors",
            "30m",
            series("http_request_duration_seconds_count", "0x10 0+2x50", method="GET", route="/r", status_code="503"),
        ),
        (
            "OrchestratorApiSlow",
            "40m",
            {
                name: values
                for le, values in (("1.0", "0x60"), ("5.0", "0+9x60"), ("+Inf", "0+9x60"))
                for name, values in series(
                    "http_request_duration_seconds_bucket", values, method="POST", route="/r", status_code="200", le=le
                ).items()
            },
        ),
        ("OrchestratorArchiveFails", "30m", series("orchestrator_archive_sweeps_total", "0x20 1x40", end="failed")),
        ("OrchestratorArtifactsStay", "30m", series("orchestrator_artifact_sweeps_total", "0x20 6x40", end="put_off")),
        ("OrchestratorMetricsFull", "30m", series("runs_total", "1x60", dag="other", state="success")),
    ],
)
def test_an_alert_fires_alone_when_it_should(tmp_path: Path, alert: str, at: str, given: dict[str, str]) -> None:
    firing(tmp_path, IDLE | given, (at, {alert}))


def test_each_alert_is_seen_to_fire_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [rule["alert"] for rule in RULES if f'"{rule["alert"]}"' not in text] == []
