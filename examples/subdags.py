"""One DAG used twice by another: as a group of its tasks, and as runs of their own that tasks start and wait for.

    python examples/subdags.py

`orchestrator runs tree` shows what was called.
"""

import json
import subprocess
import sys
from pathlib import Path

from orchestrator import dag, group, task

SALES = {"north": [3, 4, 5], "south": [10], "east": []}


@task
def fetch(region: str) -> list:
    return SALES[region]


@task
def check(rows: list) -> list:
    if not rows:
        raise ValueError("nothing was sold")
    return rows


@task
def total(rows: list) -> int:
    return sum(rows)


@task(trigger_rule="all_done")
def tell(north: int, south: int | None, east: int | None) -> None:
    print(f"north {north}, south {south}, east {east}")


@group
def sales_of(region: str):
    return total(check(fetch(region)))


@dag(owner="examples")
def region_sales(region: str = "north"):
    sales_of(region)


@dag(owner="examples")
def subdags():
    north = sales_of("north")  # tasks of this run: sales_of.fetch, sales_of.check, sales_of.total
    south = task.dag("south", region_sales, params={"region": "south"})  # a run of its own
    east = task.dag("east", region_sales, params={"region": "east"})  # it fails, and the task with it
    tell(north, south, east)


def orchestrator(*arguments: str) -> str:
    program = Path(sys.executable).with_name("orchestrator")
    return subprocess.run([program, *arguments], check=False, capture_output=True, text=True).stdout


if __name__ == "__main__":
    print(orchestrator("dags", "deploy", __file__))
    orchestrator("run", "subdags", "--wait")  # it has failed, because of the east
    (run,) = json.loads(orchestrator("runs", "list", "--dag", "subdags", "--limit", "1", "--json"))["items"]
    print(orchestrator("runs", "tree", run["run_id"]))
    print(orchestrator("runs", "logs", run["run_id"], "tell"))
