"""One large array, four tasks that read it, and no copy of it.

    python examples/arrays.py

The table is kept in memory (`durability="memory"`): it is never written to a disk, and the workers of a machine map
the same pages of it. It is read-only for who takes it; `scaled` makes a copy of the part that it changes. Were it lost
with its machine, `table` alone would run again. What was computed is checked at the end.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy

from orchestrator import dag, task
from orchestrator.client import Client

PARTS = 4


@task(durability="memory")
def table(rows: int) -> numpy.ndarray:
    return numpy.arange(rows * 16, dtype=numpy.float64).reshape(rows, 16)


@task
def scaled(values: numpy.ndarray, part: int) -> float:
    assert not values.flags.writeable
    mine = values[part::PARTS].copy()
    mine /= mine.max()
    return float(mine.sum())


@task
def report(sums: list[float]) -> None:
    print(f"{len(sums)} parts, {sum(sums):.1f} in all")


@dag(owner="examples")
def arrays(rows: int = 500_000):
    values = table(rows)
    report([scaled(values, part) for part in range(PARTS)])


def server() -> Client:
    """The server on this machine, with the operator's token."""
    home = Path(os.environ.get("ORCHESTRATOR_HOME", Path.home() / ".orchestrator"))
    credentials = json.loads((home / "credentials.json").read_text())
    return Client(credentials["url"], credentials["tokens"]["admin"])


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    with server() as client:
        ended = client.dags.wait(client.dags.trigger("arrays")["run_id"])
        print(ended["state"])
    assert ended["state"] == "success", ended
