"""DAGs that start because of others: two loads update assets, a report consumes both, and a mail goes out after it.

    python examples/followers.py

Nobody runs the report or the mail: each starts once all it waits for has happened, and knows why.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from orchestrator import dag, task
from orchestrator.client import Client


@task(produces=["shop://orders"])
def orders() -> int:
    return 3


@task(produces=["shop://prices"])
def prices() -> int:
    return 2


@task
def tell(ctx) -> None:
    print("because of", *sorted(cause.name for cause in ctx.triggered_by))


@dag(owner="examples")
def load_orders():
    orders()


@dag(owner="examples", on_event="prices.published")
def load_prices():
    prices()


@dag(owner="examples", consumes=["shop://orders", "shop://prices"])
def revenue_report():
    tell()


@dag(owner="examples", after=["revenue_report"])
def revenue_mail():
    tell()


if __name__ == "__main__":
    subprocess.run([Path(sys.executable).with_name("orchestrator"), "dags", "deploy", __file__], check=True)
    home = Path(os.environ.get("ORCHESTRATOR_HOME", Path.home() / ".orchestrator"))
    credentials = json.loads((home / "credentials.json").read_text())
    with Client(credentials["url"], credentials["tokens"]["admin"]) as client:
        before = client.dags.get("revenue_mail")["run_counts"].get("success", 0)
        client.dags.trigger("load_orders")
        event_id = str(time.time_ns())
        for _ in range(2):
            told = client.dags.tell("prices.published", event_id)
            print(len(told["runs"]), "run of the event", "again" if told["duplicate"] else "")
        while client.dags.get("revenue_mail")["run_counts"].get("success", 0) == before:
            time.sleep(0.1)
        mail = next(client.dags.runs(dag_id="revenue_mail"))
        print(mail["dag_id"], mail["state"], "after", mail["triggered_by"][0]["run_id"])
