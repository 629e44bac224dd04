"""The instances surface as OpenAPI: names that generated clients depend on (contracts/instances.md 1)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.serve_app.conftest import Connect


async def document(connect: Connect) -> dict[str, Any]:
    body: dict[str, Any] = (await connect(None).get("/openapi.json")).json()
    return body


async def test_operations_have_the_names_fastapi_gives_and_their_tags(connect: Connect) -> None:
    paths = (await document(connect))["paths"]
    found = {
        operation["operationId"]: operation["tags"]
        for path, item in paths.items()
        if path.startswith(("/api/orchestrators", "/api/plans", "/health"))
        for operation in item.values()
    }
    one, plan = "api_orchestrators__instance_id_", "api_plans__plan_name_"
    assert found == {
        "health_check_health_get": ["Health"],
        "list_orchestrators_api_orchestrators_get": ["Orchestrators"],
        "start_orchestrator_api_orchestrators_post": ["Orchestrators"],
        f"get_orchestrator_{one}_get": ["Orchestrators"],
        f"get_orchestrator_status_{one}_status_get": ["Orchestrators"],
        f"pause_orchestrator_{one}_pause_post": ["Commands"],
        f"resume_orchestrator_{one}_resume_post": ["Commands"],
        f"shutdown_orchestrator_{one}_shutdown_post": ["Commands"],
        f"skip_task_{one}_skip_task_post": ["Commands"],
        f"retry_task_{one}_retry_task_post": ["Commands"],
        "list_plans_api_plans_get": ["Plans"],
        f"get_plan_status_{plan}_status_get": ["Plans"],
        f"get_plan_tasks_{plan}_tasks_get": ["Plans"],
        f"list_plan_findings_{plan}_findings_get": ["Plans"],
        f"get_finding_content_{plan}_findings__task_id__get": ["Plans"],
        f"sse_events_{one}_events_sse_get": ["Events"],
    }
    parameters = paths["/api/plans/{plan_name}/findings/{task_id}"]["get"]["parameters"]
    assert [each["name"] for each in parameters] == ["plan_name", "task_id"]


#: component -> fields: `*` required, `?` nullable and optional, otherwise the default
FIELDS: dict[str, dict[str, Any]] = {
    "HealthResponse": {"status": "healthy", "version": "1.0.0", "timestamp": "*", "orchestrators_running": 0,
                       "ok": True, "service": "orchestrator"},
    "OrchestratorInfo": {"id": "*", "pid": "*", "plan_path": "*", "plan_name": "*", "worktree_path": "?",
                         "started_at": "*", "last_heartbeat": "*", "status": "*", "socket_path": "?", "is_alive": "*",
                         "is_stale": "*", "exit_reason": "?", "executor": "?"},
    "StatusResponse": {"instance_id": "*", "plan_path": "*", "plan_name": "*", "status": "*", "summary": "*",
                       "tasks": [], "phases": [], "started_at": "?", "iteration": 0, "max_iterations": 0,
                       "exit_reason": "?"},
    "StatusSummary": {"total_tasks": 0, "completed": 0, "pending": 0, "in_progress": 0, "failed": 0, "skipped": 0,
                      "current_phase": "?", "progress_percent": 0.0},
    "TaskInfo": {"id": "*", "description": "*", "status": "*", "phase": "?", "retry_count": 0, "last_error": "?",
                 "started_at": "?", "completed_at": "?"},
    "PhaseSummary": {"phase_number": "*", "name": "*", "total_tasks": "*", "completed_tasks": "*",
                     "pending_tasks": "*", "failed_tasks": "*", "is_current": False},
    "PlanInfo": {"name": "*", "path": "*", "has_status": False, "last_modified": "?", "output_dir": "?"},
    "FindingInfo": {"task_id": "*", "file_path": "*", "size_bytes": "*", "last_modified": "*"},
    "CommandResponse": {"success": "*", "message": "*", "error": "?"},
    "SkipTaskRequest": {"task_id": "*", "reason": "?"},
    "RetryTaskRequest": {"task_id": "*"},
    "StartOrchestratorRequest": {"plan": "*", "executor": "?", "batch_size": 5, "max_iterations": 50,
                                 "max_retries": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
async def test_components_have_the_contracts_names_fields_and_defaults(connect: Connect, name: str) -> None:
    schema = (await document(connect))["components"]["schemas"][name]
    found = {}
    for field, described in schema["properties"].items():
        if field in schema.get("required", ()):
            assert "default" not in described
            found[field] = "*"
        elif {"type": "null"} in described.get("anyOf", ()):
            found[field] = "?"
        else:
            found[field] = described["default"]
    assert found == FIELDS[name]


async def test_words_of_states_are_enumerated(connect: Connect) -> None:
    schemas = (await document(connect))["components"]["schemas"]
    assert schemas["OrchestratorInfo"]["properties"]["status"]["enum"] == ["running", "stopping", "stopped", "crashed"]
    assert schemas["OrchestratorInfo"]["properties"]["id"]["pattern"] == "^orch-[0-9a-z-]+$"
    assert schemas["StatusResponse"]["properties"]["status"]["enum"] == ["running", "paused", "stopping", "stopped"]
    assert schemas["TaskInfo"]["properties"]["status"]["enum"] == [
        "pending",
        "in_progress",
        "completed",
        "failed",
        "skipped",
    ]
