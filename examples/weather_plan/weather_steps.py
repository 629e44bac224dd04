"""A plan on real data: four years of weather in Seattle, read, checked, summarised and reported task by task.

    cd examples/weather_plan
    ORCHESTRATOR_EXECUTORS_FILE=executors.yaml ORCHESTRATOR_CODE_DIRS=. orchestrator up --detach
    orchestrator plan run seattle --executor analyst --wait
    orchestrator plan findings seattle 3.1

The plan is `docs/plans/seattle.md`; what each task returns becomes its finding, and how far everything is stands in
`docs/plan-outputs/seattle/status.json`. Tasks hand on files in the folder `work` beside it, written so that a task may
run twice. Kill any process while it runs: what is done stays done.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from vega_datasets import data


def carry_out(task_id: str, plan_path: str, ctx: Any) -> str:
    """The function of that number; what it says is the finding."""
    plan = Path(plan_path)
    work = plan.parents[1] / "plan-outputs" / plan.stem / "work"
    work.mkdir(parents=True, exist_ok=True)
    with ctx.tool(STEPS[task_id].__name__, work=str(work)):
        return STEPS[task_id](work)


def read(work: Path) -> str:
    days = data.seattle_weather()
    days.to_csv(work / "days.csv", index=False)
    return f"{len(days)} days from {days['date'].min():%Y-%m-%d} to {days['date'].max():%Y-%m-%d}"


def check(work: Path) -> str:
    days = measured(work)["date"]
    missing = pd.date_range(days.min(), days.max()).difference(days)
    if len(missing):
        raise ValueError(f"{len(missing)} days are missing, the first is {missing[0]:%Y-%m-%d}")
    return "no day is missing"


def rain(work: Path) -> str:
    days = measured(work)
    by_month = days.groupby(days["date"].dt.month)["precipitation"].sum().round(1)
    (work / "rain.json").write_text(by_month.to_json())
    return "\n".join(f"month {month}: {total} mm" for month, total in by_month.items())


def warmest(work: Path) -> str:
    return extreme(work, "temp_max", "degrees")


def windiest(work: Path) -> str:
    return extreme(work, "wind", "m/s")


def kinds(work: Path) -> str:
    days = measured(work)
    counts = pd.crosstab(days["date"].dt.year, days["weather"])
    counts.to_csv(work / "kinds.csv")
    return counts.to_string()


def report(work: Path) -> str:
    rained = json.loads((work / "rain.json").read_text())
    wettest = max(rained, key=rained.get)
    extremes = json.loads((work / "extremes.json").read_text())
    lines = [f"- {name}: {value}" for name, value in sorted(extremes.items())]
    return "\n".join(["# Weather in Seattle", f"- wettest month: {wettest}, {rained[wettest]} mm", *lines])


def measured(work: Path) -> pd.DataFrame:
    return pd.read_csv(work / "days.csv", parse_dates=["date"])


def extreme(work: Path, column: str, unit: str) -> str:
    """The day with the highest value; noted in a file that two tasks share, which is why they are sequential."""
    days = measured(work)
    day = days.loc[days[column].idxmax()]
    path = work / "extremes.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    found = f"{day['date']:%Y-%m-%d}, {day[column]} {unit}"
    path.write_text(json.dumps(known | {column: found}))
    return found


STEPS: dict[str, Callable[[Path], str]] = {
    "1.1": read,
    "1.2": check,
    "2.1": rain,
    "2.2": warmest,
    "2.3": windiest,
    "2.4": kinds,
    "3.1": report,
}
