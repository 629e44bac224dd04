"""A slow table that three runs need, and one of them computes.

    python examples/caching.py

The second run has the result of the first at once, without a worker. The third is about another region: that is
another task. After `uncache` the table is computed anew. What the run says about each is checked at the end.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from orchestrator import dag, task
from orchestrator.client import Client


@task(cache_ttl_s=600)
def table(region: str) -> list[int]:
    time.sleep(2)
    return [len(region) * n for n in range(5)]


@task
def report(rows: list[int]) -> int:
    return sum(rows)


@dag(owner="examples")
def regional(region: str = "eu"):
    report(table(region))


def server() -> Client:
    """The server on this machine, with the operator's token."""
    home = Path(os.environ.get("ORCHESTRATOR_HOME", Path.home() / ".orchestrator"))
    credentials = json.loads((home / "credentials.json").read_text())
    return Client(credentials["url"], credentials["tokens"]["admin"])


def run(client: Client, region: str) -> str:
    """How the table of a run came about."""
    began = time.monotonic()
    ended = client.dags.wait(client.dags.trigger("regional", params={"region": region})["run_id"])
    how = "cached" if "table" in (ended.get("cached") or {}) else "computed"
    print(f"{region}: {ended['state']}, table {how}, {time.monotonic() - began:.1f} s")
    return how


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    with server() as client:
        client.dags.uncache("regional")  # what an earlier call of this example has left
        told = [run(client, "eu"), run(client, "eu"), run(client, "asia")]
        client.dags.uncache("regional", "table")
        told.append(run(client, "eu"))
    assert told == ["computed", "cached", "computed", "computed"], told
