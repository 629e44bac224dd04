"""Twelve tasks that share a warehouse which takes three at a time.

    python examples/limits.py

Each query takes half a second. The name of the limit comes from a parameter of the run: every region has its own, and
one definition with a `*` is for all of them. What the events tell is checked at the end.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from orchestrator import dag, task
from orchestrator.client import Client

MOST = 3


@task(limits=["warehouse-{{ params.region }}"])
def query(region: str, part: int) -> str:
    time.sleep(0.5)
    return f"{region}/{part}"


@dag(owner="examples")
def warehouse(region: str = "eu"):
    for part in range(12):
        query(region, part)


def server() -> Client:
    """The server on this machine, with the operator's token."""
    home = Path(os.environ.get("ORCHESTRATOR_HOME", Path.home() / ".orchestrator"))
    credentials = json.loads((home / "credentials.json").read_text())
    return Client(credentials["url"], credentials["tokens"]["admin"])


def most_at_a_time(client: Client, run_id: str) -> int:
    """How many queries of the run ran at a time."""
    running = most = 0
    for event in client.dags.history(run_id):
        if event.data.get("task"):
            running += {"running": 1, "done": -1}.get(event.data["to"], 0)
            most = max(most, running)
    return most


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    subprocess.run([orchestrator, "workers", "scale", "6"], check=True)
    subprocess.run([orchestrator, "limits", "set", "warehouse-*", "--max-running", str(MOST)], check=True)
    with server() as client:
        run = client.dags.wait(client.dags.trigger("warehouse")["run_id"])
        print(f"{run['state']}: at most {most_at_a_time(client, run['run_id'])} of 12 ran at a time, {MOST} may")
