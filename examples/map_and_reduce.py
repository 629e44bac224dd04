"""A task per element of a list that is made at run time, a few at a time, some of which may fail, and a reduce.

    python examples/map_and_reduce.py

`readings` returns as many stations as there are; `warmest` runs once for each, three at a time. One of them sends
nonsense: that is tolerated, and gives None in the list that `report` gets.
"""

import random
import subprocess
import sys
from pathlib import Path

from orchestrator import current, dag, task


@task
def readings(stations: int) -> list[dict[str, object]]:
    dice = random.Random(7)
    found = [{"station": f"S{n:02d}", "degrees": [dice.randint(-5, 30) for _ in range(24)]} for n in range(stations)]
    found[4]["degrees"] = ["n/a"]
    return found


@task(max_active=3, tolerated_failures="10%")
def warmest(reading: dict[str, list[int]], unit: str) -> str:
    degrees = max(reading["degrees"]) + 0
    print(f"number {current().map_index} of {current().map_id}: {degrees}")
    return f"{reading['station']} {degrees} {unit}"


@task
def report(warmest: list[str | None]) -> None:
    told = [line for line in warmest if line is not None]
    print(f"{len(told)} of {len(warmest)} stations: {', '.join(told)}")


@dag(owner="examples")
def map_and_reduce(stations: int = 20):
    report(warmest.partial(unit="C").expand(reading=readings(stations)))


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    subprocess.run([orchestrator, "run", "map_and_reduce", "--wait"], check=True)
