"""Every example runs alone, as its docstring says, against a running server; what it prints and leaves is right."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from vega_datasets import data

from tests.dags_api import Api
from tests.live import Server

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.ray


def run(live: Server, name: str, **environ: str) -> str:
    """What `python examples/<name>.py` prints; it must end well."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        env={**live.environ, **environ},
        cwd=live.home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def latest_log(live: Server, api: Api, dag_id: str, task: str) -> str:
    """Everything that `task` printed in the latest run of a DAG, all attempts."""
    run_id = api.runs(dag_id=dag_id)[0]["run_id"]
    items = api.get(f"/runs/{run_id}/tasks/{task}/logs").raise_for_status().json()["items"]
    return "".join(item["text"] for item in items)


def test_hello_dag_greets(live: Server, api: Api) -> None:
    run(live, "hello_dag")
    assert "Hello, Ray!" in latest_log(live, api, "hello", "say")


def test_map_and_reduce_tolerates_the_station_that_sends_nonsense(live: Server, api: Api) -> None:
    run(live, "map_and_reduce")
    assert "19 of 20 stations: S00" in latest_log(live, api, "map_and_reduce", "report")
    assert "number 3 of warmest" in latest_log(live, api, "map_and_reduce", "warmest%5B3%5D")
    run_id = api.runs(dag_id="map_and_reduce")[0]["run_id"]
    failed = live.cli("runs", "instances", run_id, "warmest", "--state", "failed").stdout.splitlines()
    assert failed[0].split() == ["warmest[4]", "failed"]
    assert failed[-1] == "warmest is done: 19 done, 1 failed"


def test_office_hours_shows_what_the_calendar_skips(live: Server, api: Api) -> None:
    told = " ".join(run(live, "office_hours").split())
    assert "skipped: excluded" in told
    assert "2027-03-28" in told
    assert "clocks change" in told


def test_partitions_are_run_each_and_added_to(live: Server, api: Api) -> None:
    told = run(live, "shop_reports").splitlines()
    assert told[-3] == "would start 6"
    assert told[-2].endswith("and made wider by 3")
    assert told[-1] == "success 1.0 9"
    assert "sales" in latest_log(live, api, "shop_reports", "report")


def test_followers_start_because_of_others(live: Server, api: Api) -> None:
    told = run(live, "followers").splitlines()
    report = api.runs(dag_id="revenue_report")[0]
    assert [line.strip() for line in told[-3:]] == [
        "1 run of the event",
        "1 run of the event again",
        f"revenue_mail success after {report['run_id']}",
    ]
    assert "because of shop://orders shop://prices" in latest_log(live, api, "revenue_report", "tell")
    assert "because of revenue_report" in latest_log(live, api, "revenue_mail", "tell")
    assert live.cli("assets", "list").stdout.count("shop://") == 2


def test_caching_computes_what_is_not_known(live: Server, api: Api) -> None:
    told = [line.rsplit(",", 1)[0] for line in run(live, "caching").splitlines() if "success" in line]
    assert told == [
        "eu: success, table computed",
        "eu: success, table cached",
        "asia: success, table computed",
        "eu: success, table computed",
    ]


def test_arrays_are_read_by_four_tasks(live: Server, api: Api) -> None:
    run(live, "arrays")
    assert "4 parts, 4000" in latest_log(live, api, "arrays", "report")


def test_limits_lets_three_queries_run_at_a_time(live: Server, api: Api) -> None:
    assert "success: at most 3 of 12 ran at a time" in run(live, "limits")


def test_fan_out_fan_in_adds_up(live: Server, api: Api) -> None:
    run(live, "fan_out_fan_in")
    words = 6 * sum(range(1, 13))
    assert f"{words} words in 12 texts" in latest_log(live, api, "word_count", "total")


def test_retry_and_timeout_ends_well_at_the_third_and_second_attempt(live: Server, api: Api) -> None:
    run(live, "retry_and_timeout")
    log = latest_log(live, api, "retry_and_timeout", "report")
    assert "flaky: there at attempt 3; stuck: quick at attempt 2" in log


def test_deadlines_ends_well_and_shows_what_was_late(live: Server, api: Api) -> None:
    run(live, "deadlines")
    [summary] = api.runs(dag_id="deadlines")
    assert (summary["tasks_sla_missed"], summary.get("sla_missed")) == (["report"], None)
    frames = api.events(summary["run_id"])
    assert [each.data["timed_out"] for each in frames if "timed_out" in (each.data or {})] == ["heartbeat"]
    assert "14 rows, late but done" in latest_log(live, api, "deadlines", "report")


def test_saga_undoes_the_last_step_first(live: Server, api: Api) -> None:
    run(live, "saga")
    tasks = [api.get(f"/runs/{each['run_id']}").json()["tasks"] for each in api.runs(dag_id="saga")]
    assert [(each["refund"], each["give_back"]) for each in tasks] == [("skipped", "skipped"), ("done", "done")]


def test_subdags_calls_two_runs_of_which_one_fails(live: Server, api: Api) -> None:
    out = run(live, "subdags")
    assert [line.split()[:3] for line in out.splitlines() if "region_sales  " in line] == [
        ["south:", "region_sales", "success"],
        ["east:", "region_sales", "failed"],
    ]
    assert "north 12, south 10, east None" in out


def test_rules_and_cleanup_takes_both_ways_and_leaves_nothing(live: Server, api: Api) -> None:
    run(live, "rules_and_cleanup")
    assert "500 rows, in bulk" in latest_log(live, api, "rules_and_cleanup", "report")
    assert "cleaned up" in latest_log(live, api, "rules_and_cleanup", "remove")
    tasks = [api.get(f"/runs/{each['run_id']}").json()["tasks"] for each in api.runs(dag_id="rules_and_cleanup")]
    assert [(each["in_bulk"], each["one_by_one"]) for each in tasks] == [("done", "skipped"), ("skipped", "done")]
    assert {each["warn"] for each in tasks} == {"skipped"}


def test_waiting_goes_on_with_a_signal_a_decision_and_time(live: Server, api: Api) -> None:
    out = run(live, "waiting")
    assert "rows" in out
    assert "load 4 rows?" in out
    assert "attempt 1 begins" in out
    assert "attempt 2 begins" in out
    assert "load/2 | loaded" in out
    newest = api.runs(dag_id="waiting")[0]
    ways = api.run(newest["run_id"])["tasks"]
    assert (newest["state"], ways["refuse"], ways["load"]) == ("success", "skipped", "done")


def test_two_versions_each_run_their_own_code(live: Server) -> None:
    told = run(live, "two_versions").splitlines()
    assert told[0].startswith("two_versions version 1 active bundle ")
    assert told[1].startswith("two_versions version 2 active bundle ")
    assert told[2:] == ["invoice/1 | offered at 10, invoiced at 10", "invoice/1 | offered at 12, invoiced at 12"]


def test_follow_a_run_resumes_after_its_last_event(live: Server) -> None:
    lines = run(live, "follow_a_run").splitlines()
    cut = lines.index("-- connection lost, back again after 3")
    numbers = [int(line.split()[0]) for line in lines[:cut] + lines[cut + 1 : -1]]
    assert numbers == list(range(1, 10))
    assert lines[-1].split() == ["end", "->", "success"]


def test_survive_a_crash_ends_right(live: Server, api: Api) -> None:
    actors = {process.pid for process in live.processes("ray::RunActor")}
    run(live, "survive_a_crash")
    assert "counted to ten, with a crash in the middle" in latest_log(live, api, "survive_a_crash", "check")
    starts = latest_log(live, api, "survive_a_crash", "count_to_ten")
    assert "attempt 2 starts with [1, 2, 3, 4, 5]" in starts
    assert actors.isdisjoint(process.pid for process in live.processes("ray::RunActor"))


def test_the_weather_is_loaded_once_a_day_however_often_it_is_run(live: Server, api: Api) -> None:
    deployed = live.cli("dags", "deploy", str(EXAMPLES / "weather.py"))
    assert deployed.returncode == 0, deployed.stderr
    days = {"run_type": "backfill", "start": "2014-02-25", "end": "2014-03-06"}
    run_id = api.trigger("weather", **days)["run_id"]
    assert api.wait(run_id, timeout_s=60)["state"] == "success"
    once = loaded(live, "2014-02-25", "2014-03-06")
    seattle = data.seattle_weather().set_index("date").loc["2014-02-25":"2014-03-06"]
    assert [row[1:3] for row in once] == list(zip(seattle["temp_max"], seattle["precipitation"], strict=True))
    assert [row[3] for row in once] == list(seattle["precipitation"] > 0)
    assert [row[4] for row in once] == ["winter"] * 4 + ["spring"] * 6
    api.trigger("weather", **days, reprocess="completed")
    api.until(run_id, lambda run: run["attempts"] == 2 and run["state"] == "success", timeout_s=60)
    assert loaded(live, "2014-02-25", "2014-03-06") == once


def test_a_day_nobody_measured_fails_at_once(live: Server, api: Api) -> None:
    live.cli("dags", "deploy", str(EXAMPLES / "weather.py"))
    end = api.wait(api.trigger("weather", start="2020-01-01", end="2020-01-01")["run_id"])
    assert end["tasks"] == {"extract": "failed", "derive": "upstream_failed", "load": "upstream_failed"}
    assert "2012-01-01" in end["error"]


@pytest.mark.slow
def test_the_demo_shows_a_year(live: Server) -> None:
    out = run(live, "demo", DEMO_EXIT="1", COLUMNS="140")
    assert "365/365" in out
    assert "2012-07" in out
    assert "2013-06" in out
    assert len(loaded(live, "2012-07-01", "2013-06-30")) == 365
    assert live.processes("ray::RunActor"), "a server that ran before the demo is left running"


def test_a_plan_on_weather_data_is_carried_out_and_reported(live: Server) -> None:
    root = Path(live.environ["ORCHESTRATOR_PLANS_ROOT"])
    shutil.copy(EXAMPLES / "weather_plan" / "weather_steps.py", live.home / "dags")
    shutil.copytree(EXAMPLES / "weather_plan" / "docs", root / "docs", dirs_exist_ok=True)
    executors = Path(live.environ["ORCHESTRATOR_EXECUTORS_FILE"])
    executors.write_text(executors.read_text() + (EXAMPLES / "weather_plan" / "executors.yaml").read_text())
    done = live.cli("plan", "run", "seattle", "--executor", "analyst", "--wait", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads(done.stdout)
    assert (status["exit_reason"], status["summary"]["completed"]) == ("complete", 7)
    report = live.cli("plan", "findings", "seattle", "3.1").stdout
    seattle = data.seattle_weather()
    hottest = seattle.loc[seattle["temp_max"].idxmax()]
    assert f"temp_max: {hottest['date']:%Y-%m-%d}, {hottest['temp_max']} degrees" in report
    listed = live.cli("plan", "run", "seattle", "--executor", "lister", "--wait")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    events = live.cli("instances", "events", status["instance_id"], "--json").stdout.splitlines()
    told = [json.loads(line) for line in events]
    assert [each["id"] for each in told] == list(range(1, len(told) + 1))
    tools = {each["data"]["data"]["tool_name"] for each in told if each["event"] == "tool_completed"}
    assert tools == {"analyst", "read", "check", "rain", "warmest", "windiest", "kinds", "report"}


def test_a_python_package_is_tested_built_and_tried_by_a_ci_pipeline(live: Server) -> None:
    lines = run(live, "ci_pipeline").splitlines()
    log = [line for line in lines if line.startswith("Info")]
    starts = [line.partition("Starting stage: ")[2] for line in log if "Starting stage" in line]
    assert starts == ["checkout", "test", "build", "try"]
    assert any("Ran 3 tests" in line for line in log)
    assert log[-2:] == ["Info    MMXXVI", "Info    1994"]
    assert lines[-1].startswith("Succeeded")
    assert "'archive': 'romans.pyz'" in lines[-1]


def test_a_job_goes_on_after_an_approval_at_a_worker_elsewhere(live: Server) -> None:
    out = run(live, "approval/approval_and_worker")
    assert out == "finished ['Call Me Ishmael.', 'Some Years Ago']\n"


def loaded(live: Server, first: str, last: str) -> list[tuple[object, ...]]:
    """(date, temp_max, precipitation, rainy, season) of the days in the database."""
    query = (
        "SELECT date, temp_max, precipitation, rainy, season FROM weather WHERE date BETWEEN $1 AND $2 ORDER BY date"
    )
    with duckdb.connect(str(live.home / "weather.duckdb"), read_only=True) as database:
        return database.execute(query, [first, last]).fetchall()
