"""Bodies, headers and queries of this surface, read into what the gateway takes. All raise Invalid.

The definition in POST /dags is read by `orchestrator.spec`; the rest here. A date window is two days, both
inclusive; an instant window, for manual runs only, is two RFC 3339 instants in `Z`, the second exclusive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, cast

import orjson

from orchestrator import bundle, dates, partitions, published, spec, spec_form, windows
from orchestrator.definition import Definition, Dimension, RunType
from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.faults import json_fault, refusal
from orchestrator.limits import COUNT_MAX, PER_S_MAX, PER_S_MIN, Limit, Rate
from orchestrator.needs import POOL
from orchestrator.starts import Trigger, Widening
from serve_app.ports import Expect
from serve_app.requests import Fields, object_of, whole_number, word
from serve_app.surfaces.dags import paging

DAG_ID = spec_form.DAG_ID.removeprefix("^").removesuffix("$")
TASK_ID = spec_form.TASK_ID.removeprefix("^").removesuffix("$")
#: runs born on another surface keep that surface's id
RUN_ID = r"[A-Za-z0-9_.:-]{1,128}"
SIGNAL_NAME = r"[A-Za-z0-9_.:-]{1,128}"
WORKER_ID = r"[A-Za-z0-9_.:-]{1,250}"
#: of a limit; one `*` at the end makes it a pattern
LIMIT_NAME = r"[^/\s*\x00-\x1f\x7f]{1,200}\*?"

POOL_NAME = POOL.removeprefix("^").removesuffix("$")
EVENT_ID = r"[A-Za-z0-9_.:~@+=-]{1,200}"

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
#: bytes of the data of a signal, as JSON
MOST_SIGNAL_BYTES = 65_536
LONGEST_COMMENT = 1000
#: seconds: a hundred years
LONGEST_SPAN_S = 3_155_760_000
#: of bundles that are pruned, when the caller does not say
GRACE_S = 3600
#: where an archive may be
ARCHIVE_URL = re.compile(r"^(/|[a-z][a-z0-9+.-]*://)[^\x00-\x20]*$")

_OF_SCHEDULES = ("dag_id", "schedule", "timezone", "calendar", "start_at", "end_at", "jitter_s")
_RUN_TYPES = ("manual", "backfill")
_REPROCESS = ("none", "failed", "completed")
_ON_VERSION = ("current", "pinned")

#: of a task, or of an instance of a mapped one
ANY_TASK_ID = TASK_ID + r"(\[\d{1,4}\])?"
_FORMS = MappingProxyType(
    {
        kind: re.compile(form, re.ASCII)
        for kind, form in {
            "bundle": bundle.ID,
            "dag": DAG_ID,
            "task": ANY_TASK_ID,
            "run": RUN_ID,
            "worker": WORKER_ID,
            "signal": SIGNAL_NAME,
            "query": published.NAME.pattern,
            "limit": LIMIT_NAME,
            "pool": POOL_NAME,
        }.items()
    }
)
_EVENT_ID = re.compile(EVENT_ID, re.ASCII)
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
ARCHIVED = MappingProxyType({"true": True, "false": False})
LISTED_RUN_TYPES = MappingProxyType({each: each for each in ("manual", "backfill", "scheduled")})


#: state of an instance in a query -> core states
TASK_STATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pending": ("pending",),
        "running": ("running",),
        "retrying": ("retrying",),
        "done": ("succeeded",),
        "failed": ("failed", "timed_out"),
        "cancelled": ("cancelled",),
        "skipped": ("skipped",),
        "upstream_failed": ("upstream_failed",),
    }
)


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
    #: of those that left for the archive; else of those that did not
    archived: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A vote."""

    choice: str
    comment: str | None
    #: for whom, when the caller names somebody
    by: str | None
    attempt: int | None


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
    if run_type == "manual":
        partition, asked = _partition(fields), None
    else:
        partition, asked = "", _partitions(fields)
    if (partition or asked) and (start or end):
        fields.wrong("from", "dates and partitions exclude each other")
    trigger = Trigger(
        dag_id=dag_id or "",
        run_type=cast(RunType, run_type),
        start=start,
        end=end,
        partition=partition,
        partitions=asked,
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


def event_request(dag_id: str, event_id: str, body: Mapping[str, Any]) -> Trigger:
    """A body of POST /dags/{dag_id}/trigger/{event_id}: what the event says, which becomes the run's params."""
    if not _EVENT_ID.fullmatch(event_id):
        raise Invalid(f"event_id must match ^{EVENT_ID}$", (("event_id", "of another form"),))
    if (fault := json_fault(body)) is not None:
        raise refusal([fault])
    return Trigger(dag_id=dag_id, event_id=event_id, params=dict(body))


def widening_request(body: object) -> tuple[Widening, bool]:
    """A body of POST /runs/{run_id}/widen, and whether it is a dry run."""
    fields = Fields(body)
    days = [_day(fields, name) for name in ("from", "to")]
    widening = Widening(
        start=days[0],
        end=days[1],
        partitions=_partitions(fields),
        params=fields.mapping("params"),
        plan_hash=fields.text("plan_hash", shortest=1),
        reprocess=fields.choice("reprocess", _REPROCESS, "none"),
        pinned_version=fields.choice("on_version", _ON_VERSION, "current") == "pinned",
    )
    if (widening.start or widening.end) and widening.partitions:
        fields.wrong("from", "dates and partitions exclude each other")
    elif not (widening.start or widening.end or widening.partitions):
        fields.wrong("from", "from, to or partitions expected")
    elif widening.start and widening.end and widening.end < widening.start:
        fields.wrong("to", "before from")
    dry_run = fields.flag("dry_run")
    fields.check()
    return widening, dry_run


def cap_request(body: object) -> int | None:
    """`max_active_runs` of POST /runs/{run_id}/cap: a number, or null for none."""
    fields = Fields(body)
    if "max_active_runs" not in object_of(body):
        fields.wrong("max_active_runs", "required; null for none")
    limit = fields.whole("max_active_runs", 1, 1000)
    fields.check()
    return limit


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


def signal_request(body: dict[str, object]) -> tuple[bytes, str | None]:
    """Data, as JSON, and id of a signal."""
    fields = Fields(body)
    signal_id = fields.text("signal_id", shortest=1, longest=128)
    if (fault := json_fault({"data": body.get("data")})) is not None:
        fields.wrong(*fault)
    fields.check()
    data = orjson.dumps(body.get("data"))
    if len(data) > MOST_SIGNAL_BYTES:
        fields.wrong("data", f"at most {MOST_SIGNAL_BYTES} bytes of JSON expected")
    fields.check()
    return data, signal_id


def decision_request(body: object) -> Decision:
    """A body of POST …/decision."""
    fields = Fields(body)
    choice = fields.text("choice", required=True, shortest=1, longest=128)
    comment = fields.text("comment", longest=LONGEST_COMMENT)
    by = fields.text("by", shortest=1, longest=200)
    attempt = fields.whole("attempt", 1, MOST_ATTEMPTS)
    fields.check()
    return Decision(choice=choice or "", comment=comment, by=by, attempt=attempt)


def approvals_query(query: Mapping[str, str]) -> tuple[str | None, str | None]:
    """`dag_id` and `run_id`."""
    return query.get("dag_id"), query.get("run_id")


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


def limit(body: object) -> Limit:
    """Body of PUT /limits/{name}."""
    fields = Fields(body)
    most = fields.whole("max_running", 0, COUNT_MAX)
    rate = object_of(body).get("rate")
    if rate is not None and not isinstance(rate, dict):
        fields.wrong("rate", "an object or null expected")
    fields.check()
    return Limit(most, _rate(rate) if isinstance(rate, dict) else None)


def sweep_request(body: object) -> tuple[timedelta, str | None]:
    """Body of POST /archive: how long ago runs ended that leave, and to where."""
    fields = Fields(body)
    older_than_s = fields.whole("older_than_s", 0, LONGEST_SPAN_S, required=True)
    to = fields.text("to", shortest=1, longest=1000)
    if to is not None and not ARCHIVE_URL.fullmatch(to):
        fields.wrong("to", "an absolute folder, or a URL such as s3://bucket/folder, expected")
    fields.check()
    return timedelta(seconds=older_than_s or 0), to


def prune_query(query: Mapping[str, str]) -> timedelta:
    """Query of DELETE /bundles: for how long nobody has touched what goes."""
    older_than_s = whole_number("older_than_s", query.get("older_than_s"), 0, LONGEST_SPAN_S)
    return timedelta(seconds=GRACE_S if older_than_s is None else older_than_s)


def _rate(body: Mapping[str, object]) -> Rate:
    fields = Fields(body)
    count = fields.whole("count", 1, COUNT_MAX, required=True)
    per_s = body.get("per_s", 1.0)
    if isinstance(per_s, bool) or not isinstance(per_s, int | float) or not PER_S_MIN <= per_s <= PER_S_MAX:
        fields.wrong("per_s", f"number from {PER_S_MIN:g} to {PER_S_MAX:g} expected")
    fields.check()
    assert isinstance(per_s, int | float), "checked above"
    return Rate(count or 0, float(per_s))


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


def task_query(query: Mapping[str, str]) -> str | None:
    """`task`: the id of a task, or none."""
    task = query.get("task")
    if task is not None and not re.fullmatch(TASK_ID, task):
        raise Invalid("task is no task id", (("task", f"must match ^{TASK_ID}$"),))
    return task


def page_query(of: str, query: Mapping[str, str]) -> PageQuery:
    """`cursor` and `limit` of the list `of`."""
    limit = whole_number("limit", query.get("limit"), 1, 200) or 50
    return PageQuery(cursor=paging.cursor_of(of, query.get("cursor")), limit=limit)


def instances_query(query: Mapping[str, str]) -> tuple[tuple[str, ...] | None, str | None, int]:
    """`state` as core states, `cursor` as an index, and `limit`."""
    states = word("state", query.get("state"), TASK_STATES)
    where = page_query("instances", query)
    if where.cursor is not None and not re.fullmatch(r"\d{1,4}", where.cursor, re.ASCII):
        raise Invalid("bad cursor", (("cursor", "not a cursor of instances"),))
    return states, where.cursor, where.limit


def dags_query(query: Mapping[str, str]) -> tuple[bool | None, str | None]:
    """`status`, as "is paused", and `owner`."""
    return word("status", query.get("status"), _STATUSES), query.get("owner")


def runs_query(query: Mapping[str, str]) -> RunsQuery | None:
    """The filters of GET /runs; None when no run can pass them."""
    dag_id, parent = query.get("dag_id"), query.get("parent_run_id")
    states = word("state", query.get("state"), RUN_STATES)
    run_type = word("run_type", query.get("run_type"), LISTED_RUN_TYPES)
    archived = word("archived", query.get("archived"), ARCHIVED) or False
    if not _may_exist("dag", dag_id) or not _may_exist("run", parent):
        return None
    return RunsQuery(
        dag_id=dag_id, states=states or (None,), run_type=run_type, parent_run_id=parent, archived=archived
    )


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
            # without dates it is over partitions: those of the DAG, when the request names none
            return (None, None) if start is None and end is None else _days(start, end)
        window = windows.manual_window(start, end)
        return (None, None) if window is None else (window.start, window.end)
    except Invalid as error:
        fields.refused(error)
        return None, None


def _day(fields: Fields, name: str) -> str | None:
    text = fields.text(name, longest=50)
    try:
        return None if text is None else dates.parse_date(text, name).isoformat()
    except Invalid as error:
        fields.refused(error)
        return None


def _partition(fields: Fields) -> str:
    given = fields.anything("partition")
    try:
        return "" if given is None else partitions.parse_one(given)
    except Invalid as error:
        fields.refused(error)
        return ""


def _partitions(fields: Fields) -> tuple[Dimension, ...] | None:
    given = fields.anything("partitions")
    try:
        return None if given is None else partitions.parse(given)
    except Invalid as error:
        fields.refused(error)
        return None


def _days(start: str | None, end: str | None) -> tuple[str, str]:
    if missing := [name for name, text in (("from", start), ("to", end)) if text is None]:
        raise Invalid("a backfill needs from and to", tuple((name, "required") for name in missing))
    first, last = dates.parse_date(start or "", "from"), dates.parse_date(end or "", "to")
    if last < first:
        raise Invalid("to is before from", (("to", "before from"),))
    return first.isoformat(), last.isoformat()
