"""By when things have to be done, and which failures are worth another attempt.

    python examples/deadlines.py

`fetch` is refused twice, which its policy tries again; a `KeyError` would end it at once. `crunch` falls silent in
its first attempt, is stopped when it has given no sign of life for a second, and is lively the second time. `report`
misses its SLA of a second, which the run shows; with `on_sla_miss=["mark", "cancel"]` it would have been cancelled.
"""

import subprocess
import sys
import time
from pathlib import Path

from orchestrator import dag, task


class Refused(ConnectionError):
    """The source is busy."""


@task(retries=1, no_retry_on=[KeyError], retry_policies=[{"exceptions": [Refused], "retries": 5, "retry_delay_s": 0.1}])
def fetch(ctx) -> int:
    if ctx.attempt < 3:
        raise Refused(f"attempt {ctx.attempt}: come back later")
    return 7


@task(retries=1, retry_on=[TimeoutError], retry_delay_s=0.1, heartbeat_timeout_s=1)
def crunch(rows: int, ctx) -> int:
    for _ in range(20):
        time.sleep(0.1)
        if ctx.attempt > 1:
            ctx.heartbeat()
    return rows * ctx.attempt


@task(sla_s=1, queue_timeout_s=60)
def report(total: int) -> None:
    print(f"{total} rows, late but done")


@dag(owner="examples", sla_s=600, queue_timeout_s=600)
def deadlines():
    report(crunch(fetch()))


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    subprocess.run([orchestrator, "run", "deadlines", "--wait"], check=True)
