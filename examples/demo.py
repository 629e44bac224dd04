"""`make demo`: start everything, backfill a year of real weather over REST, show what came out, serve until Ctrl-C.

A server that already runs on this data directory is used and left running. Away from a terminal, or with
DEMO_EXIT=1, it ends when the table is printed.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

EXAMPLES = Path(__file__).parent
HOME = Path(os.environ.get("ORCHESTRATOR_HOME", Path.home() / ".orchestrator"))
YEAR = {"from": "2012-07-01", "to": "2013-06-30"}
PER_MONTH = """SELECT strftime(date, '%Y-%m'), round(avg(temp_max), 1), round(avg(temp_min), 1), sum(rainy::INT),
                      round(sum(precipitation)), mode(weather), count(*)
               FROM weather WHERE date BETWEEN $1 AND $2 GROUP BY 1 ORDER BY 1"""
console = Console()


def orchestrator(*arguments: str, read: bool = False) -> str:
    """Runs the command line; answers what it printed when that is to be read."""
    command = [Path(sys.executable).with_name("orchestrator"), *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE if read else None).stdout


def main() -> None:
    """The whole demonstration, from nothing to a table."""
    found = running()
    if not found:
        console.print("[bold]1. start[/bold] Ray, the journal, the actors and the HTTP server")
        orchestrator("up", "--detach")
    try:
        console.print("[bold]2. deploy[/bold] examples/weather.py")
        orchestrator("dags", "deploy", str(EXAMPLES / "weather.py"))
        credentials = json.loads((HOME / "credentials.json").read_text())
        headers = {"Authorization": f"Bearer {credentials['tokens']['admin']}"}
        base = f"{credentials['url']}/api/v1/runtime/orchestrator"
        with httpx.Client(base_url=base, headers=headers, timeout=30) as client:
            backfill(client)
        show()
        status = json.loads(orchestrator("status", "--json", read=True))
        console.print(f"\nAPI documentation  {status['url']}/docs\nRay dashboard      {status['dashboard']}")
        console.print("Command line       orchestrator runs list; orchestrator runs show RUN_ID; orchestrator down")
        if sys.stdin.isatty() and os.environ.get("DEMO_EXIT") != "1":
            console.print("\nServing. Ctrl-C ends it.")
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        console.print()
    finally:
        if not found:
            orchestrator("down")


def running() -> bool:
    """Does a server answer on this data directory?"""
    try:
        url = json.loads((HOME / "credentials.json").read_text())["url"]
        return httpx.get(f"{url}/ready", timeout=5).status_code == 200
    except (OSError, httpx.HTTPError):
        return False


def backfill(client: httpx.Client) -> None:
    """One run for each of 365 days; returns when all are over."""
    console.print("[bold]3. backfill[/bold] 365 days, three tasks each: POST /runs", YEAR)
    body = {"dag_id": "weather", "run_type": "backfill", **YEAR, "reprocess": "completed"}
    run_id = client.post("/runs", json=body).raise_for_status().json()["run_id"]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(run_id, total=365)
        while True:
            run = client.get(f"/runs/{run_id}").raise_for_status().json()
            counts = run["counts"]
            progress.update(bar, completed=counts["success"], total=counts["total"])
            if run["state"] in {"success", "failed", "cancelled"}:
                break
            time.sleep(0.2)
    if run["state"] != "success":
        raise SystemExit(f"the backfill ended as {run['state']}: {run['error']}")


def show() -> None:
    """Prints what the runs loaded, month by month."""
    table = Table("month", "mean high °C", "mean low °C", "rainy days", "rain mm", "mostly", "days")
    table.title = "Seattle, computed into weather.duckdb"
    with duckdb.connect(str(HOME / "weather.duckdb"), read_only=True) as database:
        for row in database.execute(PER_MONTH, [YEAR["from"], YEAR["to"]]).fetchall():
            table.add_row(*map(str, row))
    console.print(table)


if __name__ == "__main__":
    main()
