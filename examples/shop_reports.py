"""A backfill over partitions that are not dates: it is paused, made wider while it goes on, and told how far it is.

    python examples/shop_reports.py

The report of each shop and quarter is a run of its own. The backfill begins with two at a time, is paused, gets another
quarter, and goes on without a limit of its own.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from orchestrator import dag, task
from orchestrator.client import Client

SHOPS, QUARTERS = ["berlin", "paris", "rome"], ["q1", "q2", "q3"]


@task
def count(ctx) -> int:
    time.sleep(0.3)
    return len(ctx.partition)


@task
def report(n: int, ctx) -> None:
    print(f"{ctx.parts['shop']} in {ctx.parts['quarter']}: {n} sales")


@dag(owner="examples", partitions={"shop": SHOPS, "quarter": QUARTERS})
def shop_reports():
    report(count())


def server() -> Client:
    """The server on this machine, with the operator's token."""
    home = Path(os.environ.get("ORCHESTRATOR_HOME", Path.home() / ".orchestrator"))
    credentials = json.loads((home / "credentials.json").read_text())
    return Client(credentials["url"], credentials["tokens"]["admin"])


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    with server() as client:
        first, all_of_them = {"shop": SHOPS, "quarter": ["q1", "q2"]}, {"shop": SHOPS, "quarter": QUARTERS}
        plan = client.dags.dry_run("shop_reports", partitions=first, reprocess="completed")
        print("would start", plan["counts"]["create"] + plan["counts"]["restart"])
        made = client.dags.backfill("shop_reports", partitions=first, reprocess="completed", max_active_runs=2)
        backfill = made["run_id"]
        client.dags.pause_run(backfill)
        wider = client.dags.widen(backfill, partitions=all_of_them, reprocess="completed")
        print("paused at", client.dags.run(backfill)["progress"], "and made wider by", wider["added"])
        client.dags.cap(backfill, None)
        client.dags.resume_run(backfill)
        run = client.dags.wait(backfill)
        print(run["state"], run["progress"], run["counts"]["total"])
