"""From the journal's integers to Prometheus families."""

from __future__ import annotations

from serve_app.figures import families, http_counts
from serve_app.health import exposition
from serve_app.ports import Observation


def text(counters: dict[str, int], load: dict[str, int] | None = None) -> list[str]:
    return exposition(families(counters, load)).decode().splitlines()


def test_ends_are_labelled_as_the_surface_names_them() -> None:
    lines = text({"runs_total|d|succeeded": 2, "runs_total|d|failed": 1, "runs_total|d|timed_out": 3})
    assert 'runs_total{dag="d",state="success"} 2.0' in lines
    assert 'runs_total{dag="d",state="failed"} 4.0' in lines


def test_a_histogram_sums_its_buckets_up() -> None:
    base = "run_latency_seconds|d|"
    lines = text({f"{base}le|0.005": 1, f"{base}le|1": 2, f"{base}sum_ms": 5500, f"{base}count": 4})
    assert 'run_latency_seconds_bucket{dag="d",le="0.005"} 1.0' in lines
    assert 'run_latency_seconds_bucket{dag="d",le="0.5"} 1.0' in lines
    assert 'run_latency_seconds_bucket{dag="d",le="1.0"} 3.0' in lines
    assert 'run_latency_seconds_bucket{dag="d",le="+Inf"} 4.0' in lines
    assert 'run_latency_seconds_sum{dag="d"} 5.5' in lines


def test_requests_of_all_replicas_add_up() -> None:
    counters: dict[str, int] = {}
    for seconds in (0.004, 0.004, 0.2, 9.0):
        for name, n in http_counts([Observation("GET", "/runs/{run_id}", 200, seconds)]):
            counters[name] = counters.get(name, 0) + n
    lines = text(counters)
    labels = 'method="GET",route="/runs/{run_id}",status_code="200"'
    assert f'http_request_duration_seconds_bucket{{le="0.005",{labels}}} 2.0' in lines
    assert f'http_request_duration_seconds_bucket{{le="5.0",{labels}}} 3.0' in lines
    assert f"http_request_duration_seconds_count{{{labels}}} 4.0" in lines


def test_what_waits_is_told_when_the_scheduler_can_say() -> None:
    lines = text({}, {"workers": 2, "waiting_tasks": 7, "queued_runs": 3, "active_runs": 4})
    assert "orchestrator_active_workers 2.0" in lines
    assert "orchestrator_task_queue_length 7.0" in lines
    assert not [line for line in text({}) if line.startswith("orchestrator_active_workers ")]
