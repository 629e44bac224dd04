"""A signal that comes early, an approval that steers a branch, a wait, code that sleeps: none holds a worker.

    python examples/waiting.py

The run starts, and waits. What happens then could be days later, with the whole server down in between.
"""

import subprocess
import sys
import time
from pathlib import Path

from orchestrator import dag, task


@task
def propose(ctx, file: dict) -> str:
    ctx.publish("rows", file["rows"])
    return f"load {file['rows']} rows?"


@task
def load(ctx) -> str:
    print("attempt", ctx.attempt, "begins")
    ctx.sleep(1)  # this attempt ends here; the next one passes this line
    print("loaded")
    return "loaded"


@task
def refuse() -> None:
    print("not loaded")


@dag(owner="examples")
def waiting():
    file = task.signal("file_arrived", timeout_s=3600)
    ask = task.approval("ask", propose(file), branches={"approve": ["settle"], "reject": ["refuse"]})
    settle = task.wait("settle", seconds=1).after(ask)
    settle >> load()
    ask >> refuse()


def orchestrator(*arguments: str) -> str:
    command = [Path(sys.executable).with_name("orchestrator"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def show(run_id: str, *names: str) -> None:
    for name in names:
        print(orchestrator("runs", "query", run_id, name).strip())


if __name__ == "__main__":
    orchestrator("dags", "deploy", __file__)
    run_id = orchestrator("run", "waiting").split()[0]
    orchestrator("runs", "signal", run_id, "file_arrived", "--data", '{"rows": 4}', "--id", "file-1")
    while run_id not in orchestrator("approvals", "list", "--run", run_id, "--json"):
        time.sleep(0.2)
    show(run_id, "rows", "waiting_for")
    orchestrator("approvals", "decide", run_id, "ask", "approve", "--comment", "four will do")
    orchestrator("runs", "events", run_id, "-f")
    print(orchestrator("runs", "logs", run_id, "load"), end="")
