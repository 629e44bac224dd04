"""What happens to tasks that fail, hang or must not be tried again.

    python examples/retry_and_timeout.py

`flaky` fails twice and succeeds at its third attempt; `stuck` hangs in its first attempt, is stopped after a
second and is quick the second time; the delay between attempts doubles, with jitter, from `retry_delay_s`.
Raising `PermanentFailure` would end a task at once, whatever attempts are left.
"""

import subprocess
import sys
import time
from pathlib import Path

from orchestrator import dag, task


@task(retries=3, retry_delay_s=0.2)
def flaky(ctx) -> str:
    if ctx.attempt < 3:
        raise ConnectionError(f"attempt {ctx.attempt}: nobody there")
    return f"there at attempt {ctx.attempt}"


@task(retries=1, retry_delay_s=0.2, timeout_s=1)
def stuck(ctx) -> str:
    while ctx.attempt == 1:
        time.sleep(0.05)
    return f"quick at attempt {ctx.attempt}"


@task
def report(one: str, other: str) -> None:
    print(f"flaky: {one}; stuck: {other}")


@dag(owner="examples")
def retry_and_timeout():
    report(flaky(), stuck())


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    subprocess.run([orchestrator, "run", "retry_and_timeout", "--wait"], check=True)
