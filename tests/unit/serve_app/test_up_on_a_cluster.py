"""serve_app.up on a cluster that somebody else started: from when on there is something of ours to end."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from actors.settings import Settings
from orchestrator.errors import Conflict
from serve_app import cluster, up

SETTINGS = Settings(ray_address="10.0.0.1:6379", redis_url="redis://10.0.0.2", home="/h", workers=2)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was ended, in its order."""
    found: list[str] = []

    def note(name: str) -> object:
        return lambda *_: found.append(name)

    monkeypatch.setattr(cluster, "serves", lambda: True)
    monkeypatch.setattr(cluster, "stop_http", note("http"))
    monkeypatch.setattr(up, "_stop_actors", note("actors"))
    monkeypatch.setattr(up, "_release_room", note("room"))
    monkeypatch.setattr(up, "_leave", note("lease"))
    return found


def settled(ends: ExitStack) -> None:
    up._settle_on_cluster(SETTINGS, print, ends)


def test_actors_end_before_the_lease_is_given_back(ended: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "check_vacant", lambda _: None)
    with ExitStack() as ends:
        settled(ends)
    assert ended == ["http", "actors", "room", "lease"]


def test_a_cluster_that_is_another_ones_keeps_its_actors_and_its_lease(
    ended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(_: Settings) -> None:
        raise Conflict("another orchestrator runs on this cluster")

    monkeypatch.setattr(cluster, "check_vacant", taken)
    with pytest.raises(Conflict), ExitStack() as ends:
        settled(ends)
    assert ended == []
