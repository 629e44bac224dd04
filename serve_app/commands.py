"""The commands on DAGs, runs and workers: each is a request or two, and an answer for people or programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import quote

import typer

from orchestrator.client import dags as client
from orchestrator.errors import Invalid
from serve_app import screen
from serve_app.api_client import Api, Json
from serve_app.session import Session, command, group

_ENDED = {"success": 0, "failed": 3, "cancelled": 4}
_TASK_ENDED = frozenset({"done", "failed", "skipped", "upstream_failed", "cancelled"})
_INTERRUPTED = 130
#: seconds between two looks at when a backfill will be through
_ETA_EVERY_S = 2.0

DagId = Annotated[str, typer.Argument(metavar="DAG_ID")]
RunId = Annotated[str, typer.Argument(metavar="RUN_ID")]
Params = Annotated[list[str] | None, typer.Option("--param", metavar="K=V", help="Parameter; V as JSON or text.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit status tells it.")]
FirstDay = Annotated[str | None, typer.Option("--from", metavar="DATE", help="First day.")]
LastDay = Annotated[str | None, typer.Option("--to", metavar="DATE", help="Last day, inclusive.")]
Partitions = Annotated[
    list[str] | None,
    typer.Option("--partition", metavar="VALUE | NAME=VALUE", help="Instead of days; once for each value."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]
PlanHash = Annotated[str | None, typer.Option(help="Do exactly what the dry run with this hash told.")]
Reprocess = Annotated[str, typer.Option(help="Windows that ran already: none, failed or completed.")]
Limit = Annotated[int, typer.Option(min=1, help="At most this many.")]

#: characters of a node's id that tell it from others
_NODE_ID_SHOWN = 12

starting = group("Start runs.")
dags = group("DAG definitions.")
runs = group("Runs and backfills.")
workers = group("Worker slots of the cluster.")
shares = group("Weights of tenants in the shares of worker slots.")


# ------------------------------------------------------------------ DAGs


@command(dags, "list")
def dags_list(
    session: Session,
    owner: Annotated[str | None, typer.Option()] = None,
    status: Annotated[str | None, typer.Option(help="active or paused")] = None,
    limit: Limit = 200,
) -> None:
    """List the DAGs."""
    with session.api() as api:
        items = api.items("/dags", limit, owner=owner, status=status)
    if session.as_json:
        screen.print_json({"items": items})
        return
    columns = ("dag_id", "status", "version", "schedule", "owner", "next_run_at")
    screen.print_table(columns, ([each.get(column) for column in columns] for each in items))


@command(dags, "show")
def dags_show(session: Session, dag_id: DagId) -> None:
    """Show one DAG and its tasks."""
    with session.api() as api:
        dag = api.get(f"/dags/{dag_id}")
    if session.as_json:
        screen.print_json(dag)
        return
    screen.print_facts({name: value for name, value in dag.items() if name not in ("tasks", "awaits")})
    if dag.get("awaits"):
        screen.print_line("")
        waits = ((f"{a['kind']} {a['name']}", _met(a), ", ".join(map(screen.cause, a["by"]))) for a in dag["awaits"])
        screen.print_table(("waits for", "", "by"), waits)
    rows = ((t["id"], t.get("type") or t.get("entrypoint"), ", ".join(t["depends_on"])) for t in dag["tasks"])
    screen.print_line("")
    screen.print_table(("task", "type", "depends on"), rows)


def _met(awaited: Json) -> str:
    if not awaited["known"]:
        return "nobody has it"
    return "met" if awaited["met"] else "not yet"


@command(dags, "deploy")
def dags_deploy(session: Session, path: Annotated[Path, typer.Argument(metavar="FILE_OR_DIR")]) -> None:
    """Deploy the DAGs in a .py, .yaml or .json file, or in a folder of them."""
    from serve_app import deploy

    with session.api() as api:
        local = session.target().local
        deployed = deploy.deploy_local(api, session.home, path) if local else deploy.deploy_remote(api, path)
    if session.as_json:
        screen.print_json({"items": deployed})
        return
    for each in deployed:
        screen.print_line(f"{each['dag_id']} version {each['version']} {screen.shown(each['status'])}")


@command(dags, "preview")
def dags_preview(
    session: Session,
    dag_id: DagId,
    n: Annotated[int, typer.Option("-n", min=1, max=200, help="So many ticks.")] = 10,
    start: Annotated[str | None, typer.Option("--from", metavar="INSTANT", help="RFC 3339 in Z; now.")] = None,
) -> None:
    """Show when a DAG's schedule fires next, and what its calendar skips."""
    with session.api() as api:
        told = api.get(f"/dags/{dag_id}/schedule/preview", n=n, **({"from": start} if start else {}))
    if session.as_json:
        screen.print_json(told)
        return
    if not told["items"]:
        screen.print_line(f"{dag_id} has no schedule, or none that fires any more")
        return
    if told["paused"]:
        screen.print_line(f"{dag_id} is paused: nothing fires until it is resumed")
    rows = ((_minute(t["local"]), _minute(t["at"]), _delay(t), _span(t["window"]), _remark(t)) for t in told["items"])
    screen.print_table((told["timezone"], "UTC", "runs at", "window", ""), rows)


@command(dags, "pause")
def dags_pause(session: Session, dag_id: DagId) -> None:
    """Start nothing more of a DAG; what runs goes on."""
    _command(session, f"/dags/{dag_id}/pause", lambda a: f"{a['dag_id']} {screen.shown(a['status'])}")


@command(dags, "resume")
def dags_resume(session: Session, dag_id: DagId) -> None:
    """Let a DAG's runs start again."""
    _command(session, f"/dags/{dag_id}/resume", lambda a: f"{a['dag_id']} {screen.shown(a['status'])}")


@command(dags, "uncache")
def dags_uncache(
    session: Session, dag_id: DagId, task: Annotated[str | None, typer.Argument(metavar="[TASK]")] = None
) -> None:
    """Let a DAG's tasks, or one of them, compute anew instead of using results of earlier runs."""
    with session.api() as api:
        answer = api.run(client.uncache(dag_id, task))
    if session.as_json:
        screen.print_json(dict(answer))
    else:
        what = f"task {task} of {dag_id}" if task else f"all tasks of {dag_id}"
        screen.print_line(f"{what}: results from before {answer['uncached_at']} are not used any more")


# ------------------------------------------------------------------ starting runs


@command(starting, "run")
def run_command(
    session: Session,
    dag_id: DagId,
    param: Params = None,
    event: Annotated[
        str | None, typer.Option(metavar="ID", help="Because of this event: once, told how often.")
    ] = None,
    wait: Wait = False,
) -> None:
    """Run a DAG now."""
    if event is not None:
        _trigger(session, params(param), wait, f"/dags/{dag_id}/trigger/{quote(event, safe='')}")
    else:
        _trigger(session, {"dag_id": dag_id, "params": params(param)}, wait)


@command(starting, "backfill")
def backfill_command(
    session: Session,
    dag_id: DagId,
    start: FirstDay = None,
    end: LastDay = None,
    partition: Partitions = None,
    param: Params = None,
    dry_run: DryRun = False,
    plan_hash: PlanHash = None,
    reprocess: Reprocess = "none",
    max_active_runs: Annotated[int | None, typer.Option(min=1, help="Windows at a time.")] = None,
    backwards: Annotated[bool, typer.Option("--backwards", help="Latest window first.")] = False,
    wait: Wait = False,
) -> None:
    """Run a DAG for every window of its schedule between two days, or for partitions: given ones, or all of its own."""
    body: Json = {"dag_id": dag_id, "run_type": "backfill", "from": start, "to": end, "params": params(param)}
    body |= {"reprocess": reprocess, "run_backwards": backwards, "plan_hash": plan_hash}
    body |= {"max_active_runs": max_active_runs, "dry_run": dry_run, "partitions": partitions(partition)}
    body = {name: value for name, value in body.items() if value not in (None, False)}
    if dry_run:
        show_plan(session, "/runs", body)
    else:
        _trigger(session, body, wait)


def _trigger(session: Session, body: Json, wait: bool, path: str = "/runs") -> None:
    with session.api() as api:
        answer = api.post(path, body)
        if wait:
            _wait(session, api, answer["run_id"])
    if session.as_json:
        screen.print_json(answer)
    else:
        screen.print_line(f"{answer['run_id']} {screen.shown(answer['state'])}")
        screen.say(f"follow it with: orchestrator runs events {answer['run_id']} -f")


def _wait(session: Session, api: Api, run_id: str) -> NoReturn:
    """Shows the run until it ends; the exit status is its end."""
    run = api.get(f"/runs/{run_id}")
    over = Tally(run)
    if not session.as_json:
        screen.say(run_id)
    try:
        with screen.progress(run["dag_id"], over.total, quiet=session.as_json) as bar:
            asked_s = time.monotonic()
            for event in api.follow(run_id):
                over.count(event.kind, event.data)
                if over.windows and time.monotonic() - asked_s > _ETA_EVERY_S:
                    over.eta, asked_s = api.get(f"/runs/{run_id}").get("eta"), time.monotonic()
                bar.show(over.done, over.note, over.total)
    except KeyboardInterrupt:
        screen.say(f"{run_id} goes on; follow it with: orchestrator runs events {run_id} -f")
        raise typer.Exit(_INTERRUPTED) from None
    run = api.get(f"/runs/{run_id}")
    _show_run(session, run)
    raise typer.Exit(_ENDED.get(run["state"], 1))


class Tally:
    """How far a run or a backfill is, by its events."""

    def __init__(self, run: Json) -> None:
        self._tasks: dict[str, str] = dict.fromkeys(run["tasks"], "pending")
        self._counts: Json | None = run.get("counts")
        self._word = str(run["state"])
        self.eta: str | None = run.get("eta")

    @property
    def windows(self) -> bool:
        """Is it a backfill?"""
        return self._counts is not None

    @property
    def note(self) -> str:
        """How it goes; of a backfill also when it will be through."""
        return f"{self._word}, until {self.eta[:19].replace('T', ' ')} UTC" if self.eta else self._word

    @property
    def total(self) -> int:
        """Windows of a backfill, tasks of any other run."""
        return self._counts["total"] if self._counts else len(self._tasks)

    @property
    def done(self) -> int:
        """How many of them are over."""
        if self._counts:
            return int(self._counts["total"] - self._counts["queued"] - self._counts["running"])
        return sum(state in _TASK_ENDED for state in self._tasks.values())

    def count(self, kind: str, data: Json) -> None:
        """One more event has happened."""
        if kind == "task_state":
            self._tasks[data["task"]] = data["to"]
        elif kind == "window_state":
            self._counts = data.get("counts") or self._counts
            failed = (self._counts or {}).get("failed")
            self._word = f"{failed} failed" if failed else "running"
        elif kind == "backfill_widened" and self._counts:
            queued = self._counts["queued"] + data["added"] - (data["skipped"] - self._counts["skipped"])
            self._counts = {**self._counts, "total": data["total"], "skipped": data["skipped"], "queued": queued}
        elif kind == "run_state":
            self._word, self.eta = str(data["to"]), None


def show_plan(session: Session, path: str, body: Json) -> None:
    """Asks for a dry run and prints it."""
    with session.api() as api:
        plan = api.post(path, body)
    if session.as_json:
        screen.print_json(plan)
        return
    rows = ((_window(w["window"]), w["action"], w.get("run_id")) for w in plan["windows"])
    screen.print_table(("window", "action", "run"), rows)
    counts = plan["counts"]
    screen.print_line("")
    screen.print_facts({**counts, "tasks": " > ".join(", ".join(group) for group in plan["task_groups"])})
    screen.print_line(f"nothing was started; to do exactly this: --plan-hash {plan['plan_hash']}")


# ------------------------------------------------------------------ runs


@command(runs, "list")
def runs_list(
    session: Session,
    dag: Annotated[str | None, typer.Option(help="Runs of this DAG.")] = None,
    state: Annotated[str | None, typer.Option(help="queued, running, success, failed or cancelled")] = None,
    run_type: Annotated[str | None, typer.Option("--type", help="manual, backfill or scheduled")] = None,
    parent: Annotated[str | None, typer.Option(help="Runs of this backfill.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Runs that left for the archive.")] = False,
    limit: Limit = 50,
) -> None:
    """List runs, newest first."""
    filters = {"dag_id": dag, "state": state, "run_type": run_type, "parent_run_id": parent}
    with session.api() as api:
        items = api.items("/runs", limit, **filters, archived="true" if archived else None)
    if session.as_json:
        screen.print_json({"items": items})
        return
    rows = (
        (r["run_id"], r["dag_id"], r["run_type"], r["state"], _window(r["window"]), r["created_at"], r["attempts"])
        for r in items
    )
    screen.print_table(("run", "dag", "type", "state", "window", "created", "attempts"), rows)


@command(runs, "show")
def runs_show(session: Session, run_id: RunId) -> None:
    """Show one run with its tasks or windows."""
    with session.api() as api:
        run = api.get(f"/runs/{run_id}")
    _show_run(session, run)


def _show_run(session: Session, run: Json) -> None:
    if session.as_json:
        screen.print_json(run)
        return
    told = ("tasks", "windows", "counts", "window", "triggered_by")
    facts = {name: value for name, value in run.items() if name not in told}
    facts["because of"] = ", ".join(map(screen.cause, run.get("triggered_by", ())))
    screen.print_facts({**facts, "window": _window(run["window"]), **(run.get("counts") or {})})
    screen.print_line("")
    screen.print_table(("task", "state"), run["tasks"].items())
    if run.get("windows"):
        screen.print_line("")
        rows = ((_window(each["window"]), each["state"], each["run_id"]) for each in run["windows"])
        screen.print_table(("window", "state", "run"), rows)


def _window(window: Json | None) -> str | None:
    if window is None:
        return None
    if (partition := window.get("partition")) is not None:
        return partition if isinstance(partition, str) else ", ".join(f"{n}={v}" for n, v in partition.items())
    return str(window["from"]) if window["from"] == window["to"] else f"{window['from']} .. {window['to']}"


@command(runs, "events")
def runs_events(
    session: Session,
    run_id: RunId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
    after: Annotated[int | None, typer.Option(help="Begin after this event.")] = None,
) -> None:
    """Print what happened to a run, one event a line."""
    with session.api() as api:
        for event in api.follow(run_id, after) if follow else api.history(run_id, after):
            if session.as_json:
                screen.print_json_line({"id": event.id, "event": event.kind, "data": event.data})
            elif event.kind != "end":
                screen.print_line(_event_line(event.id, event.kind, event.data))


def _event_line(number: int | None, kind: str, data: Json) -> str:
    window = _window(data.get("window")) if "window" in data else None
    what = data.get("task") or window or data.get("deadline") or "run"
    change = f"{screen.shown(data.get('from'))} > {screen.shown(data.get('to'))}" if "to" in data else ""
    error = screen.shown(data.get("error"))
    return f"{number:>6}  {data.get('ts', '')}  {kind:<12}  {screen.shown(what)}  {change}  {error}".rstrip()


@command(runs, "logs")
def runs_logs(
    session: Session,
    run_id: RunId,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Only this task.")] = None,
    attempt: Annotated[int | None, typer.Option(help="Only this attempt.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
) -> None:
    """Print what a run's tasks have written."""
    printed: dict[tuple[str, int], int] = {}
    with session.api() as api:
        while True:
            run = api.get(f"/runs/{run_id}")
            started = [name for name, state in run["tasks"].items() if state not in ("pending", "upstream_failed")]
            for name in [task] if task else started:
                for chunk in api.get(f"/runs/{run_id}/tasks/{name}/logs", attempt=attempt)["items"]:
                    _print_log(session, chunk, printed)
            if not follow or run["state"] in _ENDED:
                return
            time.sleep(1.0)


@command(runs, "instances")
def runs_instances(
    session: Session,
    run_id: RunId,
    task: Annotated[str, typer.Argument(metavar="TASK", help="A mapped task.")],
    state: Annotated[str | None, typer.Option(help="Only instances in this state.")] = None,
) -> None:
    """List the instances of a mapped task; their ids go wherever a task's id does."""
    with session.api() as api:
        cursor: str | None = None
        while True:
            page = api.get(f"/runs/{run_id}/tasks/{task}/instances", state=state, cursor=cursor, limit=200)
            for each in page["items"]:
                if session.as_json:
                    screen.print_json_line(each)
                else:
                    print(f"{each['task']:<24}  {each['state']}")
            cursor = page["next_cursor"]
            if cursor is None:
                break
        if not session.as_json:
            told = ", ".join(f"{number} {name}" for name, number in page["counts"].items())
            print(f"{page['task']} is {page['state']}: {told or 'no instances'}")


def _print_log(session: Session, chunk: Json, printed: dict[tuple[str, int], int]) -> None:
    """Prints what is new in `chunk`; `printed` holds how much of each attempt has been."""
    key = (chunk["task"], chunk["attempt"])
    new = chunk["text"][printed.get(key, 0) :]
    printed[key] = len(chunk["text"])
    if session.as_json and new:
        screen.print_json_line({**chunk, "text": new})
    elif new:
        prefix = f"{chunk['task']}/{chunk['attempt']} | "
        print("".join(f"{prefix}{line}\n" for line in new.splitlines()), end="", flush=True)


@command(runs, "cancel")
def runs_cancel(session: Session, run_id: RunId) -> None:
    """Cancel a run, or all unfinished windows of a backfill."""
    _command(session, f"/runs/{run_id}/cancel", _changed)


@command(runs, "pause")
def runs_pause(session: Session, run_id: RunId) -> None:
    """Start no further task of a run, or window of a backfill."""
    _command(session, f"/runs/{run_id}/pause", _changed)


@command(runs, "resume")
def runs_resume(session: Session, run_id: RunId) -> None:
    """Let a paused run or backfill go on."""
    _command(session, f"/runs/{run_id}/resume", _changed)


@command(runs, "widen")
def runs_widen(
    session: Session,
    run_id: RunId,
    start: FirstDay = None,
    end: LastDay = None,
    partition: Partitions = None,
    param: Params = None,
    dry_run: DryRun = False,
    plan_hash: PlanHash = None,
    reprocess: Reprocess = "none",
) -> None:
    """Add days, or partitions, to a backfill that goes on."""
    body: Json = {"from": start, "to": end, "partitions": partitions(partition), "params": params(param)}
    body |= {"reprocess": reprocess, "plan_hash": plan_hash, "dry_run": dry_run}
    body = {name: value for name, value in body.items() if value not in (None, False)}
    path = f"/runs/{run_id}/widen"
    if dry_run:
        show_plan(session, path, body)
    else:
        _command(session, path, lambda a: f"{_changed(a)}: {a['added']} more, {a['counts']['total']} windows", body)


@command(runs, "cap")
def runs_cap(
    session: Session,
    run_id: RunId,
    n: Annotated[int | None, typer.Argument(metavar="[N]", min=1, help="Left out: as many as the DAG allows.")] = None,
) -> None:
    """Let N windows of a backfill run at a time."""
    _command(session, f"/runs/{run_id}/cap", _changed, {"max_active_runs": n})


@command(runs, "retry")
def runs_retry(
    session: Session,
    run_id: RunId,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Only this task.")] = None,
) -> None:
    """Retry the failed tasks of a run; what is done is kept."""
    _command(session, f"/runs/{run_id}/tasks/{task}/retry" if task else f"/runs/{run_id}/retry", _changed)


def _changed(answer: Json) -> str:
    task = f" {answer['task']}" if answer.get("task") else ""
    paused = ", paused" if answer.get("paused") else ""
    return f"{answer['run_id']}{task} {screen.shown(answer['state'])}{paused}"


# ------------------------------------------------------------------ shares


@command(shares, "list")
def shares_list(session: Session) -> None:
    """List the weights of tenants; those that are not listed weigh 1."""
    with session.api() as api:
        answer = api.get("/shares")
    if session.as_json:
        screen.print_json(answer)
        return
    screen.print_table(("tenant", "weight"), ([each["tenant"], each["weight"]] for each in answer["items"]))


@command(shares, "set")
def shares_set(
    session: Session,
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    weight: Annotated[int, typer.Argument(metavar="WEIGHT", min=1)],
) -> None:
    """Give a tenant a weight in the shares of worker slots."""
    with session.api() as api:
        answer = api.post("/shares", {"tenant": tenant, "weight": weight})
    if session.as_json:
        screen.print_json(answer)
    else:
        screen.print_line(f"{answer['tenant']} weighs {answer['weight']}")


# ------------------------------------------------------------------ workers


@command(workers, "list")
def workers_list(session: Session) -> None:
    """List the worker slots."""
    with session.api() as api:
        answer = api.get("/workers")
    _show_workers(session, answer)


@command(workers, "scale")
def workers_scale(
    session: Session,
    n: Annotated[int, typer.Argument(metavar="N", min=0)],
    pool: Annotated[str, typer.Option(help="Pool of slots.")] = "default",
) -> None:
    """Have N worker slots in a pool."""
    with session.api() as api:
        answer = api.post("/workers/scale", {"pool": pool, "n": n})
    _show_workers(session, answer)


@command(workers, "drain")
def workers_drain(session: Session, worker_id: Annotated[str, typer.Argument(metavar="WORKER_ID")]) -> None:
    """Give a worker slot nothing more to do."""
    _command(session, f"/workers/{worker_id}/drain", lambda a: f"{a['worker_id']} {screen.shown(a['state'])}")


def _show_workers(session: Session, answer: Json) -> None:
    if session.as_json:
        screen.print_json(answer)
        return
    columns = ("worker_id", "pool", "state", "node", "node_id", "pid")
    items = ({**each, "node_id": str(each.get("node_id", ""))[:_NODE_ID_SHOWN]} for each in answer["items"])
    screen.print_table(columns, ([each.get(column) for column in columns] for each in items))


# ------------------------------------------------------------------ shared


def _command(session: Session, path: str, line: Callable[[Json], str], body: Json | None = None) -> None:
    """Sends a command and prints its answer, by `line` for people."""
    with session.api() as api:
        answer = api.post(path, body)
    if session.as_json:
        screen.print_json(answer)
    else:
        screen.print_line(line(answer))


def params(given: Sequence[str] | None) -> Json:
    """`k=v` pairs as an object. Raises Invalid for anything else."""
    found: Json = {}
    for each in given or ():
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise Invalid(f"--param {each!r}: k=v expected")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def partitions(given: Sequence[str] | None) -> list[str] | dict[str, list[str]] | None:
    """Values as a list; `name=value` as lists by name. Raises Invalid when both are there."""
    if not given:
        return None
    named = [each.partition("=") for each in given if "=" in each]
    if not named:
        return list(given)
    if len(named) < len(given):
        raise Invalid("--partition: either values, or name=value")
    found: dict[str, list[str]] = {}
    for name, _, value in named:
        found.setdefault(name, []).append(value)
    return found


def _span(window: Json | None) -> str:
    if window is None:
        return ""
    return window["from"] if window["from"] == window["to"] else f"{window['from']} – {window['to']}"


def _minute(instant: str) -> str:
    return instant[:16].replace("T", " ")


def _delay(tick: Json) -> str:
    """When jitter has it run, to the second."""
    return "" if tick["runs_at"] in (None, tick["at"]) else tick["runs_at"][11:19]


def _remark(tick: Json) -> str:
    if tick["skipped"]:
        return f"skipped: {tick['skipped']}"
    return "clocks change" if tick["moved"] else ""
