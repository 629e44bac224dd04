"""Bodies, headers and queries of this surface, read into what the gateway takes. All raise Invalid.

The definition in POST /dags is read by `orchestrator.spec`; the rest here. A date window is two days, both
inclusive; an instant window, for manual runs only, is two RFC 3339 instants in `Z`, the second exclusive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import cast

from orchestrator import dates, spec, windows
from orchestrator.definition import Definition, RunType
from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.views import Trigger
from serve_app.ports import Expect
from serve_app.requests import Fields, object_of, whole_number, word
from serve_app.surfaces.dags import paging

DAG_ID = spec.DAG_ID.removeprefix("^").removesuffix("$")
TASK_ID = spec.TASK_ID.removeprefix("^").removesuffix("$")
#: runs born on another surface keep that surface's id
RUN_ID = r"[A-Za-z0-9_.:-]{1,128}"
WORKER_ID = r"[A-Za-z0-9_.:-]{1,250}"

MOST_RUNS_IN_BATCH = 10_000
MOST_WORKERS = 512
MOST_WEIGHT = 1000
#: ticks of a preview
MOST_TICKS = 200
TICKS = 10
MOST_ATTEMPTS = 10**9
#: seconds a request for a run may wait for its end
MOST_WAIT_S = 60
MOST_VERSIONS = 10**15

_OF_SCHEDULES = ("dag_id", "schedule", "timezone", "calendar", "start_at", "end_at", "jitter_s")
_RUN_TYPES = ("manual", "backfill")
_REPROCESS = ("none", "failed", "completed")
_ON_VERSION = ("current", "pinned")

_FORMS = MappingProxyType(
    {
        kind: re.compile(form, re.ASCII)
        for kind, form in {"dag": DAG_ID, "task": TASK_ID, "run": RUN_ID, "worker": WORKER_ID}.items()
    }
)
_IF_MATCH = re.compile(r'(?:W/)?(?:"(\d{1,15})"|(\d{1,15}))', re.ASCII)

#: status in a query -> is the DAG paused
_STATUSES = MappingProxyType({"active": False, "paused": True})
#: state in a query -> core states it stands for
RUN_STATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "queued": ("queued",),
        "running": ("running", "paused"),
        "success": ("succeeded",),
        "failed": ("failed", "timed_out", "quarantined"),
        "cancelled": ("cancelled", "cancelling"),
    }
)
LISTED_RUN_TYPES = MappingProxyType({each: each for each in ("manual", "backfill", "scheduled")})


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """A body of POST /runs."""

    trigger: Trigger
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """Where in a list, and how much of it."""

    cursor: str | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsQuery:
    """Query of GET /runs."""

    dag_id: str | None
    #: core states, each to be asked for; None in it = any
    states: tuple[str | None, ...]
    run_type: str | None
    parent_run_id: str | None


def known_form(kind: str, given: str) -> str:
    """`given` itself. Raises NotFound when nothing of that kind can have such an id."""
    if not _FORMS[kind].fullmatch(given):
        raise NotFound(kind, repr(given[:100]))
    return given


def asks_for_backfill(body: object) -> bool:
    """True when scope admin is needed, whatever else the body says: a backfill that is no dry run."""
    return isinstance(body, dict) and body.get("run_type") == "backfill" and body.get("dry_run") is not True


def trigger_request(body: object) -> TriggerRequest:
    """One body of POST /runs."""
    fields = Fields(body)
    dag_id = fields.text("dag_id", required=True)
    if dag_id is not None and not _FORMS["dag"].fullmatch(dag_id):
        fields.wrong("dag_id", f"{DAG_ID} expected")
    run_type = fields.choice("run_type", _RUN_TYPES, "manual")
    start, end = _window(fields, run_type)
    trigger = Trigger(
        dag_id=dag_id or "",
        run_type=cast(RunType, run_type),
        start=start,
        end=end,
        params=fields.mapping("params"),
        plan_hash=fields.text("plan_hash", shortest=1),
        max_active_runs=fields.whole("max_active_runs", 1, 1000),
        run_backwards=fields.flag("run_backwards"),
        reprocess=fields.choice("reprocess", _REPROCESS, "none"),
        pinned_version=fields.choice("on_version", _ON_VERSION, "current") == "pinned",
    )
    dry_run = fields.flag("dry_run")
    fields.check()
    return TriggerRequest(trigger, dry_run)


def batch_request(body: object) -> list[Trigger | Invalid]:
    """Bodies of POST /runs/batch in order; a bad one stands as its error."""
    entries = object_of(body).get("runs")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_RUNS_IN_BATCH:
        message = f"array of 1 to {MOST_RUNS_IN_BATCH} runs expected"
        raise Invalid(f"runs: {message}", (("runs", message),))
    return [_batch_entry(each) for each in entries]


def reason(body: object) -> str | None:
    """The reason in a pause or resume."""
    fields = Fields(body)
    text = fields.text("reason")
    fields.check()
    return text


def scale(body: object) -> tuple[str, int]:
    """Pool and number of POST /workers/scale."""
    fields = Fields(body)
    pool = fields.text("pool", shortest=1, longest=63)
    n = fields.whole("n", 0, MOST_WORKERS, required=True)
    fields.check()
    return pool or "default", n or 0


def share(body: object) -> tuple[str, int]:
    """Tenant and weight of POST /shares."""
    fields = Fields(body)
    tenant = fields.text("tenant", required=True, shortest=1, longest=100)
    weight = fields.whole("weight", 1, MOST_WEIGHT, required=True)
    fields.check()
    return tenant or "", weight or 1


def expected_version(body: object, if_match: str | None) -> Expect:
    """The precondition in body or header. Raises Conflict when they name different versions."""
    fields = Fields(body)
    in_body = fields.whole("version", 1, MOST_VERSIONS)
    fields.check()
    in_header = _if_match(if_match)
    if in_body is None:
        return in_header
    if isinstance(in_header, int) and in_header != in_body:
        raise Conflict(f"version {in_body} in the body, {in_header} in If-Match")
    return in_body


def page_query(of: str, query: Mapping[str, str]) -> PageQuery:
    """`cursor` and `limit` of the list `of`."""
    limit = whole_number("limit", query.get("limit"), 1, 200) or 50
    return PageQuery(cursor=paging.cursor_of(of, query.get("cursor")), limit=limit)


def dags_query(query: Mapping[str, str]) -> tuple[bool | None, str | None]:
    """`status`, as "is paused", and `owner`."""
    return word("status", query.get("status"), _STATUSES), query.get("owner")


def runs_query(query: Mapping[str, str]) -> RunsQuery | None:
    """The filters of GET /runs; None when no run can pass them."""
    dag_id, parent = query.get("dag_id"), query.get("parent_run_id")
    states = word("state", query.get("state"), RUN_STATES)
    run_type = word("run_type", query.get("run_type"), LISTED_RUN_TYPES)
    if not _may_exist("dag", dag_id) or not _may_exist("run", parent):
        return None
    return RunsQuery(dag_id=dag_id, states=states or (None,), run_type=run_type, parent_run_id=parent)


def preview_query(query: Mapping[str, str]) -> tuple[int, datetime | None]:
    """`n` and `from` of a preview."""
    n = whole_number("n", query.get("n"), 1, MOST_TICKS) or TICKS
    start = query.get("from")
    return n, dates.parse_instant(start, "from") if start is not None else None


def preview_request(body: object) -> tuple[Definition, int, datetime | None]:
    """A schedule that need not be deployed, as a DAG without tasks; `n` and `from`."""
    fields = Fields(body)
    fields.text("schedule", shortest=1, required=True)
    n, start = fields.whole("n", 1, MOST_TICKS), fields.text("from", longest=50)
    fields.check()
    told = {name: value for name, value in object_of(body).items() if name in _OF_SCHEDULES}
    definition, _ = spec.parse_dag({"dag_id": "-", "owner": "-", **told})
    return definition, n or TICKS, dates.parse_instant(start, "from") if start is not None else None


def attempt_query(query: Mapping[str, str]) -> int | None:
    """`attempt` of the logs."""
    return whole_number("attempt", query.get("attempt"), 1, MOST_ATTEMPTS)


def _may_exist(kind: str, given: str | None) -> bool:
    return given is None or _FORMS[kind].fullmatch(given) is not None


def _batch_entry(body: object) -> Trigger | Invalid:
    try:
        request = trigger_request(body)
    except Invalid as error:
        return error
    if request.trigger.run_type != "manual":
        return Invalid("a batch holds manual runs only", (("run_type", "manual expected"),))
    if request.dry_run:
        return Invalid("a batch has no dry runs", (("dry_run", "not possible in a batch"),))
    return request.trigger


def _if_match(header: str | None) -> Expect:
    if header is None:
        return None
    if header.strip() == "*":
        return "any"
    if (found := _IF_MATCH.fullmatch(header.strip())) is None:
        raise Invalid('If-Match must be * or a version like "3"', (("If-Match", 'version like "3" expected'),))
    return int(found[1] or found[2])


def _window(fields: Fields, run_type: str) -> tuple[str | None, str | None]:
    """`from` and `to` in their one spelling."""
    start, end = fields.text("from", longest=50), fields.text("to", longest=50)
    try:
        if run_type == "backfill":
            return _days(start, end)
        window = windows.manual_window(start, end)
        return (None, None) if window is None else (window.start, window.end)
    except Invalid as error:
        fields.refused(error)
        return None, None


def _days(start: str | None, end: str | None) -> tuple[str, str]:
    if missing := [name for name, text in (("from", start), ("to", end)) if text is None]:
        raise Invalid("a backfill needs from and to", tuple((name, "required") for name in missing))
    first, last = dates.parse_date(start or "", "from"), dates.parse_date(end or "", "to")
    if last < first:
        raise Invalid("to is before from", (("to", "before from"),))
    return first.isoformat(), last.isoformat()
