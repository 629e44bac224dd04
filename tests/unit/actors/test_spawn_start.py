"""actors.spawn.start: whom a server starts itself, on a cluster of its own and on one that has a cast already."""

from __future__ import annotations

from typing import Any

import pytest

from actors import spawn
from actors.settings import Settings

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


def test_a_supervisor_that_lives_alone_knows_who_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that it does not know of would hold a CPU, and never get a task."""
    starts = Starts(monkeypatch, there=True)
    spawn.start(SETTINGS)
    assert starts.names == ["supervisor", "scheduler"]


@pytest.mark.parametrize(("address", "rooms"), [("auto", [((), ())]), ("", [])])
def test_a_plane_that_is_not_in_charge_keeps_no_nodes(
    monkeypatch: pytest.MonkeyPatch, address: str, rooms: list[object]
) -> None:
    told: list[object] = []
    monkeypatch.setattr(spawn, "end_all_but", told.append)
    monkeypatch.setattr(spawn, "request_room", told.append)
    spawn.end_cast(Settings(redis_url="redis://x", ray_address=address))
    assert told == ["supervisor", *rooms]
