"""From a plan's files to the run that works through it: what an instance is made of.

    plan file ──parse──▶ document ──executor──▶ definition `@plan/<name>`
    status.json ──merge──▶ what is done already, and the document that the instance goes on with

What was in progress or failed is pending, as nobody works on it: a failed task has all its retries again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from actors.plan_store import PLANS, PlanStore
from actors.settings import Settings
from orchestrator import events as e
from orchestrator import plan_entry, plan_status
from orchestrator.definition import HIDDEN, Definition
from orchestrator.errors import NotFound
from orchestrator.instance_views import InstanceWanted
from orchestrator.plan_file import PlanDocument
from orchestrator.plan_graph import compile_plan
from orchestrator.plan_status import PlanStatus
from serve_app.executors import PlanFacts, executor_for

KIND = f"{HIDDEN}plan"
#: instances never wait for one another
ACTIVE_MAX = 1_000_000_000


def dag_of(plan: str) -> str:
    """The id of the definition of a plan of that name."""
    return f"{KIND}/{plan}"


def prepared(store: PlanStore, settings: Settings, wanted: InstanceWanted, now: datetime) -> tuple[Definition, e.Plan]:
    """What the instance is to run, and the plan as it stands. Blocks. Raises NotFound, Invalid, Unavailable."""
    file = store.plan(wanted.plan)
    document = store.document(wanted.plan)
    executor = wanted.executor or settings.executor
    facts = PlanFacts(wanted.plan, Path(file.path), document)
    definition = compile_plan(
        document,
        executor_for(executor, settings.executors_file, facts, settings.task_stuck_s),
        dag_id=dag_of(wanted.plan),
        owner="",
        batch_size=wanted.batch_size,
        max_iterations=wanted.max_iterations,
        max_retries=wanted.max_retries,
    )
    status = _status(store, wanted.plan, document, now)
    plan = _plan(wanted, file.path, executor, document, status)
    return msgspec.structs.replace(definition, isolation="dedicated", max_active_runs=ACTIVE_MAX), plan


def _status(store: PlanStore, name: str, document: PlanDocument, now: datetime) -> PlanStatus:
    try:
        known = store.status(name)
    except NotFound:
        known = plan_status.new(document, (PLANS / f"{name}.md").as_posix(), now)
    merged = plan_status.merge(known, document, now)
    return plan_status.apply(merged, *_fresh(merged, now))


def _fresh(status: PlanStatus, now: datetime) -> list[plan_status.Change]:
    """What makes every task that is neither completed nor skipped a pending one."""
    out: list[plan_status.Change] = []
    for entry in status.raw["tasks"]:
        match entry["status"]:
            case "pending" | "completed" | "skipped":
                continue
            case "failed":
                out.append(plan_entry.TriedAgain(entry["id"], now, 0))
            case _:
                out.append(plan_entry.Reset(entry["id"], now))
    return out


def _plan(wanted: InstanceWanted, path: str, executor: str, document: PlanDocument, status: PlanStatus) -> e.Plan:
    views = [plan_entry.entry_view(entry) for entry in status.raw["tasks"]]
    retried: Mapping[str, int] = {view.task_id: view.retry_count for view in views if view.retry_count}
    return e.Plan(
        name=wanted.plan,
        path=path,
        executor=executor,
        max_iterations=wanted.max_iterations,
        status=msgspec.Raw(msgspec.json.encode(status.raw)),
        texts={task.task_id: task.description for task in document.tasks},
        done=tuple(view.task_id for view in views if view.status == "completed"),
        skipped=tuple(view.task_id for view in views if view.status == "skipped"),
        retried=dict(retried),
    )
