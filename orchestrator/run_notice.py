"""What the owner of a DAG is told at its `callback_url`: that a run, window or backfill has ended, or missed an SLA.

    terminal event ─▶ run.success | run.failed | run.cancelled          SlaMissed, if asked for ─▶ sla.missed

A notice is made with the event and goes out in its commit, so there is one for each such event whatever dies. Its id is
that of the run with the event's version: a run that ends again is told again. Source: dags contract, section 7.
"""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator import deadlines, partitions
from orchestrator import events as e
from orchestrator.dates import instant_text
from orchestrator.definition import Window
from orchestrator.run_state import Run
from orchestrator.webhook import Notice

#: terminal event -> state, as the dags surface shows it
ENDS: dict[type[e.Event], str] = {
    e.RunSucceeded: "success",
    e.RunFailed: "failed",
    e.RunTimedOut: "failed",
    e.RunCancelled: "cancelled",
}
_STATES = {"succeeded": "success", "timed_out": "failed", "paused": "running", "cancelling": "cancelled"}


def of_run(run: Run, event: e.Event) -> Notice | None:
    """What is to be told about `event`, which was applied last; None = nothing, or nobody."""
    url = run.compiled.definition.callback_url
    if url is None:
        return None
    more: dict[str, Any] = {}
    if isinstance(event, e.SlaMissed):
        if "webhook" not in deadlines.actions(run, event):
            return None
        word = "sla.missed"
        more = {"task": event.task, "deadline": instant_text(event.deadline)}
    elif type(event) in ENDS:
        word = f"run.{ENDS[type(event)]}"
    else:
        return None
    state = _STATES.get(run.state, str(run.state))
    return notice(url, word, run.tenant, run.dag_id, run.run_id, state, run.window, run.attempts, run.version, more)


def notice(
    url: str,
    word: str,
    tenant: str,
    dag_id: str,
    run_id: str,
    state: str,
    window: Window | None,
    attempts: int,
    version: int,
    more: dict[str, Any],
) -> Notice:
    """The notice of an event with that version; `more` comes after the keys of every notice."""
    payload = {
        "event": word,
        "dag_id": dag_id,
        "run_id": run_id,
        "state": state,
        "window": None if window is None else partitions.shown(window),
        "attempts": attempts,
        **more,
    }
    return Notice(
        id=f"msg_{run_id}_{version}",
        tenant=tenant,
        client="",
        url=url,
        event=word,
        about=run_id,
        payload=msgspec.Raw(msgspec.json.encode(payload)),
    )
