"""What the endpoints about DAGs and their schedules take and give, as models for the OpenAPI: see `models.py`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from orchestrator import spec_form
from orchestrator.definition import AfterRule, SlaAction, TriggerRule
from orchestrator.needs import LIMITS_MAX
from orchestrator.task_shape_form import ResourcesBody
from serve_app.surfaces.dags import parse
from serve_app.surfaces.dags.models import NO_NUL, DagId, DagsCause, DagsWindow, Instant

Status = Literal["active", "paused"]

DropReason = Literal["missed", "overlap"]


class DagsRetryPolicy(spec_form.RetryPolicyBody):
    """How failures of some classes are tried again; the first policy that fits counts."""


class DagsLimitUse(spec_form.LimitUseBody):
    """Several permits of one limit."""


class DagsResources(ResourcesBody):
    """What a task asks of the cluster, instead of a pool."""


class DagsTask(spec_form.TaskBody):
    """One node of the graph. `type` and `entrypoint` exclude each other; neither means `core.noop`."""

    retry_policies: list[DagsRetryPolicy] = Field([], max_length=20)  # type: ignore[assignment]  # a list is invariant
    resources: DagsResources | None = None
    limits: list[spec_form.LimitName | DagsLimitUse] = Field([], max_length=LIMITS_MAX)  # type: ignore[assignment]  # a list is invariant


#: a list of values, or lists by name whose product the partitions are
Partitions = list[str] | dict[str, list[str]]


class DagsCalendar(spec_form.CalendarBody):
    """On which dates a schedule fires, beside its cron expression. `include` wins over `weekdays`."""


class DagsDag(spec_form.DagBody):
    """A DAG as its author submits it. Without `tasks` an existing DAG keeps its tasks; `[]` clears them."""

    tasks: list[DagsTask] = Field([], max_length=spec_form.TASKS_MAX)  # type: ignore[assignment]  # a list is invariant
    version: int | None = Field(None, ge=1, le=parse.MOST_VERSIONS, description="the one being replaced (precondition)")
    calendar: DagsCalendar | None = None
    partitions: Partitions | None = Field(None, description="what a backfill without dates is over")


class DagsCalendarView(BaseModel):
    """On which dates a schedule fires, beside its cron expression."""

    exclude: list[str] | None = None
    include: list[str] | None = None
    weekdays: list[str] | None = None


class DagsLastDropped(BaseModel):
    """The latest fire that started no run."""

    at: Instant
    reason: DropReason


class DagsAwaited(BaseModel):
    """One thing that has to happen before a run starts by itself."""

    kind: Literal["dag", "asset"]
    name: str
    known: bool = Field(description="false: there is no such DAG, or no DAG updates the asset")
    met: bool = Field(description="it has happened, and no run has started because of it")
    by: list[DagsCause] = Field(description="the latest 20")


class DagsTaskView(BaseModel):
    """One node of the graph as it is stored."""

    id: str
    depends_on: list[str]
    type: str | None = None
    entrypoint: str | None = None
    params: dict[str, Any]
    inputs: dict[str, str] = {}
    retries: int
    retry_delay_s: float
    timeout_s: float
    sla_s: int | None
    priority: int
    trigger_rule: TriggerRule = "all_success"
    branch: bool = False
    teardown_of: list[str] = []
    on_failure_fail_run: bool = False
    on_sla_miss: list[SlaAction] = ["mark"]
    queue_timeout_s: float | None = None
    heartbeat_timeout_s: float | None = None
    retry_on: list[str] = []
    no_retry_on: list[str] = []
    retry_policies: list[DagsRetryPolicy] = []
    retry_exit_codes: list[int] = []
    retry_statuses: list[str] = []
    compensates: str | None = None
    group: str = ""
    pool: str = "default"
    resources: DagsResources | None = None
    limits: list[str | DagsLimitUse] = []
    cache_ttl_s: float | None = None
    cache_key: str | None = None
    cache_version: str | None = None
    cache_window: bool = False
    produces: list[str] = []
    durability: str = "stored"


class DagsDagView(BaseModel):
    """A DAG with what the server knows about it."""

    dag_id: DagId
    owner: str
    schedule: str | None
    timezone: str
    tasks: list[DagsTaskView]
    catchup: Literal["none", "last", "all"]
    overlap: Literal["allow", "skip", "buffer_one", "cancel_previous"]
    max_active_runs: int
    max_active_tasks: int | None = None
    sla_s: int | None
    on_sla_miss: list[SlaAction] | None = None
    queue_timeout_s: float | None = None
    callback_url: str | None
    description: str | None = None
    tags: list[str]
    status: Status
    version: int = Field(ge=1)
    created_at: Instant
    updated_at: Instant
    next_run_at: Instant | None
    run_counts: dict[str, int] = Field(description="runs by state, backfills themselves left out")
    calendar: DagsCalendarView | None = None
    start_at: str | None = None
    end_at: str | None = None
    jitter_s: float | None = None
    partitions: Partitions | None = None
    after: list[str] = Field([], description="DAGs whose success starts a run")
    after_rule: AfterRule = "all"
    consumes: list[str] = Field([], description="assets whose update starts a run, once all are updated")
    on_event: str | None = None
    awaits: list[DagsAwaited] | None = Field(None, description="of one DAG: what it follows, and what of that is met")
    bundle: str | None = Field(None, description="what its code was deployed in")
    dropped_fires: dict[DropReason, int] = Field(description="fires of the schedule that started no run, by reason")
    last_dropped: DagsLastDropped | None


class DagsDagList(BaseModel):
    """One page of DAGs."""

    items: list[DagsDagView]
    next_cursor: str | None


class DagsDagDefined(BaseModel):
    """What a definition, a pause or a resume came to."""

    dag_id: DagId
    status: Status
    version: int = Field(ge=1)


class DagsSchedule(BaseModel):
    """A schedule that need not be deployed. With `dag_id` the jitter is that of the DAG."""

    schedule: str
    timezone: str = "UTC"
    calendar: DagsCalendar | None = None
    start_at: str | None = None
    end_at: str | None = None
    jitter_s: float = Field(0, ge=0, le=86_400)
    dag_id: DagId | None = None
    n: int | None = Field(None, ge=1, le=parse.MOST_TICKS, description="default 10")
    from_: Instant | None = Field(None, alias="from", description="default now")


class DagsTick(BaseModel):
    """An instant of a schedule. `runs_at` and `window` are null when the calendar skips it."""

    at: Instant
    local: str = Field(description="on the wall clock of the zone, with its offset")
    runs_at: Instant | None = Field(description="`at` with the jitter")
    window: DagsWindow | None
    skipped: Literal["excluded", "weekday"] | None = Field(description="why nothing fires")
    moved: bool = Field(description="the time that was due does not exist: the clocks change")


class DagsPreview(BaseModel):
    """When a schedule fires next; without a schedule never."""

    timezone: str | None
    paused: bool
    items: list[DagsTick]


class DagsReason(BaseModel):
    """Why."""

    reason: str | None = Field(None, max_length=1000, pattern=NO_NUL)


class DagsUncached(BaseModel):
    """Attempts that had begun then do not count any more; `task` null: of all tasks."""

    dag_id: DagId
    task: str | None
    uncached_at: Instant


_DAG = {"dag_id": "sales_gdp", "schedule": "0 2 * * *", "owner": "team-data"}
_TASKS = [{"id": "extract"}, {"id": "transform", "depends_on": ["extract"], "retries": 2}]

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    DagsDagView: {
        **_DAG,
        "tasks": _TASKS,
        "status": "active",
        "version": 1,
        "created_at": "2026-01-02T03:04:05.678Z",
        "updated_at": "2026-01-02T03:04:05.678Z",
        "next_run_at": "2026-01-03T02:00:00.000Z",
        "run_counts": {"success": 4},
        "dropped_fires": {"overlap": 1},
        "last_dropped": {"at": "2026-01-02T02:00:00.000Z", "reason": "overlap"},
    },
    DagsPreview: {
        "timezone": "Europe/Berlin",
        "paused": False,
        "items": [
            {
                "at": "2026-03-29T01:00:00.000Z",
                "local": "2026-03-29T03:00:00+02:00",
                "runs_at": "2026-03-29T01:00:00.000Z",
                "window": {"from": "2026-03-29", "to": "2026-03-29"},
                "skipped": None,
                "moved": True,
            }
        ],
    },
    DagsDagDefined: {"dag_id": "sales_gdp", "status": "active", "version": 1},
}

#: examples of each body, by name
BODIES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {
    DagsDag: {
        "schedule and owner": _DAG,
        "with tasks": {**_DAG, "tasks": _TASKS},
    },
    DagsSchedule: {
        "weekdays without holidays": {
            "schedule": "30 2 * * *",
            "timezone": "Europe/Berlin",
            "calendar": {"weekdays": ["mon", "tue", "wed", "thu", "fri"], "exclude": ["2026-12-25"]},
            "n": 5,
        }
    },
    DagsReason: {"with a reason": {"reason": "upstream is down"}},
}
