"""A DAG as its author writes it: JSON, YAML, or what `authoring.py` makes of decorated Python.

    body ──JSON we can keep?──▶ pydantic ──▶ supported? ──▶ types, schedule, graph ──▶ Definition

All three ways in end in `parse_dag`, so a bound holds everywhere or nowhere. Whatever is wrong raises `Invalid`, never
another exception; its details name each field by its path in the body. The shape is section 1 of the dags contract,
with these additive keys: of a DAG `isolation`, `run_timeout_s`, `weight`, `partitions` and those of its schedule
(`calendar`, `start_at`, `end_at`, `jitter_s`; `overlap` also takes `cancel_previous`); of a task `inputs`,
`retry_cap_s`, `trigger_rule`, `branch`, `teardown_of`, `on_failure_fail_run`, `compensates` (docs/graphs.md tells
them), `expand`, `max_active`, `tolerated_failures` (docs/mapping.md), those of deadlines (docs/deadlines.md), told by
docs/limits.md `pool` and `limits` of a task and `max_active_tasks` of a DAG, by docs/caching.md `cache_ttl_s` with
what goes with it, by docs/triggers.md `after`, `after_rule`, `consumes` and `on_event` of a DAG and `produces` of
a task, and by docs/data.md `durability` of a task. Unknown keys are ignored.

pydantic is imported here and in no other module of the core.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from orchestrator import awaited, cache_form, durability, graph, kinds, map_form, partitions, policies, task_shapes
from orchestrator.binding import own, place
from orchestrator.dates import instant_text, parse_instant
from orchestrator.definition import (
    MARK,
    WAITING_TYPES,
    AfterRule,
    Calendar,
    Catchup,
    Definition,
    Durability,
    Isolation,
    LimitUse,
    Overlap,
    RetryPolicy,
    SlaAction,
    TaskSpec,
    TriggerRule,
)
from orchestrator.errors import Invalid, PermanentFailure
from orchestrator.faults import DEPTH_MAX, Fault, json_fault, refusal
from orchestrator.grouping import within
from orchestrator.mapped import INSTANCES_MAX
from orchestrator.needs import DEFAULT_POOL, LIMITS_MAX, POOL, SLOTS_MAX, template_fault
from orchestrator.task_shape_form import ResourcesBody

TASKS_MAX = 50_000
#: teardowns of a DAG, and setups of a teardown
TEARDOWNS_MAX = 100
SETUPS_MAX = 100
#: compensations of a DAG
COMPENSATIONS_MAX = 1000
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


def parse_dag(body: object) -> tuple[Definition, bool]:
    """The definition `body` describes, and whether it said anything about tasks. Raises Invalid."""
    if not isinstance(body, dict):
        raise Invalid("a DAG must be a JSON object")
    if fault := json_fault(body):
        raise refusal([fault])
    try:
        dag = DagBody.model_validate(body)
    except ValidationError as error:
        raise refusal([_worded(one) for one in error.errors(include_url=False, include_input=False)]) from None
    definition = _definition(dag)
    _check_meaning(definition)
    tasks = tuple(_with_all_needs(task) for task in definition.tasks)
    return msgspec.structs.replace(definition, tasks=tasks), "tasks" in dag.model_fields_set


def from_json(text: str | bytes) -> Definition:
    """The definition in a JSON text. Raises Invalid."""
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Invalid(f"malformed JSON: {error}") from None
    return parse_dag(body)[0]


def from_yaml(text: str) -> Definition:
    """The definition in a YAML text (one document). Raises Invalid. Dates stay the text they are."""
    import yaml

    try:
        body = yaml.load(text, _yaml_loader())
    except Exception as error:  # PyYAML lets through whatever its constructors run into
        raise Invalid(f"malformed YAML: {error}") from None
    return parse_dag(body)[0]


def to_json(definition: Definition) -> dict[str, Any]:
    """The body that `parse_dag` reads as `definition`: the contract's keys, additive ones when not their default."""
    body: dict[str, Any] = {
        "dag_id": definition.dag_id,
        "owner": definition.owner,
        "schedule": definition.schedule,
        "timezone": definition.timezone,
        "tasks": [_task_json(task) for task in definition.tasks],
        "catchup": definition.catchup,
        "overlap": definition.overlap,
        "max_active_runs": definition.max_active_runs,
        "sla_s": definition.sla_s,
        "callback_url": definition.callback_url,
        "tags": list(definition.tags),
    }
    plain = Definition(dag_id="", owner="")
    for key in (
        "description",
        "isolation",
        "max_active_tasks",
        "run_timeout_s",
        "queue_timeout_s",
        "start_at",
        "end_at",
        "jitter_s",
        "after_rule",
        "on_event",
        "weight",
    ):
        if getattr(definition, key) != getattr(plain, key):
            body[key] = getattr(definition, key)
    if definition.on_sla_miss != MARK:
        body["on_sla_miss"] = list(definition.on_sla_miss)
    for key in ("after", "consumes"):
        if getattr(definition, key):
            body[key] = list(getattr(definition, key))
    if definition.partitions:
        body["partitions"] = partitions.lists(definition.partitions)
    if definition.calendar is not None:
        body["calendar"] = {
            name: list(value) for name, value in msgspec.structs.asdict(definition.calendar).items() if value
        }
    return body


def check_origin(
    definition: Definition,
    *,
    over_http: bool,
    allow_shell: bool,
    entrypoint_prefixes: tuple[str, ...],
    admin: bool,
) -> None:
    """Where `definition` came from may bring code that runs here (contracts README, section 2). Raises Invalid."""
    if not over_http:
        return
    faults: list[Fault] = []
    for position, task in enumerate(definition.tasks):
        if task.type == "bash" and not allow_shell:
            faults.append((f"tasks/{position}/type", "bash over HTTP needs ORCHESTRATOR_ALLOW_SHELL=1 on the server"))
        elif task.entrypoint is not None and not _allowed(task.entrypoint, entrypoint_prefixes):
            faults.append((f"tasks/{position}/entrypoint", "no prefix in ORCHESTRATOR_ENTRYPOINT_ALLOW allows it"))
        elif (task.type == "bash" or task.entrypoint is not None) and not admin:
            field = "type" if task.entrypoint is None else "entrypoint"
            faults.append((f"tasks/{position}/{field}", "needs a token with scope admin"))
    if faults:
        raise refusal(faults)


def _yaml_loader() -> Any:
    """The safe loader without its rule that makes dates of text. Not CSafeLoader: deep nesting crashes the process."""
    import yaml

    resolvers = {
        first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return type("Loader", (yaml.SafeLoader,), {"yaml_implicit_resolvers": resolvers})


def _allowed(entrypoint: str, prefixes: tuple[str, ...]) -> bool:
    return any(prefix and entrypoint.startswith(prefix) for prefix in prefixes)


def _worded(error: Any) -> Fault:
    """A pydantic error in our words."""
    field = "/".join(str(step) for step in error["loc"])
    match error["type"]:
        case "missing":
            return field, "is required"
        case "string_pattern_mismatch":
            return field, f"must match {error['ctx']['pattern']}"
    return field, re.sub(r"^\w+ should", "must", str(error["msg"]))


def _definition(dag: DagBody) -> Definition:
    made = Definition(
        dag_id=dag.dag_id,
        owner=dag.owner,
        schedule=dag.schedule,
        timezone=dag.timezone,
        tasks=tuple(_task(position, task) for position, task in enumerate(dag.tasks)),
        catchup=dag.catchup,
        overlap=dag.overlap,
        max_active_runs=dag.max_active_runs,
        sla_s=dag.sla_s,
        on_sla_miss=policies.actions(dag.on_sla_miss),
        run_timeout_s=dag.run_timeout_s,
        queue_timeout_s=dag.queue_timeout_s,
        callback_url=dag.callback_url,
        description=dag.description,
        tags=tuple(dag.tags),
        isolation=dag.isolation,
        calendar=_calendar(dag.calendar),
        start_at=instant_text(parse_instant(dag.start_at, "start_at")) if dag.start_at is not None else None,
        end_at=instant_text(parse_instant(dag.end_at, "end_at")) if dag.end_at is not None else None,
        weight=dag.weight,
    )
    if dag.partitions is not None:
        made = msgspec.structs.replace(made, partitions=partitions.parse(dag.partitions))
    # a default that is another object would be written, and change the hashes of definitions without jitter
    made = msgspec.structs.replace(made, jitter_s=dag.jitter_s) if dag.jitter_s else made
    after, consumes = tuple(dict.fromkeys(dag.after)), tuple(dict.fromkeys(dag.consumes))
    if after or consumes or dag.on_event or dag.after_rule != "all":
        followed = {"after": after, "after_rule": dag.after_rule, "consumes": consumes, "on_event": dag.on_event}
        made = msgspec.structs.replace(made, **followed)
    return msgspec.structs.replace(made, max_active_tasks=dag.max_active_tasks)


def _calendar(body: CalendarBody | None) -> Calendar | None:
    """None when it changes nothing."""
    if body is None:
        return None
    weekdays = None if body.weekdays is None else tuple(name.lower() for name in body.weekdays)
    calendar = Calendar(tuple(body.exclude), tuple(body.include), weekdays)
    return None if calendar == Calendar() else calendar


def _task(position: int, task: TaskBody) -> TaskSpec:
    if task.type is not None and task.entrypoint is not None:
        raise refusal([(f"tasks/{position}", "give type or entrypoint, not both")])
    resources = task.resources.read() if task.resources is not None else None
    if resources is not None and (wrong := task_shapes.faults(position, resources, task.pool != DEFAULT_POOL)):
        raise refusal(wrong)
    return TaskSpec(
        id=task.id,
        type="python" if task.entrypoint is not None else task.type or "core.noop",
        depends_on=tuple(task.depends_on),
        entrypoint=task.entrypoint,
        params=task.params,
        inputs=task.inputs,
        retries=task.retries,
        retry_delay_s=task.retry_delay_s,
        retry_cap_s=task.retry_cap_s,
        timeout_s=task.timeout_s,
        sla_s=task.sla_s,
        on_sla_miss=policies.actions(task.on_sla_miss),
        queue_timeout_s=task.queue_timeout_s,
        heartbeat_timeout_s=task.heartbeat_timeout_s,
        retry_on=tuple(task.retry_on),
        no_retry_on=tuple(task.no_retry_on),
        retry_policies=tuple(
            RetryPolicy(tuple(each.exceptions), each.retries, each.retry_delay_s) for each in task.retry_policies
        ),
        retry_exit_codes=tuple(task.retry_exit_codes),
        retry_statuses=tuple(task.retry_statuses),
        priority=task.priority,
        trigger_rule=task.trigger_rule,
        branch=task.branch,
        teardown_of=tuple(task.teardown_of),
        on_failure_fail_run=task.on_failure_fail_run,
        expand=task.expand,
        max_active=task.max_active,
        tolerated_failures=task.tolerated_failures,
        compensates=task.compensates,
        group=task.group,
        pool=task.pool if resources is None else task_shapes.pool_for(resources),
        resources=resources,
        produces=tuple(dict.fromkeys(task.produces)),
        limits=tuple(LimitUse(use) if isinstance(use, str) else LimitUse(use.name, use.slots) for use in task.limits),
        cache_ttl_s=task.cache_ttl_s,
        cache_key=task.cache_key,
        cache_version=task.cache_version,
        cache_window=task.cache_window,
        durability=task.durability,
    )


def _check_meaning(definition: Definition) -> None:
    from orchestrator.fires import timetable_of

    timetable_of(definition, "")
    faults = [
        (f"tasks/{position}/{field}", problem)
        for position, task in enumerate(definition.tasks)
        for field, problem in (*kinds.faults(task), *_misplaced(task), *_misnamed(task))
    ]
    faults += _misused_teardowns(definition.tasks)
    faults += map_form.misused(definition.tasks)
    faults += policies.faults(definition)
    faults += cache_form.faults(definition)
    faults += awaited.faults(definition)
    faults += durability.faults(definition)
    faults += _misused_compensations(definition.tasks)
    faults = faults or list(_misnamed_ways(definition.tasks))
    if faults:
        raise refusal(faults)
    graph.check(definition.tasks)


def _misused_teardowns(tasks: tuple[TaskSpec, ...]) -> Iterator[Fault]:
    """Teardowns end what their setups began: they obey no other rule, and nothing else comes after them."""
    teardowns = {task.id for task in tasks if task.teardown_of}
    branches = {task.id for task in tasks if task.branch} if teardowns else set()
    if len(teardowns) > TEARDOWNS_MAX:
        yield "tasks", f"at most {TEARDOWNS_MAX} of them may be teardowns"
    for position, task in enumerate(tasks):
        where = f"tasks/{position}"
        if not task.teardown_of:
            if task.on_failure_fail_run:
                yield f"{where}/on_failure_fail_run", "is for teardowns: it needs teardown_of"
            if teardowns and (after := teardowns.intersection(graph.needs(task))):
                yield f"{where}/depends_on", f"{min(after)!r} is a teardown: only teardowns may come after it"
            continue
        if task.trigger_rule != "all_success":
            yield f"{where}/trigger_rule", "a teardown has a rule of its own"
        if task.branch:
            yield f"{where}/branch", "a teardown cannot be a branch"
        for number, name in enumerate(task.teardown_of):
            if name in teardowns or name in branches:
                kind = "teardown" if name in teardowns else "branch"
                yield f"{where}/teardown_of/{number}", f"{name!r} is a {kind} and cannot be a setup"


def _misnamed_ways(tasks: tuple[TaskSpec, ...]) -> Iterator[Fault]:
    """Choices of approvals lead to tasks that come directly after them."""
    for position, task in enumerate(tasks):
        if task.type != "core.approval" or "branches" not in task.params:
            continue
        below = {other.id for other in tasks if task.id in graph.needs(other)}
        named = {name: choice for choice, names in own(task.params["branches"]).items() for name in names}
        for name in (name for name in named if not below.intersection((name, within(task.group, name)))):
            yield f"tasks/{position}/params/branches/{named[name]}", f"{name!r} is not a direct dependent"


def _misused_compensations(tasks: tuple[TaskSpec, ...]) -> Iterator[Fault]:
    """A compensation undoes one task that nothing else undoes; the end of the run starts it, and nothing follows it."""
    undoes = {task.id: task.compensates for task in tasks if task.compensates is not None}
    if not undoes:
        return
    if len(undoes) > COMPENSATIONS_MAX:
        yield "tasks", f"at most {COMPENSATIONS_MAX} of them may be compensations"
    teardowns = {task.id for task in tasks if task.teardown_of}
    first: dict[str, str] = {}
    for position, task in enumerate(tasks):
        where, undone = f"tasks/{position}", task.compensates
        if after := undoes.keys() & set(graph.needs(task)) - {undone}:
            yield f"{where}/depends_on", f"{min(after)!r} is a compensation: no task may come after it"
        if undone is None:
            continue
        if task.trigger_rule != "all_success":
            yield f"{where}/trigger_rule", "a compensation has a rule of its own"
        if task.branch or task.teardown_of:
            yield f"{where}/compensates", f"a {'branch' if task.branch else 'teardown'} cannot be a compensation"
        if task.expand or task.type in WAITING_TYPES:
            kind = "mapped task" if task.expand else "task that waits"
            yield f"{where}/compensates", f"a {kind} cannot be a compensation"
        if undone in undoes or undone in teardowns:
            kind = "compensation" if undone in undoes else "teardown"
            yield f"{where}/compensates", f"{undone!r} is a {kind} and cannot be compensated"
        if first.setdefault(undone, task.id) != task.id:
            yield f"{where}/compensates", f"{undone!r} has a compensation already: {first[undone]!r}"


def _misnamed(task: TaskSpec) -> Iterator[Fault]:
    """Limits that could not be defined."""
    for number, use in enumerate(task.limits):
        if problem := template_fault(use.name):
            yield f"limits/{number}", problem


def _misplaced(task: TaskSpec) -> Iterator[Fault]:
    """Inputs whose path leads nowhere in the params, or through another input."""
    paths = (*task.inputs, *task.expand)
    if not any("/" in path for path in paths):
        return
    params = {name: copy.deepcopy(own(value)) for name, value in task.params.items()}
    for path in sorted(paths, key=lambda path: path.count("/")):
        if path.count("/") >= DEPTH_MAX:
            yield f"{_key(task, path)}/{path}", f"is deeper than {DEPTH_MAX} levels"
            return
        try:
            place(params, {path: ...})
        except PermanentFailure:
            yield f"{_key(task, path)}/{path}", "has no place in the params"


def _key(task: TaskSpec, path: str) -> str:
    return "inputs" if path in task.inputs else "expand"


def _with_all_needs(task: TaskSpec) -> TaskSpec:
    """`task` with the producers of its inputs among its dependencies."""
    needs = graph.needs(task)
    return task if needs == task.depends_on else msgspec.structs.replace(task, depends_on=needs)


def _task_json(task: TaskSpec) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": task.id,
        "depends_on": list(task.depends_on),
        **({"entrypoint": task.entrypoint} if task.entrypoint is not None else {"type": task.type}),
        "params": task.params,
        "retries": task.retries,
        "retry_delay_s": task.retry_delay_s,
        "timeout_s": task.timeout_s,
        "sla_s": task.sla_s,
        "priority": task.priority,
    }
    plain = TaskSpec(id="")
    for key in (
        "inputs",
        "retry_cap_s",
        "pool",
        "trigger_rule",
        "branch",
        "on_failure_fail_run",
        "expand",
        "max_active",
        "compensates",
        "group",
        *policies.SPANS,
        "cache_ttl_s",
        *cache_form.MORE,
        "durability",
    ):
        if getattr(task, key) != getattr(plain, key):
            body[key] = getattr(task, key)
    if task.tolerated_failures:
        body["tolerated_failures"] = task.tolerated_failures
    if task.resources is not None:
        body["resources"] = task_shapes.to_json(task.resources)
        body.pop("pool", None)
    for key in ("teardown_of", "on_sla_miss", "produces", *policies.LISTS):
        if getattr(task, key) != getattr(plain, key):
            body[key] = list(getattr(task, key))
    if task.retry_policies:
        body["retry_policies"] = [policies.policy_json(policy) for policy in task.retry_policies]
    if task.limits:
        body["limits"] = [use.name if use.slots == 1 else {"name": use.name, "slots": use.slots} for use in task.limits]
    return body
