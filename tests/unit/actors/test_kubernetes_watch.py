"""actors.kubernetes_watch: lists when it must, watches on when it can, and waits when that does not last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from actors.kubernetes_cluster import ClusterRefused, ClusterUnavailable, WatchExpired
from actors.kubernetes_watch import PAUSE_MAX_S, PAUSE_S, STEADY_S, JobWatch

Json = dict[str, Any]
EXPIRED, DOWN = WatchExpired("too old"), ClusterUnavailable("refused connection")


class Over(Exception):
    """The script is at its end."""


class Script:
    """A cluster that answers as told, the clock that goes with it, and who listens."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.now_s = 0.0
        self.did: list[Any] = []
        self.heard: list[Any] = []
        self.stopped = False

    def _next(self, asked: Any) -> Any:
        self.did.append(asked)
        if not self.steps:
            raise Over
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def jobs(self) -> tuple[list[Json], str]:
        found: tuple[list[Json], str] = self._next("list")
        return found

    def changes(self, version: str) -> Iterator[tuple[str, Json, str]]:
        for change in self._next(version):
            if isinstance(change, Exception):
                raise change
            if isinstance(change, float):
                self.now_s += change
            else:
                yield change

    def listed(self, jobs: list[Json], asked_s: float) -> None:
        self.heard.append((jobs, asked_s))

    def changed(self, kind: str, job: Json) -> None:
        self.heard.append((kind, job["name"]))

    def pause(self, seconds: float) -> bool:
        if seconds:
            self.did.append(seconds)
        self.now_s += seconds
        return self.stopped

    def play(self) -> Script:
        self.watch = JobWatch(self, self, lambda: self.now_s, self.pause)
        with pytest.raises(Over):
            self.watch.run()
        return self


def change(name: str, version: int, kind: str = "MODIFIED") -> tuple[str, Json, str]:
    return kind, {"name": name}, str(version)


def test_it_lists_and_watches_from_there() -> None:
    script = Script(([{"name": "a"}], "7"), [change("a", 8), change("b", 9, "DELETED")]).play()
    assert script.did[:2] == ["list", "7"]
    assert script.heard == [([{"name": "a"}], 0.0), ("MODIFIED", "a"), ("DELETED", "b")]


def test_a_watch_that_ends_in_good_order_goes_on_where_it_was() -> None:
    script = Script(([], "7"), [STEADY_S, change("a", 9)], [STEADY_S]).play()
    assert script.did == ["list", "7", "9", "9"]


def test_a_bookmark_moves_on_and_says_nothing() -> None:
    script = Script(([], "7"), [change("", 50, "BOOKMARK"), STEADY_S]).play()
    assert script.did[-1] == "50"
    assert script.heard == [([], 0.0)]


@pytest.mark.parametrize("loss", [EXPIRED, DOWN, ClusterRefused(403, "forbidden")])
def test_after_a_loss_it_lists_again(loss: Exception) -> None:
    script = Script(([], "7"), [STEADY_S, change("a", 8), loss], ([], "9")).play()
    assert script.did == ["list", "7", "list", "9"]


def test_a_list_counts_as_of_when_it_was_asked_for() -> None:
    script = Script(([], "7"), [STEADY_S, EXPIRED], ([], "9")).play()
    assert [asked_s for _, asked_s in script.heard] == [0.0, STEADY_S]


def test_a_cluster_that_does_not_answer_is_asked_less_and_less_often() -> None:
    script = Script(*[DOWN] * 12).play()
    pauses = script.did[1::2]
    assert pauses[:3] == [PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S]
    assert pauses[-1] == PAUSE_MAX_S


def test_a_watch_that_is_ended_at_once_is_not_opened_in_a_circle() -> None:
    script = Script(([], "7"), [], [], []).play()
    assert script.did == ["list", "7", PAUSE_S, "7", 2 * PAUSE_S, "7", 4 * PAUSE_S, "7"]


def test_after_a_watch_that_lasted_the_first_pause_is_short_again() -> None:
    script = Script(DOWN, DOWN, ([], "7"), [STEADY_S, DOWN], DOWN).play()
    assert [step for step in script.did if isinstance(step, float)] == [PAUSE_S, 2 * PAUSE_S, PAUSE_S]


def test_while_nothing_is_heard_it_says_why() -> None:
    assert Script(DOWN).play().watch.trouble == "the Kubernetes API is unavailable: refused connection"
    assert Script(DOWN, ([], "7")).play().watch.trouble == ""


def test_it_stops_when_it_is_told_to() -> None:
    script = Script(([], "7"))
    script.stopped = True
    JobWatch(script, script, lambda: script.now_s, script.pause).run()
    assert script.did == []
