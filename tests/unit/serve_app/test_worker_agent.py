"""serve_app.worker_agent: one worker against a server made of lists, in virtual time; its functions run at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from orchestrator.errors import Unavailable
from orchestrator.remote_tasks import Outcome, RemoteContext, RemoteTask, remote_task
from serve_app.worker_agent import WorkerAgent
from serve_app.worker_wire import ServerRefused
from tests.virtual_time import virtually

Json = dict[str, Any]


class Server:
    """Tasks that wait, what came back, and what one worker said. Down between two virtual seconds."""

    def __init__(self, *tasks: Json) -> None:
        self.tasks = list(tasks)
        self.results: list[Json] = []
        self.registered: list[Json] = []
        self.beats: list[Json] = []
        self.told: list[tuple[str, float, str]] = []
        self.cancel_task_ids: list[str] = []
        self.require_full_sync = False
        self.down = (0.0, 0.0)
        #: results whose answer is lost on its way back
        self.lose = 0
        self.refuse: int | None = None
        self.socket: asyncio.Queue[Json] = asyncio.Queue()
        self.polls = 0

    async def register(self, about: Json) -> None:
        self._reach()
        self.registered.append(about)

    async def heartbeat(self, about: Json) -> Json:
        self._reach()
        self.beats.append(about)
        return {"cancel_task_ids": self.cancel_task_ids, "require_full_sync": self.require_full_sync}

    async def next_task(self, skills: Sequence[str]) -> Json | None:
        self._reach()
        self.polls += 1
        for _ in range(60):  # half a minute
            if self.tasks:
                return self.tasks.pop(0)
            await asyncio.sleep(0.5)
        return None

    async def result(self, result: Json) -> Json:
        self._reach()
        if self.refuse is not None:
            status, self.refuse = self.refuse, None
            raise ServerRefused("no", status)
        self.results.append(result)
        if self.lose:
            self.lose -= 1
            raise Unavailable("the answer was lost")
        return {"status": "result_accepted_success"}

    async def progress(self, job_id: str, task_id: str, fraction: float, message: str) -> None:
        self._reach()
        self.told.append((task_id, fraction, message))

    async def commands(self) -> AsyncIterator[Json]:
        self._reach()
        while True:
            yield await self.socket.get()

    def _reach(self) -> None:
        if self.down[0] <= now() < self.down[1]:
            raise Unavailable("down")


def now() -> float:
    return asyncio.get_running_loop().time()


def task(task_id: str, kind: str = "double", **params: Any) -> Json:
    return {"job_id": f"job of {task_id}", "task_id": task_id, "type": kind, "params": params}


@remote_task
async def double(params: Json) -> Json:
    await asyncio.sleep(10)
    return {"twice": params["n"] * 2}


@remote_task
async def endless(_params: Json, ctx: RemoteContext) -> None:
    ctx.progress(0.25, "a quarter")
    await asyncio.Event().wait()


@remote_task
async def chatty(_params: Json, ctx: RemoteContext) -> Outcome:
    for number in range(10):
        ctx.progress(number / 10, str(number))
        await asyncio.sleep(0.05)
    return Outcome("needs_review", {"n": 1})


TASKS: list[RemoteTask] = [double, endless, chatty]


async def for_seconds(server: Server, seconds: float, slots: int = 1) -> WorkerAgent:
    """The agent, after it has worked for so long and was cut off."""
    agent = WorkerAgent(server, "w1", TASKS, slots, lambda event, **_: None)
    working = asyncio.create_task(agent.run())
    await asyncio.wait({working}, timeout=seconds)
    working.cancel()
    await asyncio.wait({working})
    if not working.cancelled():
        working.result()
    return agent


def accepted(task_id: str, status: str = "success", data: Any = None, error: Any = None) -> Json:
    about = {"job_id": f"job of {task_id}", "task_id": task_id, "worker_id": "w1"}
    return about | {"status": status, "data": data, "error": error}


def test_tasks_are_done_one_after_the_other_in_each_slot() -> None:
    async def story() -> None:
        server = Server(*(task(f"t{n}", n=n) for n in range(4)))
        await for_seconds(server, 21, slots=2)
        assert server.results == [accepted(f"t{n}", data={"twice": 2 * n}) for n in range(4)]
        (about,) = server.registered
        assert (about["worker_id"], about["max_concurrent_tasks"]) == ("w1", 2)
        assert about["supported_tasks"] == ["chatty", "double", "endless"]

    virtually(story())


def test_a_heartbeat_names_what_runs_and_what_is_not_acknowledged() -> None:
    async def story() -> None:
        server = Server(task("t1", n=1), task("t2", "endless"))
        working = asyncio.create_task(for_seconds(server, 100, slots=2))
        await asyncio.sleep(5)
        server.down = (9, 14)
        await asyncio.sleep(95)
        await working
        assert [(beat["current_tasks"], beat["status"]) for beat in server.beats[:2]] == [
            ([], "idle"),
            (["t2", "t1"], "idle"),  # t1 has ended and waits for an answer
        ]
        assert [beat["current_tasks"] for beat in server.beats[2:]] == [["t2"]] * 5

    virtually(story())


@pytest.mark.parametrize("lost", [0, 1])
def test_a_result_is_kept_over_an_outage_and_told_until_it_is_acknowledged(lost: int) -> None:
    async def story() -> None:
        server = Server(task("t1", n=1))
        server.down, server.lose = (5, 300), lost
        await for_seconds(server, 400)
        assert server.results == [accepted("t1", data={"twice": 2})] * (1 + lost)

    virtually(story())


def test_a_result_that_is_refused_for_good_is_not_told_for_ever() -> None:
    async def story() -> None:
        server = Server(task("t1", n=1), task("t2", n=2))
        server.refuse = 404
        await for_seconds(server, 50)
        assert server.results == [accepted("t2", data={"twice": 4})]

    virtually(story())


def test_a_result_that_is_too_large_becomes_a_failure_that_says_so() -> None:
    async def story() -> None:
        server = Server(task("t1", n=1))
        server.refuse = 413
        await for_seconds(server, 50)
        error = {"code": "PERMANENT_ERROR", "message": "ValueError: the result is too large", "details": None}
        assert server.results == [accepted("t1", "failure", error=error)]

    virtually(story())


def test_a_task_that_is_delivered_twice_is_executed_once() -> None:
    async def story() -> None:
        server = Server(task("t1", n=1), task("t1", n=1))
        await for_seconds(server, 15, slots=2)
        assert len(server.results) == 1
        server.tasks = [task("t1", n=1)]
        agent = WorkerAgent(server, "w1", TASKS, 2, lambda event, **_: None)
        working = asyncio.create_task(agent.run())
        await asyncio.sleep(15)
        server.tasks = [task("t1", n=1)]
        await asyncio.sleep(2)
        assert server.results == [accepted("t1", data={"twice": 2})] * 3  # sent again, not done again
        working.cancel()

    virtually(story())


@pytest.mark.parametrize("by", ["heartbeat", "command", "type"])
def test_a_task_is_cancelled_by_heartbeat_and_by_socket(by: str) -> None:
    async def story() -> None:
        server = Server(task("t1", "endless"))
        working = asyncio.create_task(for_seconds(server, 40))
        await asyncio.sleep(10)
        if by == "heartbeat":
            server.cancel_task_ids = ["t1", "another"]
        else:
            await server.socket.put({by: "cancel_task", "task_id": "another"})
            await server.socket.put({by: "cancel_task", "task_id": "t1"})
        await asyncio.sleep(6)
        assert server.results == [accepted("t1", "cancelled")]
        await working

    virtually(story())


def test_progress_is_told_but_not_every_step_of_it() -> None:
    async def story() -> None:
        server = Server(task("t1", "chatty"))
        await for_seconds(server, 5)
        assert server.results == [accepted("t1", "needs_review", {"n": 1})]
        assert server.told[0] == ("t1", 0.0, "0")
        assert server.told[-1] == ("t1", 0.9, "9")
        assert len(server.told) <= 5

    virtually(story())


def test_a_type_that_is_not_known_here_may_be_tried_elsewhere() -> None:
    async def story() -> None:
        server = Server(task("t1", "other"))
        await for_seconds(server, 5)
        assert server.results[0]["error"]["code"] == "TRANSIENT_ERROR"

    virtually(story())


def test_a_server_that_lost_the_worker_is_told_all_again() -> None:
    async def story() -> None:
        server = Server()
        server.require_full_sync = True
        await for_seconds(server, 16)
        assert len(server.registered) == 3

    virtually(story())


def test_a_worker_that_is_told_to_stop_ends_what_runs_and_delivers_it() -> None:
    async def story() -> None:
        server = Server(task("t1", n=1))
        agent = WorkerAgent(server, "w1", TASKS, 3, lambda event, **_: None)
        working = asyncio.create_task(agent.run())
        await asyncio.sleep(5)
        server.down = (8, 20)
        agent.stop()
        await working
        assert 20 < now() < 30
        assert server.results == [accepted("t1", data={"twice": 2})]
        assert server.polls == 3

    virtually(story())


def test_a_worker_that_is_cut_off_reports_nothing() -> None:
    async def story() -> None:
        server = Server(task("t1", n=1))
        await for_seconds(server, 5)
        await asyncio.sleep(20)
        assert server.results == []

    virtually(story())


def test_a_worker_gives_up_when_it_never_reaches_the_server() -> None:
    async def story() -> None:
        server = Server()
        server.down = (0, 1e9)
        with pytest.raises(Unavailable):
            await WorkerAgent(server, "w1", TASKS, 1, lambda event, **_: None).run()
        assert now() == pytest.approx(0.5 + 1 + 2 + 4 + 8 + 16 + 30 + 30 + 30, abs=0.1)

    virtually(story())


def test_a_lost_server_is_polled_again_with_growing_pauses() -> None:
    async def story() -> None:
        server = Server()
        server.down = (1, 100)
        working = asyncio.create_task(for_seconds(server, 200))
        await asyncio.sleep(150)
        server.tasks = [task("t1", n=1)]
        await asyncio.sleep(45)
        assert server.results == [accepted("t1", data={"twice": 2})]
        await working

    virtually(story())
