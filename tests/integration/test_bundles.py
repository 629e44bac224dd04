"""Two versions of the same code on a real server: each run executes its own, whatever happens to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.client import Client
from tests.dags_api import Api, Json
from tests.live import Server

pytestmark = pytest.mark.ray

FLOW = """
import time
from pathlib import Path

import helper
from orchestrator import dag, task


@task(retries=0)
def first(ctx, place: str) -> str:
    Path(place, f"{ctx.run_id}.{ctx.attempt}.started").write_text(helper.VERSION)
    while not Path(place, "open").exists():
        time.sleep(0.02)
    return helper.VERSION


@task(retries=0)
def second(ctx, seen: str, place: str) -> None:
    from lib import late

    if Path(place, "broken").exists():
        raise RuntimeError(f"{late.VERSION} is broken")
    Path(place, f"{ctx.run_id}.done").write_text(f"{seen} {helper.VERSION} {late.VERSION}")


@dag(dag_id="DAG_ID")
def shipped(place: str):
    second(first(place), place)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where tasks write, and look for leave to go on."""
    folder = tmp_path / "place"
    folder.mkdir()
    yield folder
    (folder / "open").touch()


@pytest.fixture
def dag_id(tmp_path: Path) -> str:
    return "shipped_" + tmp_path.name.replace("-", "_")[-40:]


@pytest.fixture
def deploy(live: Server, tmp_path: Path, dag_id: str) -> Callable[[str], Json]:
    """Deploys the flow with that version of what it imports."""

    def deploy(version: str, **more: str) -> Json:
        folder = tmp_path / "flows"
        (folder / "lib").mkdir(parents=True, exist_ok=True)
        files = {"flow.py": FLOW.replace("DAG_ID", dag_id), "helper.py": f"VERSION = {version!r}\n"}
        files |= {"lib/late.py": f"VERSION = {version!r}\n", **more}
        for name, text in files.items():
            (folder / name).write_text(text)
        done = live.cli("dags", "deploy", str(folder))
        assert done.returncode == 0, done.stderr
        return {"out": done.stdout}

    return deploy


def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.02)


def ended(api: Api, run_id: str) -> Json:
    answer: Json = api.get(f"/runs/{run_id}", params={"wait_s": 30}).json()
    return answer


def test_each_of_two_runs_executes_the_code_it_was_created_with(
    api: Api, deploy: Callable[[str], Json], dag_id: str, place: Path
) -> None:
    deploy("one")
    before = api.get(f"/dags/{dag_id}").json()
    old = api.trigger(dag_id, params={"place": str(place)})["run_id"]
    until((place / f"{old}.1.started").exists)
    deploy("two")
    new = api.trigger(dag_id, params={"place": str(place)})["run_id"]
    until((place / f"{new}.1.started").exists)
    (place / "open").touch()
    assert ended(api, old)["state"] == ended(api, new)["state"] == "success"
    assert (place / f"{old}.done").read_text() == "one one one"
    assert (place / f"{new}.done").read_text() == "two two two"
    after = api.get(f"/dags/{dag_id}").json()
    assert after["version"] == before["version"] + 1, "another helper is another version"
    assert after["bundle"] != before["bundle"]


def test_a_run_whose_worker_was_killed_goes_on_with_its_own_code(
    live: Server, api: Api, deploy: Callable[[str], Json], dag_id: str, place: Path
) -> None:
    deploy("one")
    old = api.trigger(dag_id, params={"place": str(place)})["run_id"]
    until((place / f"{old}.1.started").exists)
    deploy("two")
    (place / f"{old}.1.started").unlink()
    for child in live.processes("actors.bundle_child"):
        for worker in live.processes("WorkerProcess"):
            if worker.pid == child.parent:
                worker.kill()
    until((place / f"{old}.2.started").exists)
    (place / "open").touch()
    assert ended(api, old)["state"] == "success"
    assert (place / f"{old}.done").read_text() == "one one one"


def test_a_retry_of_an_old_run_runs_the_old_code(
    api: Api, deploy: Callable[[str], Json], dag_id: str, place: Path
) -> None:
    (place / "open").touch()
    (place / "broken").touch()
    deploy("one")
    old = api.trigger(dag_id, params={"place": str(place)})["run_id"]
    assert ended(api, old)["state"] == "failed"
    deploy("two")
    (place / "broken").unlink()
    api.post(f"/runs/{old}/retry")
    assert ended(api, old)["state"] == "success"
    assert (place / f"{old}.done").read_text() == "one one one"


def test_a_worker_keeps_the_process_of_a_bundle(
    live: Server, api: Api, deploy: Callable[[str], Json], dag_id: str, place: Path
) -> None:
    (place / "open").touch()
    deploy("one")
    bundle = api.get(f"/dags/{dag_id}").json()["bundle"]
    pids = []
    for _ in range(3):
        started = [api.trigger(dag_id, params={"place": str(place)})["run_id"] for _ in range(4)]
        assert {ended(api, run_id)["state"] for run_id in started} == {"success"}
        pids.append({process.pid for process in live.processes(bundle) if "bundle_child" in process.title})
    assert 1 <= len(pids[-1]) <= len(live.processes("WorkerProcess"))
    assert pids[0] <= pids[1] <= pids[2], "nobody started it again"


def test_a_bundle_that_cannot_be_imported_is_refused_with_the_traceback(live: Server, api: Api, tmp_path: Path) -> None:
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "broken_flow.py").write_text("import helper_of_it\n")
    (folder / "helper_of_it.py").write_text("def f():\n    import surely_not_there\nf()\n")
    done = live.cli("dags", "deploy", str(folder))
    assert done.returncode == 1
    assert "module 'surely_not_there' is neither in the bundle nor installed" in done.stderr
    assert 'File "helper_of_it.py", line 2, in f' in done.stderr
    assert done.stdout == ""


def test_code_comes_over_http_from_who_does_not_see_the_servers_disk(
    live: Server, api: Api, tmp_path: Path, dag_id: str, place: Path
) -> None:
    (place / "open").touch()
    folder = tmp_path / "flows"
    (folder / "lib").mkdir(parents=True)
    (folder / "flow.py").write_text(FLOW.replace("DAG_ID", dag_id))
    for name in ("helper.py", "lib/late.py"):
        (folder / name).write_text("VERSION = 'sent'\n")
    with Client(live.url, live.tokens["admin"]) as client:
        deployed = client.dags.deploy_folder(folder)
        assert [each["dag_id"] for each in deployed["items"]] == [dag_id]
        assert client.dags.deploy_folder(folder) == deployed, "the same content is the same version"
        assert deployed["bundle"] in [each["bundle"] for each in client.dags.bundles()]
        assert deployed["bundle"] not in client.dags.prune_bundles(0), "it is current"
    run_id = api.trigger(dag_id, params={"place": str(place)})["run_id"]
    assert ended(api, run_id)["state"] == "success"
    assert (place / f"{run_id}.done").read_text() == "sent sent sent"


TENANTS = """
from orchestrator import dag, task

import helper


@task
def told() -> str:
    return helper.VERSION


@dag(dag_id="DAG_ID")
def shipped():
    task.bash("shell", "./x.sh", env={"SEEN": told()})
"""


def test_a_second_tenant_runs_code_that_only_it_sees(live: Server, api: Api, tmp_path: Path, dag_id: str) -> None:
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "flow.py").write_text(TENANTS.replace("DAG_ID", dag_id))
    (folder / "helper.py").write_text("VERSION = 'of the other'\n")
    (folder / "x.sh").write_text("#!/bin/sh\necho $SEEN, $(cat helper.py)\n")
    done = live.cli("dags", "deploy", str(folder), "--token", live.tokens["other"])
    assert done.returncode == 0, done.stderr
    other = live.api("other")
    bundle = other.get(f"/dags/{dag_id}").json()["bundle"]
    run_id = other.trigger(dag_id)["run_id"]
    assert ended(other, run_id)["state"] == "success"
    logs = live.cli("runs", "logs", run_id, "shell", "--token", live.tokens["other"]).stdout
    assert "of the other, VERSION = 'of the other'" in logs
    assert [each["bundle"] for each in other.get("/bundles").json()["items"]] == [bundle]
    assert bundle not in [each["bundle"] for each in api.get("/bundles").json()["items"]]
    assert api.post(f"/bundles/{bundle}/deploy").status_code == 404
    refused = live.cli("bundles", "delete", bundle[:12], "--token", live.tokens["other"])
    assert (refused.returncode, f"the current version of DAG {dag_id} names it" in refused.stderr) == (1, True)
    assert api.get(f"/dags/{dag_id}").status_code == 404
