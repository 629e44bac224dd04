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
from orchestrator.ids import DEFAULT_TENANT
from orchestrator.instance_views import InstanceWanted
from orchestrator.job_views import HistoryEvent
from orchestrator.live_run_views import CheckpointView, LiveRunView, LiveRunWanted
from orchestrator.pipeline_views import LogEntry, PipelineConfig, PipelineJobView, PipelineView, RunnerView
from orchestrator.views import DagView, Frame, LogChunk, RunView
from orchestrator.webhook import DEAD, Delivery, Try
from serve_app.app import build_app
from serve_app.auth import Tokens, grant
from serve_app.options import ServerOptions
from serve_app.outside_ports import JobWanted
from serve_app.surfaces import runs
from serve_app.surfaces.dags import BASE
from serve_app.surfaces.instances import ORCHESTRATORS, PLANS
from serve_app.surfaces.jobs import models as of_jobs
from serve_app.surfaces.jobs.endpoints import CLIENT_ENDPOINTS, CREATE, PUBLIC_ENDPOINTS, WORKER_ENDPOINTS
from serve_app.surfaces.pipelines import PREFIXES, models
from tests.fakes_gateway import EPOCH, FakeClock, FakeGateway
from tests.fakes_instances import FakeInstances
from tests.fakes_jobs import FakeJobs, job_view
from tests.fakes_live_runs import Entry, FakeLiveRuns
from tests.fakes_pipelines import FakePipelines, Log

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


class ForgetfulPipelines(FakePipelines):
    """Likewise: the pipeline, the job and the runner of the examples."""

    def reset(self) -> None:
        fresh = FakePipelines(streams_end=True)
        pipeline_id, job_id = models.ANSWERS[models.PipelinesPipeline]["id"], models.ANSWERS[models.PipelinesJob]["id"]
        config = PipelineConfig()
        pipeline = PipelineView(pipeline_id, "Example", None, "return {}", (), EPOCH, EPOCH, ("ci",), config)
        job = PipelineJobView(job_id, pipeline_id, "Running", EPOCH, EPOCH, None, "r1", {}, None, 0, 60)
        fresh._pipelines[DEFAULT_TENANT, pipeline_id] = pipeline
        fresh._env_vars[DEFAULT_TENANT, pipeline_id] = {}
        fresh._jobs[DEFAULT_TENANT, job_id] = job
        fresh._logs[DEFAULT_TENANT, job_id] = Log([LogEntry("2026-01-02T03:04:05.123456789Z", "Info", "hi")])
        fresh._runners[DEFAULT_TENANT, "r1"] = RunnerView("r1", ("log",), EPOCH, EPOCH, "Busy")
        for each in dataclasses.fields(fresh):
            setattr(self, each.name, getattr(fresh, each.name))


class ForgetfulJobs(FakeJobs):
    """Likewise: the job and the worker of the examples, and a task for whoever asks."""

    def reset(self) -> None:
        fresh = FakeJobs(at_once=of_jobs.ANSWERS[of_jobs.JobsTask], live=[of_jobs.ANSWERS[of_jobs.JobsWorker]])
        wanted = JobWanted(blueprint="simple_flow", initial_data={"clip": "a"}, client="default")
        fresh._jobs[DEFAULT_TENANT, of_jobs.JOB_ID] = job_view(of_jobs.JOB_ID, wanted)
        line = HistoryEvent(event_id="e1", job_id=of_jobs.JOB_ID, timestamp=EPOCH, event_type="job_created")
        fresh._history[of_jobs.JOB_ID] = [line]
        fresh.outbox = [
            Delivery(
                id=of_jobs.WEBHOOK_ID,
                tenant=DEFAULT_TENANT,
                client="default",
                url="https://example.com/hook",
                event="job_finished",
                about=of_jobs.JOB_ID,
                created_at=EPOCH,
                state=DEAD,
                ended_at=EPOCH,
                log=(Try(EPOCH, status=500), Try(EPOCH, error="no answer within 10 s")),
            )
        ]
        for each in dataclasses.fields(fresh):
            setattr(self, each.name, getattr(fresh, each.name))


load_all_checks()
gateway, live_runs, instances = ForgetfulGateway(), ForgetfulRuns(), ForgetfulInstances()
pipelines, jobs = ForgetfulPipelines(), ForgetfulJobs()
options = ServerOptions(
    home="/nonexistent",
    host="10.0.0.1",
    rate_limit_rps=1e9,
    rate_limit_burst=10**9,
    runs_rate_max=10**9,
    kubernetes_ready=True,
    kubernetes_image="task:1",
    allow_bundles=True,
)
app = build_app(
    gateway,
    Tokens([grant(TOKEN, "admin")]),
    options,
    FakeClock(),
    live_runs=live_runs,
    instances=instances,
    pipelines=pipelines,
    jobs=jobs,
)
schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=SchemathesisConfig.from_dict(CONFIG))


#: good data is more than a schema can say: cron, graph and types; dates; opaque cursors; executors; states of a job;
#: bounds that go together, and names that Ray has taken
MEANINGFUL = "positive_data_acceptance"
LENIENT = "negative_data_rejection"
#: operation -> checks that do not hold for it
EXCLUDED = {
    ("POST", f"{BASE}/dags"): [MEANINGFUL],
    ("POST", f"{BASE}/runs"): [MEANINGFUL],
    ("GET", f"{BASE}/dags/{{dag_id}}/schedule/preview"): [MEANINGFUL],
    ("POST", f"{BASE}/schedule/preview"): [MEANINGFUL],
    ("GET", f"{BASE}/dags"): [MEANINGFUL],
    ("GET", f"{BASE}/runs"): [MEANINGFUL],
    ("GET", f"{BASE}/runs/{{run_id}}/tasks/{{task}}/instances"): [MEANINGFUL],
    ("PUT", f"{BASE}/bundles/{{bundle}}"): [MEANINGFUL],
    ("PUT", f"{BASE}/pools/{{name}}"): [MEANINGFUL],
    ("POST", ORCHESTRATORS): [MEANINGFUL],
    ("POST", "/api/pipeline/create"): [MEANINGFUL],
    ("POST", "/api/pipeline/launch"): [MEANINGFUL],
    ("POST", "/api/runners/register"): [MEANINGFUL],
    ("POST", "/api/jobs/execute/{job_id}"): [MEANINGFUL],
    ("POST", "/api/jobs/{job_id}/claim"): [MEANINGFUL],
    ("PUT", "/api/jobs/{job_id}/status"): [MEANINGFUL],
    ("POST", "/api/jobs/{job_id}/complete"): [MEANINGFUL],
    ("POST", "/api/jobs/{job_id}/logs"): [MEANINGFUL],
    ("POST", CREATE[1]): [MEANINGFUL],
    ("POST", "/_public/webhooks/approval/{job_id}"): [MEANINGFUL],
    # generations of workers disagree about everything but their ids
    **{(method, path): [LENIENT] for method, path, _ in WORKER_ENDPOINTS},
    # there is no GET of that path, and by contract it is 404
    ("POST", runs.BASE): [MEANINGFUL, "unsupported_method"],
}


OF_JOBS = {path for _, path, *_ in (*PUBLIC_ENDPOINTS, *CLIENT_ENDPOINTS, *WORKER_ENDPOINTS, CREATE)}


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
    pipelines.reset()
    jobs.reset()
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
    if response.status_code >= 400 and case.operation.path.startswith(PREFIXES):
        assert response.json().keys() == {"error"}
    if response.status_code >= 400 and case.operation.path in OF_JOBS:
        assert response.json().keys() == {"error"}
