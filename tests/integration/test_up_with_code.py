"""`orchestrator up --dags FOLDER`: the folder is a bundle, and each start deploys what it holds by then."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import live
from tests.live import Server

pytestmark = [pytest.mark.ray, pytest.mark.slow]

FLOW = """
import helper
from orchestrator import dag, task


@task
def told() -> None:
    print(helper.VERSION)


@dag
def shipped_by_up():
    told()
"""


def bundle_and_output(server: Server) -> tuple[str, str]:
    """Of the DAG's current version, and what a run of it prints."""
    api = server.api()
    run_id = str(api.trigger("shipped_by_up")["run_id"])
    assert api.wait(run_id)["state"] == "success"
    return str(api.get("/dags/shipped_by_up").json()["bundle"]), server.cli("runs", "logs", run_id, "told").stdout


def test_up_deploys_a_folder_in_a_bundle_and_what_changed_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "flow.py").write_text(FLOW)
    (folder / "helper.py").write_text("VERSION = 'one'\n")
    with live.serving(("--dags", str(folder), "--workers", "2")) as server:
        one, printed = bundle_and_output(server)
        assert "one" in printed
        assert not (server.home / "dags" / "helper.py").exists()
        again = server.cli("dags", "deploy", str(folder))
        assert again.stdout.strip() == f"shipped_by_up version 1 active bundle {one[:12]}", "as the command does it"
        (folder / "helper.py").write_text("VERSION = 'two'\n")
        server.down()
        server.up()
        two, printed = bundle_and_output(server)
        assert "two" in printed
        assert two != one
