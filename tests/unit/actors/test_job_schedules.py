"""Schedules of jobs: each firing makes one job, over restarts, and what was missed is made once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.job_schedules import read_schedules
from actors.settings import Settings
from orchestrator.errors import Invalid
from orchestrator.job_birth import fired_id
from tests.jobs_stage import Stage, play

OFTEN = '[often]\nblueprint = "simple"\ninterval_seconds = 90\ninput_data = {clip = "x"}\n'


def play_with(tmp_path: Path, text: str, story: Any, **settings: Any) -> None:
    path = tmp_path / "schedules.toml"
    path.write_text(text)
    play(story, schedules_config_path=str(path), **settings)


def test_an_interval_fires_by_the_beat_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await asyncio.sleep(89)
        assert stage.journal.runs == {}
        await asyncio.sleep(2)
        [job] = stage.journal.runs
        view = stage.view(job)
        assert (view.blueprint_name, view.initial_data) == ("simple", {"clip": "x"})
        assert view.client_config == {"name": "schedule:often", "plan": None}
        await stage.restart()
        await asyncio.sleep(90)
        assert len(stage.journal.runs) == 2

    play_with(tmp_path, OFTEN, story)


def test_of_several_missed_firings_the_newest_is_made(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await asyncio.sleep(1)
        stage.kill()
        await asyncio.sleep(300)
        stage.start()
        await asyncio.sleep(1)
        assert len(stage.journal.runs) == 1
        await asyncio.sleep(60)  # 361 s: the beat is kept
        assert len(stage.journal.runs) == 2

    play_with(tmp_path, OFTEN, story)


def test_a_firing_that_was_not_recorded_is_not_made_twice(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await asyncio.sleep(1)
        before = await stage.journal.records("job_schedule")
        await asyncio.sleep(91)
        assert len(stage.journal.runs) == 1
        stage.kill()
        await stage.journal.put_records("job_schedule", dict(before))
        stage.start()
        await asyncio.sleep(1)
        assert len(stage.journal.runs) == 1

    play_with(tmp_path, OFTEN, story)


def test_a_time_of_day_fires_on_the_clock_of_its_zone(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await asyncio.sleep(7)  # 11:59:59 UTC
        assert stage.journal.runs == {}
        await asyncio.sleep(2)
        assert len(stage.journal.runs) == 1

    noon = '[noon]\nblueprint = "simple"\ndaily_at = "13:00"\n'
    play_with(tmp_path, noon, story, schedules_zone="Europe/Berlin")


def test_a_schedule_of_a_blueprint_that_is_not_there_fires_nothing(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await asyncio.sleep(200)
        assert stage.journal.runs == {}

    play_with(tmp_path, OFTEN.replace("simple", "other"), story)


@pytest.mark.parametrize("text", [None, "[x]\nblueprint = 7\n", "not toml"])
def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "schedules.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Invalid, match=r"schedules\.toml"):
        read_schedules(Settings(schedules_config_path=str(path)))


def test_a_file_that_was_spoilt_does_not_keep_jobs_from_going_on(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        job = await stage.create()
        assert (await stage.poll("w1"))["job_id"] == job

    play_with(tmp_path, "not toml", story)


def test_the_id_of_a_firing_is_always_the_same_uuid4() -> None:
    async def story(stage: Stage) -> None:
        now = stage.clock.now()
        assert fired_id("a", now) == fired_id("a", now)
        assert fired_id("a", now) != fired_id("b", now)
        assert fired_id("a", now)[14] == "4"

    play(story)
