"""A DAG as its author writes it: JSON, YAML, or what `authoring.py` makes of decorated Python.

    body ──JSON we can keep?──▶ `spec_form` ──▶ `spec_checks`: types, rules, schedule, graph ──▶ Definition

All three ways in end in `parse_dag`, so a bound holds everywhere or nowhere. Whatever is wrong raises `Invalid`, never
another exception; its details name each field by its path in the body. The shape is section 1 of the dags contract,
with these additive keys: of a DAG `isolation`, `run_timeout_s`, `weight`, `partitions` and those of its schedule
(`calendar`, `start_at`, `end_at`, `jitter_s`; `overlap` also takes `cancel_previous`); of a task `inputs`,
`retry_cap_s`, `trigger_rule`, `branch`, `teardown_of`, `on_failure_fail_run`, `compensates` (docs/graphs.md tells
them), `expand`, `max_active`, `tolerated_failures` (docs/mapping.md), those of deadlines (docs/deadlines.md), told by
docs/limits.md `pool` and `limits` of a task and `max_active_tasks` of a DAG, by docs/caching.md `cache_ttl_s` with
what goes with it, by docs/triggers.md `after`, `after_rule`, `consumes` and `on_event` of a DAG and `produces` of
a task, and by docs/data.md `durability` of a task. Unknown keys are ignored.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from pydantic import ValidationError

from orchestrator import cache_form, graph, partitions, policies, task_shapes
from orchestrator.dates import instant_text, parse_instant
from orchestrator.definition import MARK, Calendar, Definition, LimitUse, RetryPolicy, TaskSpec
from orchestrator.errors import Invalid
from orchestrator.faults import Fault, json_fault, refusal
from orchestrator.needs import DEFAULT_POOL
from orchestrator.spec_checks import check_meaning
from orchestrator.spec_form import CalendarBody, DagBody, TaskBody


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
    check_meaning(definition)
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
