"""actors.kubernetes_task: an image of ours does in a Job what a worker does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actors import kubernetes_task
from orchestrator.kubernetes_job import job_of
from tests.kubernetes_api import environment_of
from tests.kubernetes_builders import an_order


def environment(type: str, attempt: int = 1, **params: Any) -> dict[str, str]:
    """As the container of such a Job sees it."""
    return environment_of(job_of(an_order("a", attempt, type=type, params=params), ""))


@pytest.mark.parametrize("type", ["core.noop", "core.echo"])
def test_what_it_returns_is_in_the_log(type: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "actors.kubernetes_task"],
        env={**os.environ, **environment(type, text="$(A) é")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ('{"text":"$(A) é"}\n' if type == "core.echo" else "{}\n")


def test_a_failure_is_its_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tmp_path / "termination-log"
    for name, value in environment("core.fail", times=1, message="no luck").items():
        monkeypatch.setenv(name, value)
    assert kubernetes_task.main(said) == 1
    assert said.read_text() == "no luck"
    monkeypatch.setenv("ORCH_ATTEMPT", "2")
    assert kubernetes_task.main(said) == 0


def test_what_a_command_prints_is_in_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = kubernetes_task.perform(environment("bash", command="echo here"), tmp_path)
    assert report.outcome == "ok"
    assert "here" in capfd.readouterr().out


def test_a_type_that_the_image_does_not_know_is_an_error(tmp_path: Path) -> None:
    report = kubernetes_task.perform(environment("acme.load"), tmp_path)
    assert (report.outcome, report.permanent) == ("error", True)
    assert report.error is not None
    assert "acme.load" in report.error
