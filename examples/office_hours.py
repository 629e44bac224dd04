"""A schedule that knows weekdays and holidays, keeps to one run at a time, and can be looked at before it fires.

    python examples/office_hours.py

The report is due at half past two at night in Berlin, from Monday to Friday but not on Christmas Day, and on one Sunday
when the office is open. While a report is still being made the next one waits; of those that a stopped server missed
the latest is made. On the night when the clocks go forward there is no half past two: it fires at three.
"""

import subprocess
import sys
from pathlib import Path

from orchestrator import dag, task

OFFICE_DAYS = {
    "weekdays": ["mon", "tue", "wed", "thu", "fri"],
    "exclude": ["2026-12-25"],
    "include": ["2027-03-28"],
}


@task
def write(ctx) -> None:
    print(f"report of {ctx.window.start if ctx.window else 'now'}")


@dag(
    owner="examples",
    schedule="30 2 * * *",
    timezone="Europe/Berlin",
    calendar=OFFICE_DAYS,
    catchup="last",
    overlap="buffer_one",
    jitter_s=120,
)
def office_hours():
    write()


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    for start in ("2026-12-24T00:00:00Z", "2027-03-26T00:00:00Z"):
        subprocess.run([orchestrator, "dags", "preview", "office_hours", "-n", "4", "--from", start], check=True)
