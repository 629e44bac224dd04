"""A daily pipeline over real data: four years of Seattle weather, one day a run, into one DuckDB file.

    orchestrator dags deploy examples/weather.py
    orchestrator backfill weather --from 2012-01-01 --to 2015-12-31 --wait

Each run is about one day, its window. Loading is an upsert by date, so a day may be loaded again at any time
(a retry, `reprocess`) and the table stays the same. DuckDB lets one process write at a time, and windows run
in several: they take turns through a lock file.
"""

import fcntl
import functools
import os
from pathlib import Path

from orchestrator import PermanentFailure, dag, task

DATABASE = Path(os.environ.get("ORCHESTRATOR_HOME", Path.home() / ".orchestrator")) / "weather.duckdb"
TABLE = """CREATE TABLE IF NOT EXISTS weather (date DATE PRIMARY KEY, precipitation DOUBLE, temp_max DOUBLE,
           temp_min DOUBLE, temp_mean DOUBLE, wind DOUBLE, weather TEXT, rainy BOOLEAN, season TEXT)"""
SEASONS = ("winter", "spring", "summer", "autumn")


@functools.cache
def observations() -> dict[str, dict]:
    """date -> what was measured; read once by each worker process."""
    from vega_datasets import data

    days = data.seattle_weather()
    return {str(day["date"].date()): {**day, "date": str(day["date"].date())} for day in days.to_dict("records")}


@task(retries=2)
def extract(ctx) -> dict:
    day = observations().get(ctx.window.start if ctx.window else "")
    if day is None:
        raise PermanentFailure(
            "Seattle's weather is known from 2012-01-01 to 2015-12-31; run this for one of those days"
        )
    return day


@task
def derive(day: dict) -> dict:
    season = SEASONS[int(day["date"][5:7]) % 12 // 3]
    mean = round((day["temp_max"] + day["temp_min"]) / 2, 2)
    return {**day, "temp_mean": mean, "rainy": day["precipitation"] > 0, "season": season}


@task(retries=3, retry_delay_s=1, timeout_s=120)
def load(day: dict, database: str) -> None:
    import duckdb

    with Path(f"{database}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released with the file, also by a crash
        with duckdb.connect(database) as connection:
            connection.execute(TABLE)
            columns = ", ".join(day)
            connection.execute(
                f"INSERT OR REPLACE INTO weather ({columns}) VALUES ({', '.join('?' * len(day))})", list(day.values())
            )


@dag(schedule="0 6 * * *", timezone="America/Los_Angeles", owner="examples", max_active_runs=64)
def weather(database: str = str(DATABASE)):
    load(derive(extract()), database)
