"""actors.directory: what happens to names while Ray's GCS is away."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from actors import directory
from actors.directory import RayPeers
from actors.peers import WorkerGone, WorkerUnreachable
from orchestrator.errors import ActorUnreachable, NotFound


class Worker:
    """A handle whose methods tell which incarnation it is of."""

    def __init__(self, incarnation: str) -> None:
        self.incarnation, self.calls = incarnation, 0
        self.exchange = self.ping = self

    async def remote(self, *_args: bytes) -> bytes:
        self.calls += 1
        return self.incarnation.encode()


async def test_a_name_that_gcs_does_not_tell_blocks_one_thread_however_many_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back, asked = threading.Event(), list[str]()

    class Handle:
        class ping:
            @staticmethod
            async def remote(blob: bytes) -> bytes:
                return blob

    def get_actor(name: str, _namespace: str) -> Any:
        asked.append(name)
        assert back.wait(10)
        return Handle

    monkeypatch.setattr(directory.ray, "get_actor", get_actor)
    peers = RayPeers()
    for _ in range(50):
        with pytest.raises(ActorUnreachable):
            await peers.ask("scheduler", "ping", b"x", 0.001)
    assert asked == ["scheduler"]
    waiting = asyncio.create_task(peers.ask("scheduler", "ping", b"x"))
    await asyncio.sleep(0.01)
    back.set()
    assert await waiting == b"x"
    assert await peers.ask("scheduler", "ping", b"y") == b"y"
    assert asked == ["scheduler"]


async def test_an_error_of_ours_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class Handle:
        class set_pool:
            @staticmethod
            async def remote(_: bytes) -> bytes:
                trace = "Traceback (most recent call last):\n  File ..."
                raise RayTaskError("set_pool", trace, NotFound("pool", "gpu")).as_instanceof_cause()

    monkeypatch.setattr(directory.ray, "get_actor", lambda *_: Handle)
    with pytest.raises(NotFound) as caught:
        await RayPeers().ask("supervisor", "set_pool", b"x")
    assert str(caught.value) == "pool gpu not found"


async def test_a_name_that_nobody_has_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def get_actor(name: str, _namespace: str) -> Any:
        asked.append(name)
        raise ValueError(name)

    monkeypatch.setattr(directory.ray, "get_actor", get_actor)
    peers = RayPeers()
    for _ in range(2):
        with pytest.raises(ActorUnreachable):
            await peers.ask("nobody", "ping", b"x")
    assert asked == ["nobody"] * 2


async def test_a_worker_with_the_name_of_one_that_was_ended_is_the_one_that_gets_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, asked = Worker("i1"), list[str]()

    def get_actor(name: str, _namespace: str) -> Any:
        asked.append(name)
        return there

    monkeypatch.setattr(directory.ray, "get_actor", get_actor)
    peers = RayPeers()
    for _ in range(2):
        peers.meet("w0", "i1")
        assert await peers.exchange("w0", b"") == b"i1"
    there = Worker("i2")
    peers.meet("w0", "i2")
    assert await peers.exchange("w0", b"") == b"i2"
    assert asked == ["w0"] * 2


async def test_a_worker_that_was_looked_up_is_reached_while_nobody_can_be_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away, worker = False, Worker("i1")

    def get_actor(name: str, _namespace: str) -> Any:
        if away:
            raise ValueError(name)
        return worker

    monkeypatch.setattr(directory.ray, "get_actor", get_actor)
    peers = RayPeers()
    await peers.look_up("w0", "i1")
    away = True
    assert worker.calls == 1  # whoever has only a handle still has to ask where the actor lives
    await peers.look_up("w1", "i1")  # nobody hears of it: nothing was to be sent there
    peers.meet("w0", "i1")
    assert await peers.exchange("w0", b"") == b"i1"
    with pytest.raises(WorkerGone):
        await peers.exchange("w1", b"")


async def test_a_worker_that_is_slow_to_answer_need_not_be_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, slow = list[str](), True

    class Handle:
        class ping:
            @staticmethod
            async def remote() -> str:
                await asyncio.sleep(10 if slow else 0)
                return "i1"

    def get_actor(name: str, _namespace: str) -> Any:
        asked.append(name)
        return Handle

    monkeypatch.setattr(directory.ray, "get_actor", get_actor)
    monkeypatch.setattr(directory, "CONTROL_S", 0.01)
    peers = RayPeers()
    with pytest.raises(WorkerUnreachable, match="no answer to ping"):
        await peers.control("w0", "ping")
    slow = False
    assert await peers.control("w0", "ping") == "i1"
    assert asked == ["w0"]


async def test_who_had_the_name_before_is_not_kept_when_told_late(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()

    def get_actor(_name: str, _namespace: str) -> Any:
        if told.is_set():
            return Worker("i2")
        assert told.wait(10)
        return Worker("i1")

    monkeypatch.setattr(directory.ray, "get_actor", get_actor)
    peers = RayPeers()
    late = asyncio.create_task(peers.look_up("w0", "i1"))
    await asyncio.sleep(0.01)
    peers.meet("w0", "i2")
    told.set()
    await late
    assert await peers.exchange("w0", b"") == b"i2"


class Failing:
    """A handle whose calls fail, all in the same way."""

    _actor_id = "a1"

    def __init__(self, error: Exception) -> None:
        self.error, self.exchange, self.ping = error, self, self

    async def remote(self, *_: Any) -> bytes:
        raise self.error


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[str]:
    """There is one worker, whose calls fail; how often its name was asked for."""
    asked = list[str]()

    def get_actor(name: str, _namespace: str) -> Any:
        asked.append(name)
        return Failing(error)

    monkeypatch.setattr(directory.ray, "get_actor", get_actor)
    return asked


async def raised(peers: RayPeers) -> list[type]:
    """What an exchange and a control call raise."""
    with pytest.raises(WorkerGone) as exchange:
        await peers.exchange("w0", b"")
    with pytest.raises(WorkerGone) as control:
        await peers.control("w0", "ping")
    return [exchange.type, control.type]


CUT = ActorUnavailableError("RpcError: Socket closed", None)


async def test_a_call_that_failed_on_its_way_says_nothing_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = failing(monkeypatch, CUT)
    assert await raised(RayPeers()) == [WorkerUnreachable, WorkerUnreachable]
    assert asked == ["w0"], "the way to it is kept"


async def test_a_worker_whose_death_ray_tells_is_gone_and_so_is_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = failing(monkeypatch, ActorDiedError())
    assert await raised(RayPeers()) == [WorkerGone, WorkerGone]
    assert asked == ["w0"] * 2


async def test_a_worker_is_dead_when_nobody_listens_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, CUT)
    with socket.create_server(("127.0.0.1", 0)) as listens:
        place = listens.getsockname()
        monkeypatch.setattr(directory, "process_of", lambda _: place)
        assert not await RayPeers().is_dead("w0")
    assert await RayPeers().is_dead("w0")


async def test_a_worker_that_ray_starts_anew_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, CUT)
    monkeypatch.setattr(directory, "process_of", lambda _: None)
    assert await RayPeers().is_dead("w0")


async def test_a_worker_whose_name_nobody_has_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_actor(name: str, _namespace: str) -> Any:
        raise ValueError(name)

    monkeypatch.setattr(directory.ray, "get_actor", get_actor)
    assert await RayPeers().is_dead("w0")


@pytest.mark.parametrize("error", [AttributeError("state"), ValueError("an id")])
async def test_nobody_is_known_to_be_dead_where_ray_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What is asked is no public part of Ray."""

    def process_of(_: str) -> None:
        raise error

    failing(monkeypatch, CUT)
    monkeypatch.setattr(directory, "process_of", process_of)
    assert not await RayPeers().is_dead("w0")


async def test_nobody_is_known_to_be_dead_while_gcs_is_away_and_that_blocks_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(monkeypatch, CUT)
    back, asked = threading.Event(), list[str]()

    def process_of(actor_id: str) -> None:
        asked.append(actor_id)
        assert back.wait(10)

    monkeypatch.setattr(directory, "process_of", process_of)
    monkeypatch.setattr(directory, "PROBE_S", 0.05)
    peers = RayPeers()
    assert await asyncio.gather(*(peers.is_dead("w0") for _ in range(10))) == [False] * 10
    assert asked == ["a1"]
    back.set()
    await asyncio.sleep(0.05)
    assert await peers.is_dead("w0")
    assert asked == ["a1"] * 2
