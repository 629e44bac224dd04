"""The JSON of a DAG, field by field: types and bounds, before anything is asked about what they mean together.

`spec.parse_dag` reads it and makes a `Definition` of it. pydantic is imported by forms, and by no other module of the
core.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestrator.definition import MARK, AfterRule, Catchup, Durability, Isolation, Overlap, SlaAction, TriggerRule
from orchestrator.mapped import INSTANCES_MAX
from orchestrator.needs import DEFAULT_POOL, LIMITS_MAX, POOL, SLOTS_MAX
from orchestrator.task_shape_form import ResourcesBody

TASKS_MAX = 50_000
#: setups of a teardown
SETUPS_MAX = 100
DAG_ID = r"^[A-Za-z0-9_.-]{1,250}$"
TASK_ID = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$"
#: an id, or nothing
GROUP = r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,62})?$"
#: what is told apart by its name: a URI, or any word
ASSET = r"^[^\s\x00-\x1f\x7f]{1,500}$"
EVENT_NAME = r"^[A-Za-z0-9_.:-]{1,128}$"
ENTRYPOINT = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"

#: keys of a task that say when it starts and what that means for others (docs/graphs.md)
RULES = ("trigger_rule", "branch", "teardown_of", "on_failure_fail_run", "compensates")

_YEAR_S = 366 * 86_400

#: as `failures.py` has them
EXCEPTION = r"^[A-Za-z_][A-Za-z0-9_]*(\.([A-Za-z_][A-Za-z0-9_]*|<locals>))*$"
STATUS = r"^([1-9]\d\d|[1-9]xx)$"
ExceptionName = Annotated[str, StringConstraints(pattern=EXCEPTION, max_length=200)]
ExceptionNames = Annotated[list[ExceptionName], Field(max_length=50)]
SlaActions = Annotated[list[SlaAction], Field(min_length=1, max_length=4)]
TaskId = Annotated[str, StringConstraints(pattern=TASK_ID)]
DagName = Annotated[str, StringConstraints(pattern=DAG_ID)]
Asset = Annotated[str, StringConstraints(pattern=ASSET)]
EventName = Annotated[str, StringConstraints(pattern=EVENT_NAME)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class RetryPolicyBody(BaseModel):
    """How failures of some classes are tried again."""

    model_config = ConfigDict(strict=True, extra="forbid")

    exceptions: Annotated[list[ExceptionName], Field(min_length=1, max_length=50)]
    retries: int | None = Field(default=None, ge=0, le=20)
    retry_delay_s: float | None = Field(default=None, ge=0, le=_YEAR_S)


LimitName = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class LimitUseBody(BaseModel):
    """Several permits of one limit."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: LimitName
    slots: int = Field(default=1, ge=1, le=SLOTS_MAX)


class TaskBody(BaseModel):
    """One task, as written."""

    model_config = ConfigDict(strict=True, extra="ignore")

    id: TaskId
    depends_on: list[TaskId] = Field(default_factory=list, max_length=TASKS_MAX)
    type: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    entrypoint: Annotated[str, StringConstraints(pattern=ENTRYPOINT, max_length=500)] | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    #: path of a parameter -> id of the task whose return value fills it (see `binding.py`)
    inputs: dict[Annotated[str, StringConstraints(min_length=1, max_length=1000)], TaskId] = Field(default_factory=dict)
    retries: int = Field(default=0, ge=0, le=20)
    retry_delay_s: float = Field(default=5.0, ge=0, le=_YEAR_S)
    retry_cap_s: float = Field(default=300.0, ge=0, le=_YEAR_S)
    timeout_s: float = Field(default=3600.0, ge=1, le=86_400)
    #: from when its run was queued
    sla_s: int | None = Field(default=None, gt=0, le=10 * _YEAR_S)
    on_sla_miss: SlaActions = Field(default_factory=lambda: list(MARK))
    #: how long it may wait for a worker once it could start
    queue_timeout_s: float | None = Field(default=None, gt=0, le=_YEAR_S)
    #: an attempt that gives no sign of life for so long is ended
    heartbeat_timeout_s: float | None = Field(default=None, ge=0.1, le=86_400)
    #: classes of failures that are tried again (none given: all), and that are not
    retry_on: ExceptionNames = Field(default_factory=list)
    no_retry_on: ExceptionNames = Field(default_factory=list)
    retry_policies: list[RetryPolicyBody] = Field(default_factory=list, max_length=20)
    #: of type bash, and of type http: `503`, `5xx`
    retry_exit_codes: list[Annotated[int, Field(ge=-64, le=255)]] = Field(default_factory=list, max_length=50)
    retry_statuses: list[Annotated[str, StringConstraints(pattern=STATUS)]] = Field(default_factory=list, max_length=50)
    priority: int = Field(default=0, ge=0, le=100)
    pool: Annotated[str, StringConstraints(pattern=POOL)] = DEFAULT_POOL
    #: what it asks of the cluster, instead of a pool
    resources: ResourcesBody | None = None
    #: what it takes permits of while it runs
    limits: list[LimitName | LimitUseBody] = Field(default_factory=list, max_length=LIMITS_MAX)
    #: when it starts, given how the tasks it waits for have ended
    trigger_rule: TriggerRule = "all_success"
    #: its value names the direct dependents that go on; the others are skipped
    branch: bool = False
    #: setups whose work it undoes: it runs when one of them succeeded, whatever became of the tasks between
    teardown_of: list[TaskId] = Field(default_factory=list, max_length=SETUPS_MAX)
    #: of a teardown: its failure fails the run
    on_failure_fail_run: bool = False
    #: path of one parameter -> what the task runs for each element of (see `map_form.py`)
    expand: dict[Annotated[str, StringConstraints(min_length=1, max_length=1000)], Any] = Field(default_factory=dict)
    #: of a mapped task: how many of its instances run at a time, and how many may fail
    max_active: int | None = Field(default=None, ge=1, le=INSTANCES_MAX)
    tolerated_failures: Annotated[int, Field(ge=0, le=INSTANCES_MAX)] | str = 0
    #: the task that it undoes when that succeeded and the run does not; it has no other rule then
    compensates: TaskId | None = None
    #: what it is shown as a part of; in an id `GROUP.NAME` a branch of the group may say `NAME`
    group: Annotated[str, StringConstraints(pattern=GROUP)] = ""
    #: its result stands for that of an equal task for so long; with whom it is shared, and what makes a task equal
    cache_ttl_s: float | None = Field(default=None, gt=0, le=10 * _YEAR_S)
    cache_key: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    cache_version: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    cache_window: bool = False
    #: assets that are updated when it succeeds
    produces: list[Asset] = Field(default_factory=list, max_length=100)
    #: what becomes of a large value that it returns (docs/data.md)
    durability: Durability = "stored"


class CalendarBody(BaseModel):
    """On which dates a schedule fires, beside its cron expression."""

    model_config = ConfigDict(strict=True, extra="forbid")

    exclude: list[str] = Field(default_factory=list, max_length=1000)
    include: list[str] = Field(default_factory=list, max_length=1000)
    weekdays: list[str] | None = Field(default=None, max_length=7)


class DagBody(BaseModel):
    """A DAG, as written."""

    model_config = ConfigDict(strict=True, extra="ignore")

    dag_id: Annotated[str, StringConstraints(pattern=DAG_ID)]
    owner: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    schedule: str | None = None
    timezone: str = "UTC"
    tasks: list[TaskBody] = Field(default_factory=list, max_length=TASKS_MAX)
    catchup: Catchup = "none"
    overlap: Overlap = "allow"
    max_active_runs: int = Field(default=16, ge=1, le=1000)
    max_active_tasks: int | None = Field(default=None, ge=1, le=10_000)
    sla_s: int | None = Field(default=None, gt=0, le=10 * _YEAR_S)
    on_sla_miss: SlaActions = Field(default_factory=lambda: list(MARK))
    run_timeout_s: float | None = Field(default=None, gt=0, le=_YEAR_S)
    #: how long it may wait for its admission
    queue_timeout_s: float | None = Field(default=None, gt=0, le=_YEAR_S)
    callback_url: str | None = None
    description: Annotated[str, StringConstraints(max_length=10_000)] | None = None
    tags: list[Tag] = Field(default_factory=list, max_length=100)
    isolation: Isolation = "shared"
    calendar: CalendarBody | None = None
    start_at: str | None = None
    end_at: str | None = None
    jitter_s: float = Field(default=0.0, ge=0, le=86_400)
    #: a list of values, or lists by name whose product it is (see `partitions.py`)
    partitions: Any = None
    #: DAGs whose success starts a run: all of them, or any
    after: list[DagName] = Field(default_factory=list, max_length=100)
    after_rule: AfterRule = "all"
    #: assets whose update starts a run, once all are updated
    consumes: list[Asset] = Field(default_factory=list, max_length=100)
    #: name of events that start a run each
    on_event: EventName | None = None
    #: its part of what its class shares among DAGs (docs/fairness.md)
    weight: int = Field(default=1, ge=1, le=100)
