"""Follow a run live over server-sent events, lose the connection, resume without a gap. REST only.

    python examples/follow_a_run.py

Every event has a number; a client that reconnects names the last one it saw in `Last-Event-ID` and gets the
rest, from whatever replica answers. The stream ends with `event: end`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx

DAG = {
    "dag_id": "follow_me",
    "owner": "examples",
    "tasks": [
        {"id": "extract"},
        {"id": "transform", "depends_on": ["extract"], "type": "core.sleep", "params": {"seconds": 1}},
        {"id": "load", "depends_on": ["transform"]},
    ],
}


def server() -> httpx.Client:
    """The server on this machine, with the operator's token."""
    home = Path(os.environ.get("ORCHESTRATOR_HOME", Path.home() / ".orchestrator"))
    credentials = json.loads((home / "credentials.json").read_text())
    headers = {"Authorization": f"Bearer {credentials['tokens']['admin']}"}
    return httpx.Client(base_url=credentials["url"] + "/api/v1/runtime/orchestrator", headers=headers)


def events(client: httpx.Client, run_id: str, after: int) -> Iterator[tuple[int, str, dict]]:
    """(number, type, data) of each event after number `after`."""
    with client.stream("GET", f"/runs/{run_id}/events", headers={"Last-Event-ID": str(after)}, timeout=60) as stream:
        fields: dict[str, str] = {}
        for line in stream.iter_lines():
            key, colon, value = line.partition(": ")
            if key and colon:
                fields[key] = value
            elif not line and "data" in fields:
                yield int(fields.get("id", 0)), fields["event"], json.loads(fields["data"])
                fields = {}


def show(number: int, kind: str, data: dict) -> None:
    """One line an event."""
    print(number or "", kind, data.get("task", ""), data.get("from") or "", "->", data.get("to") or data["state"])


if __name__ == "__main__":
    with server() as client:
        client.post("/dags", json=DAG).raise_for_status()
        run_id = client.post("/runs", json={"dag_id": "follow_me"}).raise_for_status().json()["run_id"]
        last = 0
        for last, kind, data in events(client, run_id, after=0):
            show(last, kind, data)
            if last == 3:
                break
        print("-- connection lost, back again after", last)
        for number, kind, data in events(client, run_id, after=last):
            show(number, kind, data)
