"""serve_app.gcs_keeper: a GCS that ends is started again, until it may end."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.settings import read_settings
from orchestrator.errors import Invalid
from serve_app import gcs_keeper
from serve_app.gcs_keeper import GcsKeeper


class FakeNode:
    """A Ray node whose GCS is a process that waits for its input to end."""

    def __init__(self) -> None:
        self.all_processes: dict[str, list[Any]] = {}
        self.starts = 0
        self.started = threading.Event()
        self.start_gcs_server()

    def start_gcs_server(self) -> None:
        command = [sys.executable, "-c", "input()"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.all_processes["gcs_server"] = [SimpleNamespace(process=process)]
        self.starts += 1
        self.started.set()

    def kill_gcs_server(self, check_alive: bool) -> None:
        assert not check_alive
        self.process.kill()
        del self.all_processes["gcs_server"]

    @property
    def process(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = self.all_processes["gcs_server"][0].process
        return process


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs_keeper, "PAUSE_S", 0.0)


def test_a_gcs_that_was_killed_is_started_again_and_again() -> None:
    node, said = FakeNode(), list[str]()
    keeper = GcsKeeper(node, said.append)
    for starts in (2, 3):
        node.started.clear()
        node.process.kill()
        assert node.started.wait(10)
        assert node.starts == starts
    keeper.stop()
    node.process.kill()
    node.process.wait()
    assert said == ["Ray's GCS ended with status -9: starting it again"] * 2


def test_a_gcs_that_does_not_start_at_once_is_started_again() -> None:
    class Held(FakeNode):
        """The files of the former one are locked for a while."""

        refusals = 0

        def start_gcs_server(self) -> None:
            if self.refusals:
                self.refusals -= 1
                raise RuntimeError("the lock is held")
            super().start_gcs_server()

        def kill_gcs_server(self, check_alive: bool) -> None:
            if self.all_processes:
                super().kill_gcs_server(check_alive)

    node, said = Held(), list[str]()
    node.started.clear()
    node.refusals = 2
    keeper = GcsKeeper(node, said.append)
    node.process.kill()
    assert node.started.wait(10)
    assert said.count("Ray's GCS does not start: the lock is held") == 2
    keeper.stop()
    node.process.kill()
    node.process.wait()


def test_one_that_ends_with_its_server_stays_so() -> None:
    node = FakeNode()
    keeper = GcsKeeper(node, lambda _: pytest.fail("it was to end"))
    keeper.stop()
    node.process.kill()
    node.process.wait()
    for thread in threading.enumerate():
        if thread.name == "gcs-keeper":
            thread.join(10)
            assert not thread.is_alive()
    assert node.starts == 1


def test_ray_keeps_its_state_in_memory_unless_asked(tmp_path: Path) -> None:
    assert gcs_keeper.environment(read_settings({}, home=str(tmp_path))) == {}
    assert "RAY_gcs_storage" not in gcs_keeper.environment(read_settings({"ORCHESTRATOR_GCS_STORAGE": "memory"}))


def test_a_cluster_of_our_own_starts_on_an_empty_folder(tmp_path: Path) -> None:
    settings = read_settings({"ORCHESTRATOR_GCS_STORAGE": "rocksdb"}, home=str(tmp_path))
    told = gcs_keeper.environment(settings)
    assert told == {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tmp_path / "gcs")}
    (tmp_path / "gcs").mkdir()
    (tmp_path / "gcs" / "session_name").write_text("of a former cluster")
    gcs_keeper.prepare(settings)
    assert list((tmp_path / "gcs").iterdir()) == []


def test_a_cluster_that_we_join_keeps_its_gcs_itself() -> None:
    settings = read_settings({"ORCHESTRATOR_GCS_STORAGE": "rocksdb"}, ray_address="10.0.0.1:6379")
    with pytest.raises(Invalid, match=r"where the head of 10\.0\.0\.1:6379 starts"):
        gcs_keeper.environment(settings)
