"""A task that kills its own worker process, and the actors that own its run, and still ends right.

    python examples/survive_a_crash.py

The first attempt counts to five, leaving a checkpoint at each step, then kills the processes around it and itself
(SIGKILL: nothing can be said or saved any more). The run is read back from the journal, the task starts again on a
new worker and goes on from its last checkpoint. A lost worker does not use up retries: there are none here.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from orchestrator import dag, task


@task
def count_to_ten(ctx) -> list[int]:
    counted: list[int] = ctx.last_checkpoint() or []
    print(f"attempt {ctx.attempt} starts with {counted}")
    for number in range(len(counted) + 1, 11):
        counted.append(number)
        ctx.checkpoint(counted)
        if number == 5 and ctx.attempt == 1:
            kill_everyone()
    return counted


@task
def check(counted: list[int]) -> None:
    assert counted == list(range(1, 11)), counted
    print("counted to ten, with a crash in the middle")


@dag(owner="examples")
def survive_a_crash():
    check(count_to_ten())


def kill_everyone() -> None:
    """Kills the RunActors of this cluster (children of the same raylet as we are), then this process."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            title = (process / "cmdline").read_text()
        except OSError:
            continue  # it ended while we looked
        if parent == os.getppid() and title.startswith("ray::RunActor"):
            os.kill(int(process.name), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    subprocess.run([orchestrator, "run", "survive_a_crash", "--wait"], check=True)
