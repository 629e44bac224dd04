"""Our own OpenAPI, taken at its word: 200 generated requests per operation, valid and invalid ones.

Every answer must be documented (status, content type, headers, schema), bad data must be refused and good data
accepted, nothing may end in a 5xx, and every error must have the contract's form. The gateway is in memory.
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig

from orchestrator.definition import Definition, TaskSpec, Window
from orchestrator.views import DagView, Frame, LogChunk, RunView
from serve_app.app import build_app
from serve_app.auth import DEFAULT_TENANT, Tokens, grant
from serve_app.options import ServerOptions
from serve_app.surfaces.dags import BASE
from tests.fakes_gateway import EPOCH, FakeClock, FakeGateway

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


load_all_checks()
gateway = ForgetfulGateway()
options = ServerOptions(home="/nonexistent", rate_limit_rps=1e9, rate_limit_burst=10**9)
app = build_app(gateway, Tokens([grant(TOKEN, "admin")]), options, FakeClock())
schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=SchemathesisConfig.from_dict(CONFIG))


#: operations whose good data is more than a schema can say: cron, graph and types; dates; opaque cursors
MEANINGFUL = {("POST", "/dags"), ("POST", "/runs"), ("GET", "/dags"), ("GET", "/runs")}


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
    meaningful = (case.operation.method.upper(), case.operation.path.removeprefix(BASE)) in MEANINGFUL
    excluded = [CHECKS.get_one("positive_data_acceptance")] if meaningful else None
    response = case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=excluded)
    if response.status_code >= 400 and case.operation.path.startswith(BASE):
        error = response.json()
        assert error["error"] in CODES[response.status_code]
        assert isinstance(error["message"], str)
        assert error["request_id"] == response.headers["x-request-id"][0]
