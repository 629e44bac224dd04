"""What this surface takes and gives, as models for its OpenAPI; Run, Checkpoint and Event are `published`.

They describe; they validate nothing (`parse`, `inline_plan` and `orchestrator.spec` do), so a request costs no
pydantic.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from orchestrator import spec_form
from orchestrator.definition import TriggerRule
from serve_app.surfaces.runs import parse

RunId = Annotated[str, Field(pattern=f"^{parse.RUN_ID}$", examples=["BCbPVCdF3kqz"])]


class RunsRun(BaseModel):
    """Stands for `run.schema.json`."""


class RunsCheckpoint(BaseModel):
    """Stands for `checkpoint.schema.json`."""


class RunsNode(BaseModel):
    """One task. Unknown keys (`position`, …) are ignored."""

    id: str = Field(pattern=spec_form.TASK_ID, description="without a dot when edges name pins")
    type: str | None = Field(None, min_length=1, max_length=200, description="default `core.noop`")
    entrypoint: str | None = Field(None, pattern=spec_form.ENTRYPOINT, max_length=500)
    params: dict[str, Any] = {}
    retries: int = Field(0, ge=0, le=20)
    retry_delay_s: float = Field(1, ge=0, description="doubles per failure, at most 60 s; drawn from 0 up to it")
    timeout_s: float = Field(3600, ge=1, le=86_400)
    trigger_rule: TriggerRule = Field("all_success", description="when it starts, given how those before it ended")
    branch: bool = Field(False, description="its value names the direct dependents that go on")
    teardown_of: list[str] = Field([], max_length=spec_form.SETUPS_MAX, description="nodes whose work it undoes")
    on_failure_fail_run: bool = Field(False, description="of a teardown: its failure fails the run")
    compensates: str | None = Field(None, description="the node that it undoes when the run does not succeed")
    image: str | None = Field(None, min_length=1, description="mode k8s; default ORCHESTRATOR_K8S_IMAGE")
    command: list[str] | None = Field(None, description="mode k8s; default the image's own")


class RunsEdge(BaseModel):
    """`to` waits for `from`. `a.out` is pin `out` of node `a`; only the node matters."""

    from_: str = Field(alias="from")
    to: str


class RunsGraph(BaseModel):
    """Nodes, and edges without a cycle."""

    nodes: list[RunsNode]
    edges: list[RunsEdge] = []


class RunsFlow(BaseModel):
    """The same graph, as flow editors write it."""

    apiVersion: Any = None
    kind: Literal["Flow"]
    meta: Any = None
    graph: RunsGraph


class RunsWanted(BaseModel):
    """A run. At most one of `dag_id`, `plan` and `flow`; with none its caller drives it by checkpoints."""

    metadata: dict[str, Any] | None = Field(None, description="kept as it is, at most 64 KiB")
    dag_id: str | None = Field(None, description="run the current version of this DAG")
    plan: RunsGraph | None = None
    flow: RunsFlow | None = None


class RunsCreated(BaseModel):
    """The run exists."""

    runId: RunId


class RunsSteps(BaseModel):
    """What would happen, in order."""

    steps: list[str] | list[list[str]] = Field(description="nodes in groups, each needing only groups before it")


class RunsPlan(BaseModel):
    """A plan; nothing is stored."""

    mode: Literal["plan"]
    plan: RunsSteps


class RunsFound(BaseModel):
    """One run."""

    run: RunsRun


class RunsCheckpointList(BaseModel):
    """Checkpoints by `ts`, ascending."""

    runId: RunId
    checkpoints: list[RunsCheckpoint]


class RunsCheckpointWanted(BaseModel):
    """What happened. Of a taskless run `run.completed` and `run.failed` end it."""

    type: str = Field(pattern=r"\S", description="trimmed; then at most 200 characters")
    data: Any = Field(None, description="any JSON, at most 256 KiB")


class RunsCheckpointAdded(BaseModel):
    """It is readable, and handed to open streams."""

    checkpointId: str = Field(pattern="^[A-Za-z0-9_-]{6,}$")


class RunsCanceled(BaseModel):
    """The run is canceled; what still runs of it is revoked, and its results have no effect."""

    ok: Literal[True]
    status: Literal["canceled"]


class RunsError(BaseModel):
    """Every error of this surface. `from` and `to` belong to `invalid status transition`."""

    error: str
    details: list[str] | None = Field(None, description="path of each field at fault, and what is wrong with it")
    from_: str | None = Field(None, alias="from")
    to: str | None = None


_CHECKPOINT = {"id": "EGKj8m", "runId": "BCbPVCdF3kqz", "ts": "2026-01-02T03:04:05.678Z", "type": "started"}
_PLAN = {
    "nodes": [{"id": "a"}, {"id": "b", "type": "core.sleep", "params": {"seconds": 1}}],
    "edges": [{"from": "a", "to": "b"}],
}

#: one of each event of a stream
EVENTS = (
    'event: hello\ndata: {"runId":"BCbPVCdF3kqz"}\n\n'
    "id: 2026-01-02T03:04:05.678Z\nevent: checkpoint\n"
    'data: {"id":"EGKj8m","runId":"BCbPVCdF3kqz","ts":"2026-01-02T03:04:05.678Z","type":"started"}\n\n'
    'event: status\ndata: {"runId":"BCbPVCdF3kqz","status":"canceled"}\n\n'
    ": keep-alive 1795380373794\n\n"
)

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    RunsCreated: {"runId": "BCbPVCdF3kqz"},
    RunsPlan: {"mode": "plan", "plan": {"steps": [["a"], ["b"]]}},
    RunsFound: {
        "run": {
            "id": "BCbPVCdF3kqz",
            "mode": "redis",
            "createdAt": "2026-01-02T03:04:05.678Z",
            "status": "running",
            "metadata": {"a": 1},
        }
    },
    RunsCheckpointList: {"runId": "BCbPVCdF3kqz", "checkpoints": [_CHECKPOINT]},
    RunsCheckpointAdded: {"checkpointId": "EGKj8m"},
    RunsCanceled: {"ok": True, "status": "canceled"},
}

#: examples of each body, by name
BODIES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {
    RunsWanted: {
        "driven by checkpoints": {"metadata": {"a": 1}},
        "a DAG": {"dag_id": "sales_gdp"},
        "a plan": {"plan": _PLAN},
        "a flow": {"flow": {"kind": "Flow", "graph": _PLAN}},
    },
    RunsCheckpointWanted: {
        "a step": {"type": "step", "data": {"n": 1}},
        "the end": {"type": "run.completed"},
    },
}
