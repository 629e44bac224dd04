"""actors.worker_process: the way of a note to the owner of a run."""

from __future__ import annotations

from typing import Any

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError

from actors import worker_process
from actors.worker_process import RayNotes
from orchestrator.errors import ActorUnreachable


class Owners:
    """Ray, with one RunActor that has the name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.fails: Exception | None = None
        self.note = self
        monkeypatch.setattr(worker_process.ray, "get_actor", self.get_actor)
        monkeypatch.setattr(worker_process.ray, "get", self.get)

    def get_actor(self, _name: str, _namespace: str) -> Any:
        self.asked += 1
        return self

    def remote(self, note: bytes) -> bytes:
        return note

    def get(self, note: bytes, timeout: float) -> bool:
        assert timeout == worker_process.NOTE_S
        if self.fails is not None:
            raise self.fails
        return note == b"current"


def test_an_owner_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, notes = Owners(monkeypatch), RayNotes()
    assert [notes.send("run-actor-0", note) for note in (b"current", b"replaced")] == [True, False]
    assert ray.asked == 1


@pytest.mark.parametrize(("failed", "asked"), [(ActorDiedError(), 2), (GetTimeoutError("late"), 1)])
def test_it_is_looked_up_again_when_it_is_gone_but_not_when_it_is_slow(
    monkeypatch: pytest.MonkeyPatch, failed: Exception, asked: int
) -> None:
    ray, notes = Owners(monkeypatch), RayNotes()
    ray.fails = failed
    with pytest.raises(ActorUnreachable):
        notes.send("run-actor-0", b"current")
    ray.fails = None
    assert notes.send("run-actor-0", b"current")
    assert ray.asked == asked
