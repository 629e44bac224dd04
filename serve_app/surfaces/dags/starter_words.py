"""Events and assets in this surface's words, both ways."""

from __future__ import annotations

import re
from typing import Any

from orchestrator import spec_form
from orchestrator.starts import EventTold
from orchestrator.views import AssetView
from serve_app.requests import Fields
from serve_app.surfaces.dags.parse import EVENT_ID
from serve_app.surfaces.dags.words import RUN_WORDS, Json, cause, instant

ASSET = re.compile(spec_form.ASSET)
_NAME = re.compile(spec_form.EVENT_NAME, re.ASCII)
_ID = re.compile(EVENT_ID, re.ASCII)


def event_request(body: object) -> tuple[str, str, dict[str, Any]]:
    """Name, id and payload of a body of POST /events. Raises Invalid."""
    fields = Fields(body)
    name, event_id = fields.text("name", required=True), fields.text("id", required=True)
    if name is not None and not _NAME.fullmatch(name):
        fields.wrong("name", f"must match {spec_form.EVENT_NAME}")
    if event_id is not None and not _ID.fullmatch(event_id):
        fields.wrong("id", f"must match ^{EVENT_ID}$")
    payload = fields.mapping("payload")
    fields.check()
    return name or "", event_id or "", dict(payload)


def event_told(answer: EventTold) -> Json:
    """What became of an event."""
    runs = [{"dag_id": run.dag_id, "run_id": run.run_id, "state": RUN_WORDS[run.state]} for run in answer.runs]
    return {"name": answer.name, "id": answer.event_id, "duplicate": answer.duplicate, "runs": runs}


def asset(view: AssetView) -> Json:
    """Something that tasks update and DAGs consume."""
    last = [{**cause(each.cause), "dag_id": each.dag_id, "at": instant(each.at)} for each in view.last]
    for each in last:
        del each["kind"], each["name"]
    return {
        "asset": view.asset,
        "producers": list(view.producers),
        "consumers": list(view.consumers),
        "updates": view.updates,
        "updated_at": last[0]["at"] if last else None,
        "last_updates": last,
    }
