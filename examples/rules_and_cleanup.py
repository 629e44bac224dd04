"""A branch, a join, a task that skips itself, and a teardown that runs whatever happened before.

    python examples/rules_and_cleanup.py

`choose` names the way that is taken; `report` joins the ways again by its rule. Nothing is left of the workspace at
the end: `remove` undoes `make`, also when a task between them fails, and when the run is cancelled.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from orchestrator import Skip, dag, task


@task
def make() -> str:
    return tempfile.mkdtemp(prefix="workspace-")


@task
def download(workspace: str, rows: int) -> int:
    Path(workspace, "rows.txt").write_text("row\n" * rows)
    return rows


@task.branch
def choose(rows: int) -> str:
    return "in_bulk" if rows > 100 else "one_by_one"


@task
def in_bulk(workspace: str) -> int:
    return len(Path(workspace, "rows.txt").read_text().splitlines())


@task
def one_by_one(workspace: str) -> int:
    return sum(1 for _ in Path(workspace, "rows.txt").open())


@task(trigger_rule="none_failed_min_one_success")
def report(bulk: int | None, single: int | None) -> None:
    print(f"{bulk if single is None else single} rows, {'in bulk' if single is None else 'one by one'}")


@task
def warn(rows: int) -> None:
    if rows:
        raise Skip("there are rows")
    print("nothing came today")


@task
def remove(workspace: str) -> None:
    shutil.rmtree(workspace)
    print("cleaned up")


@dag(owner="examples")
def rules_and_cleanup(rows: int = 3):
    workspace = make()
    count = download(workspace, rows)
    bulk, single = in_bulk(workspace), one_by_one(workspace)
    choose(count) >> [bulk, single]
    told = report(bulk, single)
    warn(count)
    remove(workspace).after(told).teardown_of(workspace)


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    subprocess.run([orchestrator, "run", "rules_and_cleanup", "--wait"], check=True)
    subprocess.run([orchestrator, "run", "rules_and_cleanup", "--param", "rows=500", "--wait"], check=True)
