"""orchestrator.kubernetes_job: what an attempt becomes, and what its end means."""

from __future__ import annotations

import hashlib
from typing import Any

import kubernetes_validate
import msgspec
import pytest

from orchestrator.errors import PermanentFailure
from orchestrator.kubernetes_job import ERROR_MAX, End, end_of, job_name, job_of, told
from tests.kubernetes_api import RELEASE, environment_of, faults_of
from tests.kubernetes_builders import RUN, an_order


def container(**changes: Any) -> dict[str, Any]:
    job = job_of(an_order(**changes), "")
    [one] = job["spec"]["template"]["spec"]["containers"]
    return dict(one)


def params(**changes: Any) -> Any:
    return msgspec.json.decode(environment_of(job_of(an_order(**changes), ""))["ORCH_PARAMS"])


def ended(kind: str, reason: str = "", message: str = "", status: str = "True") -> dict[str, Any]:
    return {"status": {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}}


def pod(**ended: Any) -> dict[str, Any]:
    sidecar = {"name": "proxy", "state": {"terminated": {"exitCode": 9}}}
    return {"status": {"containerStatuses": [sidecar, {"name": "task", "state": {"terminated": ended}}]}}


# ── the Job ──


def test_the_name_is_of_the_attempt_and_of_no_other() -> None:
    digest = hashlib.sha256(b"BCbPVCdF3kqz/extract/2").hexdigest()
    assert job_name(("BCbPVCdF3kqz", "extract", 2)) == f"orch-{digest[:20]}"
    assert job_of(an_order("extract", 2), "")["metadata"]["name"] == job_name((RUN, "extract", 2))
    assert (
        len({job_name(("r", "t", 1)), job_name(("r", "t", 2)), job_name(("r", "u", 1)), job_name(("s", "t", 1))}) == 4
    )


def test_the_job_says_of_which_run_task_and_attempt_it_is() -> None:
    about = job_of(an_order("Load_All.2", 3), "")["metadata"]
    assert about["labels"] == {"orchestrator/run-id": RUN}
    assert about["annotations"] == {"orchestrator/task-id": "Load_All.2", "orchestrator/attempt": "3"}


def test_the_cluster_runs_it_once_for_as_long_as_it_may_take_and_keeps_it_for_an_hour() -> None:
    spec = job_of(an_order(timeout_s=90.2), "")["spec"]
    assert spec["backoffLimit"] == 0
    assert spec["activeDeadlineSeconds"] == 91
    assert spec["ttlSecondsAfterFinished"] == 3600
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_a_time_limit_below_a_second_is_one_that_the_api_accepts() -> None:
    assert job_of(an_order(timeout_s=0.05), "")["spec"]["activeDeadlineSeconds"] == 1


@pytest.mark.parametrize("changes", [{}, {"command": ("sh", "-c", "true")}, {"task": "A" * 63, "attempt": 12}])
def test_the_job_is_what_the_published_types_allow(changes: dict[str, Any]) -> None:
    assert faults_of(job_of(an_order(**changes), "")) == ""


def test_an_unknown_field_would_be_noticed() -> None:
    job = job_of(an_order(), "")
    job["spec"]["activeDeadLineSeconds"] = 5
    with pytest.raises(kubernetes_validate.ValidationError, match="activeDeadLineSeconds"):
        kubernetes_validate.validate(job, RELEASE, strict=True)


def test_the_image_is_the_nodes_else_the_servers() -> None:
    assert container(image="mine:1")["image"] == "mine:1"
    job = job_of(an_order(image=None), "ours:2")
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "ours:2"


def test_without_any_image_there_is_no_job() -> None:
    with pytest.raises(PermanentFailure, match="names no image"):
        job_of(an_order(image=None), "")


def test_the_command_is_the_nodes_else_the_images() -> None:
    assert container(command=("sh", "-c", "echo $(ORCH_PARAMS)"))["command"] == ["sh", "-c", "echo $(ORCH_PARAMS)"]
    assert "command" not in container()


def test_the_container_is_told_what_to_do() -> None:
    told = environment_of(job_of(an_order("a", 2, type="acme.load", params={"n": 5}), ""))
    assert told == {
        "ORCH_RUN_ID": RUN,
        "ORCH_TASK_ID": "a",
        "ORCH_ATTEMPT": "2",
        "ORCH_TYPE": "acme.load",
        "ORCH_PARAMS": '{"n":5}',
    }


def test_params_reach_the_container_as_they_are_whatever_kubernetes_reads_into_dollars() -> None:
    text = "$(ORCH_RUN_ID) $$ $$(X) $( $ é"
    assert params(params={"text": text}) == {"text": text}


def test_the_runs_params_are_merged_over_the_tasks_own_and_templates_are_filled() -> None:
    run_params, window = {"n": 7, "more": True}, ("2026-01-01", "2026-01-02")
    assert params(params={"n": 1, "day": "{{ from }}"}, run_params=run_params, window=window) == {
        "n": 7,
        "day": "2026-01-01",
        "more": True,
    }


def test_params_that_cannot_be_bound_make_no_job() -> None:
    with pytest.raises(PermanentFailure, match="no window"):
        job_of(an_order(params={"day": "{{ from }}"}), "")


# ── its end ──


def test_a_job_without_a_final_condition_goes_on() -> None:
    assert end_of({}) is None
    assert end_of({"status": {"active": 1}}) is None
    assert end_of(ended("Suspended")) is None
    assert end_of(ended("Complete", status="False")) is None


@pytest.mark.parametrize("kind", ["SuccessCriteriaMet", "FailureTarget"])
def test_what_the_controller_is_about_to_say_is_no_end(kind: str) -> None:
    assert end_of(ended(kind)) is None


def test_complete_failed_and_overrun_are_three_ends() -> None:
    assert end_of(ended("Complete", "CompletionsReached")) == End("complete")
    assert end_of(ended("Failed", "BackoffLimitExceeded", "limit")) == End("failed", "BackoffLimitExceeded: limit")
    assert end_of(ended("Failed", "DeadlineExceeded")) == End("timed_out", "DeadlineExceeded")


def test_the_error_is_what_the_container_said_last() -> None:
    end = End("failed", "BackoffLimitExceeded: limit")
    assert (
        told(end, pod(exitCode=3, reason="Error", message="no\n such table\n"))
        == "JobFailed: exit code 3: no such table"
    )
    assert told(end, pod(exitCode=137, reason="OOMKilled")) == "JobFailed: exit code 137 (OOMKilled)"


def test_an_evicted_pod_says_why() -> None:
    evicted = {"status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}}
    assert told(End("failed", "BackoffLimitExceeded"), evicted) == "JobFailed: Evicted: The node was low on memory."


def test_without_a_pod_the_error_is_what_the_cluster_says() -> None:
    assert told(End("failed", "BackoffLimitExceeded: limit"), None) == "JobFailed: BackoffLimitExceeded: limit"
    assert told(End("timed_out", "DeadlineExceeded"), pod(exitCode=143)) == "JobTimedOut: DeadlineExceeded"
    assert told(End("gone", "deleted"), None) == "JobGone: deleted"


def test_an_error_has_an_end() -> None:
    error = told(End("failed"), pod(exitCode=1, message="x" * 5000))
    assert len(error) == ERROR_MAX
    assert error.endswith("…")
