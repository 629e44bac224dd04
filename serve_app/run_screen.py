"""How a run, a plan of one and a way through one look on the command line."""

from __future__ import annotations

import time
from typing import NoReturn

import typer

from serve_app import screen
from serve_app.api_client import Api, Json
from serve_app.session import Session

ENDED = {"success": 0, "failed": 3, "cancelled": 4}
_TASK_ENDED = frozenset({"done", "failed", "skipped", "upstream_failed", "cancelled"})
#: seconds between two looks at when a backfill will be through
_ETA_EVERY_S = 2.0


def wait_for(session: Session, api: Api, run_id: str) -> NoReturn:
    """Shows the run until it ends; the exit status is its end."""
    run = api.get(f"/runs/{run_id}")
    over = Tally(run)
    if not session.as_json:
        screen.say(run_id)
    with (
        session.watching(run_id, f"; follow it with: orchestrator runs events {run_id} -f"),
        screen.progress(run["dag_id"], over.total, quiet=session.as_json) as bar,
    ):
        asked_s = time.monotonic()
        for event in api.follow(run_id):
            over.count(event.kind, event.data)
            if over.windows and time.monotonic() - asked_s > _ETA_EVERY_S:
                over.eta, asked_s = api.get(f"/runs/{run_id}").get("eta"), time.monotonic()
            bar.show(over.done, over.note, over.total)
    run = api.get(f"/runs/{run_id}")
    show_run(session, run)
    raise typer.Exit(ENDED.get(run["state"], 1))


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
    rows = ((window_text(w["window"]), w["action"], w.get("run_id")) for w in plan["windows"])
    screen.print_table(("window", "action", "run"), rows)
    counts = plan["counts"]
    screen.print_line("")
    screen.print_facts({**counts, "tasks": " > ".join(", ".join(group) for group in plan["task_groups"])})
    screen.print_line(f"nothing was started; to do exactly this: --plan-hash {plan['plan_hash']}")


def show_run(session: Session, run: Json) -> None:
    if session.as_json:
        screen.print_json(run)
        return
    told = ("tasks", "windows", "counts", "window", "triggered_by")
    facts = {name: value for name, value in run.items() if name not in told}
    facts["because of"] = ", ".join(map(screen.cause, run.get("triggered_by", ())))
    screen.print_facts({**facts, "window": window_text(run["window"]), **(run.get("counts") or {})})
    screen.print_line("")
    screen.print_table(("task", "state"), run["tasks"].items())
    if run.get("windows"):
        screen.print_line("")
        rows = ((window_text(each["window"]), each["state"], each["run_id"]) for each in run["windows"])
        screen.print_table(("window", "state", "run"), rows)


def window_text(window: Json | None) -> str | None:
    if window is None:
        return None
    if (partition := window.get("partition")) is not None:
        return partition if isinstance(partition, str) else ", ".join(f"{n}={v}" for n, v in partition.items())
    return str(window["from"]) if window["from"] == window["to"] else f"{window['from']} .. {window['to']}"
