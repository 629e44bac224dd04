"""actors.spawn.start: whom a server starts itself, on a cluster of its own and on one that has a cast already."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from actors import spawn
from actors.settings import Settings
from orchestrator.planes import Claim

SETTINGS = Settings(redis_url="redis://x", home="/h", run_actors_max=1, workers=2, ray_address="auto")


class Starts:
    """Ray, where a supervisor lives or not; names of the actors that were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, there: bool) -> None:
        self.there = there
        self.names: list[str] = []

        async def enter(*_: object) -> bool:
            return True

        async def workers_at_first(settings: Settings) -> int:
            return settings.worker_count

        monkeypatch.setattr(spawn, "ray", self)
        monkeypatch.setattr(spawn, "this_plane", lambda: "here")
        monkeypatch.setattr(spawn, "enter", enter)
        monkeypatch.setattr(spawn, "_workers_at_first", workers_at_first)
        monkeypatch.setattr(spawn, "_create", lambda _kind, name, *_: self.names.append(name))
        monkeypatch.setattr(spawn, "_create_worker", lambda name, *_: self.names.append(name))
        monkeypatch.setattr(spawn, "_await", lambda _: None)

    def kill(self, _actor: object, **_: bool) -> None:
        """Handlers of a former server."""

    def get_actor(self, _name: str, _namespace: str) -> Any:
        if not self.there:
            raise ValueError("there is no such actor")
        return object()


def test_the_whole_cast_is_started_where_nobody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch, there=False)
    spawn.start(SETTINGS)
    assert starts.names == ["supervisor", "scheduler", "run-actor-0", "worker-default-0", "worker-default-1"]


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://10.0.0.7:8000"), ("::", "http://10.0.0.7:8000"), ("127.0.0.1", "http://127.0.0.1:8000")],
)
def test_others_are_told_an_address_that_they_reach(monkeypatch: pytest.MonkeyPatch, host: str, url: str) -> None:
    def told(host: str, **more: object) -> dict[str, object]:
        return {"NodeID": host, "NodeManagerAddress": host, "Labels": {}, "Resources": {"CPU": 2, **more}}

    worker, head = told("10.0.0.9") | {"Alive": True}, told("10.0.0.7", **{"node:__internal_head__": 1.0})
    ray = SimpleNamespace(nodes=lambda: [worker, head | {"Alive": True}])
    monkeypatch.setattr(spawn, "ray", ray)
    monkeypatch.setattr(spawn, "this_plane", lambda: "here")
    assert spawn.claim(Settings(redis_url="redis://x", host=host)) == Claim("here", url=url)


def test_a_plane_that_cannot_ask_for_the_head_claims_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray does not start an actor again whose constructor fails."""

    def away() -> list[object]:
        raise RuntimeError("GCS is away")

    monkeypatch.setattr(spawn, "ray", SimpleNamespace(nodes=away))
    monkeypatch.setattr(spawn, "this_plane", lambda: "here")
    assert spawn.claim(Settings(redis_url="redis://x", host="0.0.0.0")) == Claim("here", url="http://127.0.0.1:8000")


def test_a_supervisor_that_lives_alone_knows_who_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that it does not know of would hold a CPU, and never get a task."""
    starts = Starts(monkeypatch, there=True)
    spawn.start(SETTINGS)
    assert starts.names == ["supervisor", "scheduler"]


class Ending:
    """Ray with many actors of ours, where each question takes until three more are asked at the same time."""

    def __init__(self, names: list[str]) -> None:
        self.ended: list[str] = []
        self._together = threading.Barrier(4)
        told = [{"name": name, "namespace": "orchestrator"} for name in names]
        listed = [*told, {"name": "controller", "namespace": "serve"}]
        self.util = SimpleNamespace(list_named_actors=lambda all_namespaces: listed)

    def get_actor(self, name: str, _namespace: str) -> str:
        if name.startswith("worker"):
            self._together.wait(10)
        if name == "scheduler":
            raise ValueError("it is not there any more")
        return name

    def kill(self, actor: str, *, no_restart: bool) -> None:
        assert no_restart
        self.ended.append(actor)


def test_actors_are_ended_many_at_a_time_and_the_supervisor_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease lasts ten seconds, and hundreds of workers one by one would take longer."""
    workers = [f"worker-default-{n}" for n in range(8)]
    ray = Ending(["scheduler", *workers, "supervisor"])
    monkeypatch.setattr(spawn, "ray", ray)
    spawn.stop()
    assert ray.ended[0] == "supervisor"
    assert sorted(ray.ended[1:]) == workers
    ray.ended.clear()
    spawn.end_all_but("supervisor")
    assert sorted(ray.ended) == workers


@pytest.mark.parametrize(("address", "rooms"), [("auto", [((), ())]), ("", [])])
def test_a_plane_that_is_not_in_charge_keeps_no_nodes(
    monkeypatch: pytest.MonkeyPatch, address: str, rooms: list[object]
) -> None:
    told: list[object] = []
    monkeypatch.setattr(spawn, "end_all_but", told.append)
    monkeypatch.setattr(spawn, "request_room", told.append)
    spawn.end_cast(Settings(redis_url="redis://x", ray_address=address))
    assert told == ["supervisor", *rooms]
