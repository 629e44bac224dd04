"""Version 2 is deployed while a run of version 1 goes on: each run executes the code that it was created with.

    python examples/two_versions.py

A folder is deployed as a bundle: its code, and the packages that its `requirements.txt` asks for. The two versions
differ in one helper module alone. The run of version 1 waits for a signal; meanwhile version 2 becomes the current one.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

FLOW = """
from orchestrator import dag, task

from prices import PRICE

@task
def offer(customer: str) -> int:
    return PRICE

@task
def invoice(offered: int, paid: dict) -> None:
    print(f"offered at {offered}, invoiced at {PRICE}")

@dag(owner="examples")
def two_versions(customer: str = "ada"):
    invoice(offer(customer), task.signal("paid"))
"""


def orchestrator(*arguments: str) -> str:
    command = [Path(sys.executable).with_name("orchestrator"), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def deploy(folder: Path, price: int) -> None:
    (folder / "flow.py").write_text(FLOW)
    (folder / "prices.py").write_text(f"PRICE = {price}\n")
    print(orchestrator("dags", "deploy", str(folder)), end="")


def pay(run_id: str) -> str:
    orchestrator("runs", "signal", run_id, "paid", "--data", "{}")
    orchestrator("runs", "events", run_id, "-f")
    return orchestrator("runs", "logs", run_id, "invoice").strip()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        deploy(Path(place), price=10)
        old = orchestrator("run", "two_versions").split()[0]
        deploy(Path(place), price=12)
        new = orchestrator("run", "two_versions").split()[0]
    told = [pay(old), pay(new)]
    print(*told, sep="\n")
    assert [line.split("| ")[1] for line in told] == ["offered at 10, invoiced at 10", "offered at 12, invoiced at 12"]
