"""What the dags surface says of DAGs, their schedules and assets."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

#: two dates, both inclusive, or two instants, the second exclusive; or else a partition, a value or values by name
DagsWindow = TypedDict(
    "DagsWindow",
    {
        "from": NotRequired[str | None],
        "to": NotRequired[str | None],
        "partition": NotRequired[str | dict[str, str] | None],
    },
)
DagsRunState = Literal["queued", "running", "success", "failed", "cancelled"]
DagsRunType = Literal["manual", "backfill", "scheduled"]


class DagsCalendarView(TypedDict):
    """On which dates a schedule fires, beside its cron expression."""

    exclude: NotRequired[list[str] | None]
    include: NotRequired[list[str] | None]
    weekdays: NotRequired[list[str] | None]


class DagsLastDropped(TypedDict):
    """The latest fire that started no run."""

    at: str
    reason: Literal["missed", "overlap"]


class DagsTick(TypedDict):
    """An instant of a schedule. `runs_at` and `window` are null when the calendar skips it."""

    at: str
    local: str
    runs_at: str | None
    window: DagsWindow | None
    skipped: Literal["excluded", "weekday"] | None
    moved: bool


class DagsPreview(TypedDict):
    """When a schedule fires next; without a schedule never."""

    timezone: str | None
    paused: bool
    items: list[DagsTick]


class DagsDagDefined(TypedDict):
    """What a definition, a pause or a resume came to."""

    dag_id: str
    status: Literal["active", "paused"]
    version: int


class DagsCause(TypedDict):
    """Why a run started by itself; what does not belong to its kind is left out."""

    kind: Literal["dag", "asset", "event"]
    name: str
    run_id: NotRequired[str | None]
    task: NotRequired[str | None]
    attempt: NotRequired[int | None]
    event_id: NotRequired[str | None]


class DagsAwaited(TypedDict):
    """One thing that has to happen before a run starts by itself."""

    kind: Literal["dag", "asset"]
    name: str
    known: bool
    met: bool
    by: list[DagsCause]


class DagsDagView(TypedDict):
    """A DAG with what the server knows about it."""

    dag_id: str
    owner: str
    schedule: str | None
    timezone: str
    tasks: list[dict[str, Any]]
    catchup: str
    overlap: str
    max_active_runs: int
    max_active_tasks: NotRequired[int | None]
    sla_s: int | None
    on_sla_miss: NotRequired[list[Literal["mark", "event", "webhook", "cancel"]] | None]
    queue_timeout_s: NotRequired[float | None]
    callback_url: str | None
    description: NotRequired[str | None]
    tags: list[str]
    status: Literal["active", "paused"]
    version: int
    created_at: str
    updated_at: str
    next_run_at: str | None
    run_counts: dict[str, int]
    calendar: NotRequired[DagsCalendarView | None]
    start_at: NotRequired[str | None]
    end_at: NotRequired[str | None]
    jitter_s: NotRequired[float | None]
    partitions: NotRequired[list[str] | dict[str, list[str]] | None]
    after: NotRequired[list[str]]
    after_rule: NotRequired[Literal["all", "any"]]
    consumes: NotRequired[list[str]]
    on_event: NotRequired[str | None]
    #: of one DAG: what it follows, and what of that is met
    awaits: NotRequired[list[DagsAwaited] | None]
    #: what its code was deployed in
    bundle: NotRequired[str | None]
    dropped_fires: dict[str, int]
    last_dropped: DagsLastDropped | None


class DagsUpdate(TypedDict):
    """One update of an asset: an attempt that succeeded."""

    run_id: str
    task: str
    attempt: int
    dag_id: str
    at: str


class DagsAsset(TypedDict):
    """Something that tasks update and DAGs consume."""

    asset: str
    producers: list[str]
    consumers: list[str]
    updates: int
    updated_at: str | None
    #: newest first, at most 20
    last_updates: list[DagsUpdate]


class DagsUncached(TypedDict):
    """Attempts that had begun then do not count any more; `task` None: of all tasks."""

    dag_id: str
    task: str | None
    uncached_at: str
