"""The fixed endpoints of this surface, one line each: method, path, name of the handler.

The routes of blueprints come after them (`routes.py`); a blueprint cannot take one of these paths
(`orchestrator/blueprint_checks.py`).
"""

from __future__ import annotations

PUBLIC, CLIENT, WORKER = "/_public", "/api", "/_worker"
V1 = f"{CLIENT}/v1"

_JOB = f"{V1}/jobs/{{job_id}}"
_WORKERS = f"{WORKER}/workers"

PUBLIC_ENDPOINTS = (
    ("GET", f"{PUBLIC}/status", "get_status"),
    ("GET", f"{PUBLIC}/docs", "get_docs"),
    ("POST", f"{PUBLIC}/webhooks/approval/{{job_id}}", "approve_job"),
)
#: only with ORCHESTRATOR_DEBUG
DEBUG_ENDPOINTS = (("POST", f"{PUBLIC}/debug/flush_db", "flush_db"),)

#: the last is the scope
CLIENT_ENDPOINTS = (
    ("GET", f"{V1}/jobs", "list_jobs", "client"),
    ("GET", _JOB, "get_job", "client"),
    ("POST", f"{_JOB}/cancel", "cancel_job", "client"),
    ("POST", f"{_JOB}/release", "release_job", "client"),
    ("GET", f"{_JOB}/history", "get_job_history", "client"),
    ("GET", f"{V1}/blueprints", "list_blueprints", "client"),
    ("GET", f"{V1}/blueprints/{{blueprint_name}}/graph", "get_blueprint_graph", "client"),
    ("GET", f"{V1}/workers", "list_workers", "client"),
    ("GET", f"{V1}/webhooks", "list_webhooks", "client"),
    ("POST", f"{V1}/webhooks/{{webhook_id}}/retry", "retry_webhook", "client"),
    ("GET", f"{V1}/dashboard", "get_dashboard", "client"),
    ("POST", f"{V1}/admin/reload-workers", "reload_workers", "admin"),
)

WORKER_ENDPOINTS = (
    ("POST", f"{_WORKERS}/register", "register_worker"),
    ("PATCH", f"{_WORKERS}/{{worker_id}}", "update_worker"),
    ("GET", f"{_WORKERS}/{{worker_id}}/tasks/next", "next_task"),
    ("POST", f"{WORKER}/tasks/result", "submit_result"),
    ("POST", f"{WORKER}/events", "emit_event"),
)
SOCKETS = (f"{WORKER}/ws", f"{WORKER}/ws/{{worker_id}}")

#: stands for the routes of blueprints in the description
CREATE = ("POST", f"{CLIENT}/{{api_version}}/{{api_endpoint}}", "create_job")
