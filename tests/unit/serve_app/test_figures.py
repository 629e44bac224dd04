"""From the journal's integers to Prometheus families."""

from __future__ import annotations

from serve_app.figures import families, http_counts
from serve_app.health import exposition
from serve_app.ports import Observation


def text(
    counters: dict[str, int], load: dict[str, int] | None = None, outside: dict[str, int] | None = None
) -> list[str]:
    return exposition(families(counters, load, outside)).decode().splitlines()


def test_ends_are_labelled_as_the_surface_names_them() -> None:
    lines = text({"runs_total|d|succeeded": 2, "runs_total|d|failed": 1, "runs_total|d|timed_out": 3})
    assert 'runs_total{dag="d",state="success"} 2.0' in lines
    assert 'runs_total{dag="d",state="failed"} 4.0' in lines


def test_runs_that_others_started_are_told_by_dag() -> None:
    assert 'triggered_runs_total{dag="d"} 3.0' in text({"triggered_runs_total|d": 3})


def test_a_histogram_sums_its_buckets_up() -> None:
    base = "run_latency_seconds|d|"
    lines = text({f"{base}le|0.005": 1, f"{base}le|1": 2, f"{base}sum_ms": 5500, f"{base}count": 4})
    assert 'run_latency_seconds_bucket{dag="d",le="0.005"} 1.0' in lines
    assert 'run_latency_seconds_bucket{dag="d",le="0.5"} 1.0' in lines
    assert 'run_latency_seconds_bucket{dag="d",le="1.0"} 3.0' in lines
    assert 'run_latency_seconds_bucket{dag="d",le="+Inf"} 4.0' in lines
    assert 'run_latency_seconds_sum{dag="d"} 5.5' in lines


def test_tasks_that_had_a_known_result_and_those_that_had_none_are_counted_by_dag() -> None:
    lines = text({"task_cache_hits_total|d": 2, "task_cache_misses_total|d": 3})
    assert 'task_cache_hits_total{dag="d"} 2.0' in lines
    assert 'task_cache_misses_total{dag="d"} 3.0' in lines


def test_jobs_that_were_queued_again_are_told_by_their_reason() -> None:
    lines = text({"pipeline_jobs_lost_total|@ci": 2, "pipeline_jobs_retried_total|@ci": 3})
    assert 'pipeline_jobs_lost_total{dag="@ci"} 2.0' in lines
    assert 'pipeline_jobs_retried_total{dag="@ci"} 3.0' in lines


def test_slot_time_is_told_in_seconds_by_tenant_and_class() -> None:
    lines = text({"slot_time_ms|t|backfill": 1500})
    assert 'orchestrator_slot_seconds_total{class="backfill",tenant="t"} 1.5' in lines


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


def test_what_the_gateway_says_adds_up_with_what_the_scheduler_says() -> None:
    scheduler, gateway = {"workers": 2, "waiting_tasks": 7}, {"active_workers": 3, "task_queue_length": 1, "jobs": 9}
    both, alone = text({}, scheduler, gateway), text({}, None, gateway)
    assert ("orchestrator_active_workers 5.0" in both, "orchestrator_active_workers 3.0" in alone) == (True, True)
    assert ("orchestrator_task_queue_length 8.0" in both, "orchestrator_live_jobs 9.0" in both) == (True, True)
    assert len([line for line in both if line.startswith("orchestrator_active_workers ")]) == 1


def test_jobs_are_counted_by_blueprint_and_timed_together() -> None:
    base = "orchestrator_job_duration_seconds|"
    counters = {f"{base}le|0.5": 2, f"{base}sum_ms": 800, f"{base}count": 3}
    lines = text(counters | {"orchestrator_jobs_total|flow": 3, "orchestrator_jobs_failed_total|flow": 1})
    assert 'orchestrator_jobs_total{blueprint="flow"} 3.0' in lines
    assert 'orchestrator_jobs_failed_total{blueprint="flow"} 1.0' in lines
    assert 'orchestrator_job_duration_seconds_bucket{le="0.5"} 2.0' in lines
    assert "orchestrator_job_duration_seconds_sum 0.8" in lines
    assert "orchestrator_job_duration_seconds_count 3.0" in lines
