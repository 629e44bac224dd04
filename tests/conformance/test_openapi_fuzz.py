"""Our own OpenAPI, taken at its word: 200 generated requests per operation, valid and invalid ones.

Every answer must be documented (status, content type, headers, schema), bad data must be refused and good data
accepted, nothing may end in a 5xx, and every error must have its surface's form. What is behind is in memory.
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig

from orchestrator.definition import Definition, TaskSpec, Window
from orchestrator.views import (
    CheckpointView,
    DagView,
    Frame,
    InstanceWanted,
    LiveRunView,
    LiveRunWanted,
    LogChunk,
    RunView,
)
from serve_app.app import build_app
from serve_app.auth import DEFAULT_TENANT, Tokens, grant
from serve_app.options import ServerOptions
from serve_app.surfaces import runs
from serve_app.surfaces.dags import BASE
from serve_app.surfaces.instances import ORCHESTRATORS, PLANS
from tests.fakes_gateway import EPOCH, FakeClock, FakeGateway
from tests.fakes_instances import FakeInstances
from tests.fakes_live_runs import Entry, FakeLiveRuns

TOKEN = "a-token-of-all-scopes"
EXAMPLES = 200
#: the token comes from the test; the same cases each time, so that CI is red for a reason
CONFIG = {"generation": {"with-security-parameters": False, "deterministic": True}}
CODES = {
    400: {"invalid_request"},
    401: {"unauthorized"},
    403: {"forbidden"},
    404: {"not_found"},
    405: {"invalid_request"},
    409: {"version_conflict"},
}
#: of the runs surface
TEXTS = {
    400: {"invalid mode", "invalid json", "invalid checkpoint type", "validation failed"},
    401: {"unauthorized"},
    404: {"not found", "run not found", "dag not found"},
    405: {"method not allowed"},
    409: {"idempotency key reused", "invalid status transition"},
    413: {"payload too large"},
}


class ForgetfulGateway(FakeGateway):
    """Starts each request with the same objects, so that an example fails alone or not at all."""

    def reset(self) -> None:
        fresh = FakeGateway()
        definition = Definition(
            "sales_gdp", "team-data", tasks=(TaskSpec("extract"), TaskSpec("load", depends_on=("extract",)))
        )
        fresh._dags[DEFAULT_TENANT, "sales_gdp"] = DagView(
            definition, 3, False, EPOCH, EPOCH, EPOCH + timedelta(days=1)
        )
        run = RunView(
            "run_9",
            "sales_gdp",
            3,
            "manual",
            "running",
            Window("2025-10-01", "2025-10-01"),
            1,
            EPOCH,
            tasks={"extract": "failed"},
        )
        fresh._runs[DEFAULT_TENANT, "run_9"] = run
        fresh.frames[DEFAULT_TENANT, "run_9"] = [
            Frame(1, "run_state", {"seq": 1, "run_id": "run_9", "from": None, "to": "queued", "attempts": 0}),
            Frame(None, "keep_alive"),
            Frame(None, "end", {"run_id": "run_9", "state": "succeeded"}),
        ]
        fresh.output[DEFAULT_TENANT, "run_9", "extract"] = [LogChunk("extract", 1, "4 rows\n")]
        for each in dataclasses.fields(fresh):
            setattr(self, each.name, getattr(fresh, each.name))


class ForgetfulRuns(FakeLiveRuns):
    """The same for the runs surface; its streams end, so that they can be read to the end."""

    def reset(self) -> None:
        fresh = FakeLiveRuns(streams_end=True, dags={(DEFAULT_TENANT, "sales_gdp")})
        run_id, metadata = "BCbPVCdF3kqz", msgspec.Raw(b'{"a":1}')
        view = LiveRunView(run_id, "redis", EPOCH, "running", "u1", metadata)
        started = CheckpointView("EGKj8m", run_id, EPOCH, "started")
        fresh._runs[DEFAULT_TENANT, run_id] = Entry(view, LiveRunWanted(metadata=metadata), [started])
        for each in dataclasses.fields(fresh):
            setattr(self, each.name, getattr(fresh, each.name))


class ForgetfulInstances(FakeInstances):
    """Likewise: one running instance, some findings, and a stream that has an end."""

    def reset(self) -> None:
        fresh = FakeInstances()
        view = fresh._new(DEFAULT_TENANT, InstanceWanted(plan="demo"), fresh.plan_tasks[DEFAULT_TENANT, "demo"])
        stream = fresh._streams[DEFAULT_TENANT, view.instance_id]
        stream.frames.append(Frame(1, "phase_changed", {"timestamp": EPOCH, "data": {}}))
        stream.ended = True
        fresh.texts[DEFAULT_TENANT, "demo", "1.1"] = "4 rows"
        fresh.plan_tasks[DEFAULT_TENANT, "idle"] = fresh.plan_tasks[DEFAULT_TENANT, "demo"]
        for each in dataclasses.fields(fresh):
            setattr(self, each.name, getattr(fresh, each.name))


load_all_checks()
gateway, live_runs, instances = ForgetfulGateway(), ForgetfulRuns(), ForgetfulInstances()
options = ServerOptions(
    home="/nonexistent",
    host="10.0.0.1",
    rate_limit_rps=1e9,
    rate_limit_burst=10**9,
    runs_rate_max=10**9,
    kubernetes_ready=True,
    kubernetes_image="task:1",
)
app = build_app(
    gateway, Tokens([grant(TOKEN, "admin")]), options, FakeClock(), live_runs=live_runs, instances=instances
)
schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=SchemathesisConfig.from_dict(CONFIG))


#: good data is more than a schema can say: cron, graph and types; dates; opaque cursors; executors
MEANINGFUL = "positive_data_acceptance"
#: operation -> checks that do not hold for it
EXCLUDED = {
    ("POST", f"{BASE}/dags"): [MEANINGFUL],
    ("POST", f"{BASE}/runs"): [MEANINGFUL],
    ("GET", f"{BASE}/dags"): [MEANINGFUL],
    ("GET", f"{BASE}/runs"): [MEANINGFUL],
    ("POST", ORCHESTRATORS): [MEANINGFUL],
    # there is no GET of that path, and by contract it is 404
    ("POST", runs.BASE): [MEANINGFUL, "unsupported_method"],
}


@pytest.mark.slow
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
def test_every_operation_keeps_its_word(case: schemathesis.Case) -> None:
    gateway.reset()
    live_runs.reset()
    instances.reset()
    excluded = [CHECKS.get_one(name) for name in EXCLUDED.get((case.operation.method.upper(), case.operation.path), ())]
    response = case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=excluded)
    if response.status_code >= 400 and case.operation.path.startswith(BASE):
        error = response.json()
        assert error["error"] in CODES[response.status_code]
        assert isinstance(error["message"], str)
        assert error["request_id"] == response.headers["x-request-id"][0]
    if response.status_code >= 400 and case.operation.path.startswith(runs.BASE) and response.content:
        error = response.json()
        assert set(error) <= {"error", "details", "from", "to"}
        assert error["error"] in TEXTS[response.status_code]
    if response.status_code >= 400 and case.operation.path.startswith((ORCHESTRATORS, PLANS)):
        assert response.json().keys() == {"detail"}
