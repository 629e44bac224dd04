"""actors.spawn.whose: who has the actors of a cluster that is to be joined."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError, GetTimeoutError

from actors import spawn
from orchestrator.errors import Unavailable


class Cluster:
    """What Ray says of the supervisor there, one answer after another; the last one stays."""

    def __init__(self, *answers: str | Exception | None) -> None:
        self._answers = list(answers)
        self.slept_s = 0.0

    def get_actor(self, name: str, namespace: str) -> Any:
        assert (name, namespace) == ("supervisor", "orchestrator")
        if self._answers[0] is None:
            raise ValueError("there is no such actor")
        return SimpleNamespace(whose=SimpleNamespace(remote=lambda: "asked"))

    def get(self, asked: str, timeout: float) -> str:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    def monotonic(self) -> float:
        return self.slept_s


def asked_of(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setattr(spawn, "ray", cluster)
    monkeypatch.setattr(spawn, "time", cluster)
    return spawn.whose()


AWAY = ActorUnavailableError("it is being restarted", b"\0" * 16)


def test_a_cluster_without_a_supervisor_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_of(Cluster(None), monkeypatch) is None


def test_a_supervisor_that_is_being_restarted_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_of(Cluster(AWAY, GetTimeoutError("late"), "ours"), monkeypatch) == "ours"
    assert asked_of(Cluster(AWAY, None), monkeypatch) is None  # it was ended meanwhile


def test_the_actors_of_one_that_does_not_answer_are_not_taken_for_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(AWAY)
    with pytest.raises(Unavailable, match="does not answer"):
        asked_of(cluster, monkeypatch)
    assert cluster.slept_s >= spawn.WHOSE_S
