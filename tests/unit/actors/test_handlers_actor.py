"""The actor that runs Python handlers: whatever user code does becomes an outcome, and the actor goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors import handler_runs
from actors.handlers_actor import HandlersActor
from orchestrator import outside_codec
from orchestrator.blueprint import Dispatch, Outcome, Transition, Visit
from tests.blueprint_builders import a_visit
from tests.fakes_journal import MemoryJournal

#: seconds a handler has in these tests
TIMEOUT_S = 0.2

FLOW = """
import asyncio, os, sys, threading, time
from orchestrator.blueprints import StateMachineBlueprint

bp = StateMachineBlueprint(name="b", data_stores={"prefs": {"n": 1}})
gate = threading.Event()

@bp.handler_for("start", is_start=True)
async def start(initial_data, actions):
    await asyncio.sleep(0)
    actions.dispatch_task("video", params=initial_data, transitions={"success": "finished", "next": initial_data["to"]})

@bp.handler_for("sync")
def sync(state_history, actions):
    state_history["thread"] = threading.current_thread().name
    actions.transition_to("finished")

@bp.handler_for("sync").when("context.initial_data.urgent == true")
def urgent(actions):
    actions.transition_to("failed")

@bp.handler_for("late_awaitable")
def late_awaitable(actions):
    async def later():
        actions.transition_to("finished")
    return later()

@bp.handler_for("counts")
async def counts(data_stores, actions, state_history):
    n = await data_stores.prefs.get("n")
    await data_stores["prefs"].set("n", n + 1)
    state_history["n"] = n
    actions.transition_to("finished")

@bp.handler_for("stores_a_set")
async def stores_a_set(data_stores, actions):
    await data_stores.prefs.set("n", {1})
    actions.transition_to("finished")

@bp.handler_for("keeps_a_file")
def keeps_a_file(task_files, actions, state_history):
    task_files.write("out/a.txt", b"hello")
    state_history["read"] = task_files.read("out/a.txt").decode()
    actions.transition_to("finished")

@bp.handler_for("leaves_the_folder")
def leaves_the_folder(task_files, actions):
    task_files.write("../a.txt", b"hello")

@bp.handler_for("raises")
async def raises(initial_data):
    raise ValueError(f"bad\\n{initial_data['what']}")

@bp.handler_for("raises_sync")
def raises_sync():
    raise ValueError("bad")

@bp.handler_for("exits")
async def exits():
    sys.exit(3)

@bp.handler_for("exits_sync")
def exits_sync():
    sys.exit(3)

@bp.handler_for("cancels_itself")
async def cancels_itself():
    raise asyncio.CancelledError

@bp.handler_for("times_out_itself")
async def times_out_itself():
    raise TimeoutError("mine")

@bp.handler_for("needs")
async def needs(x): ...

@bp.handler_for("idle")
async def idle(): ...

@bp.handler_for("not_json")
async def not_json(state_history, actions):
    state_history["x"] = {1}
    actions.transition_to("finished")

@bp.handler_for("sleeps")
async def sleeps():
    await asyncio.sleep(60)

@bp.handler_for("blocks_sync")
def blocks_sync():
    gate.wait(5)

@bp.handler_for("blocks")
async def blocks():
    gate.wait(5)

@bp.handler_for("ends_the_loop")
async def ends_the_loop(actions):
    asyncio.get_running_loop().call_soon(sys.exit)
    await asyncio.sleep(0.01)
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    actions.transition_to("finished")

@bp.handler_for("done", is_end=True)
def done(state_history):
    state_history["seen"] = True
"""


class Bench:
    """An actor over the file above; `crashed` is set when it wants to end."""

    def __init__(self, folder: Path | None, artifacts: Path, **options: Any) -> None:
        self.journal = MemoryJournal()
        self.crashed = asyncio.Event()
        self.actor = HandlersActor(self.journal, folder, artifacts, **({"timeout_s": TIMEOUT_S} | options))
        self.actor.on_crash = self.crashed.set  # type: ignore[method-assign] # as spawn does by a subclass
        self.actor.start()

    async def visits(self, *visits: Visit) -> list[Outcome]:
        return outside_codec.decode_outcomes(await self.actor.visit(outside_codec.encode_visits(visits)))

    async def visit(self, state: str, **changes: Any) -> Outcome:
        (outcome,) = await self.visits(a_visit(state, **changes))
        return outcome

    def gate(self) -> threading.Event:
        """Blocked handlers go on when it is set."""
        handler, _ = self.actor._code["b"].handler(a_visit("blocks"))
        gate: threading.Event = handler.__globals__["gate"]
        return gate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "blueprints"
    path.mkdir()
    (path / "flow.py").write_text(FLOW)
    return path


@pytest.fixture
async def bench(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(handler_runs, "GRACE_S", 0.1)
    monkeypatch.setattr(handler_runs, "LINGER_S", 0.0)
    made = Bench(folder, tmp_path / "artifacts")
    yield made
    made.gate().set()
    made.actor.stop()


async def test_a_handler_decides(bench: Bench) -> None:
    found = await bench.visit("start", initial_data={"to": "sync", "n": 1}, state_history={"kept": 1})
    action = Dispatch("video", {"to": "sync", "n": 1}, {"success": "finished", "next": "sync"})
    assert found == Outcome(action, {"kept": 1})


async def test_a_sync_handler_has_a_thread_of_its_own(bench: Bench) -> None:
    assert await bench.visit("sync") == Outcome(Transition("finished"), {"thread": "handler sync"})


async def test_conditions_choose_the_handler(bench: Bench) -> None:
    assert (await bench.visit("sync", initial_data={"urgent": True})).action == Transition("failed")


async def test_what_a_sync_handler_returns_is_awaited(bench: Bench) -> None:
    assert (await bench.visit("late_awaitable")).action == Transition("finished")


async def test_a_batch_is_answered_in_order(bench: Bench) -> None:
    found = await bench.visits(a_visit("raises_sync"), a_visit("sync"), a_visit("done"), a_visit("nowhere"))
    assert [(one.action, one.error) for one in found] == [
        (None, "ValueError: bad"),
        (Transition("finished"), None),
        (None, None),
        (None, "Blueprint 'b' has no state 'nowhere'"),
    ]


async def test_data_stores_are_kept_in_the_journal(bench: Bench) -> None:
    assert [(await bench.visit("counts")).state_history["n"] for _ in range(3)] == [1, 2, 3]
    assert bench.journal.documents["store:b:prefs"] == {"n": b"4"}


async def test_files_lie_in_the_folder_of_the_job(bench: Bench, tmp_path: Path) -> None:
    found = await bench.visit("keeps_a_file", job_id="J")
    assert found.state_history == {"read": "hello"}
    assert (tmp_path / "artifacts" / "J" / "out" / "a.txt").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("state", "error", "again"),
    [
        ("raises", "ValueError: bad thing", True),
        ("raises_sync", "ValueError: bad", True),
        ("exits", "SystemExit: 3", True),
        ("exits_sync", "SystemExit: 3", True),
        ("cancels_itself", "CancelledError", True),
        ("times_out_itself", "TimeoutError: mine", True),
        ("needs", "Handler 'needs' needs 'x'", False),
        ("idle", "Handler 'idle' made no action instead of one", False),
        ("not_json", "state_history/x is not JSON but a set", False),
        ("stores_a_set", "n: is not JSON but a set", False),
        ("leaves_the_folder", "task file '../a.txt' must be a path below the job's folder", False),
        ("nowhere", "Blueprint 'b' has no state 'nowhere'", False),
        ("sleeps", "Handler 'sleeps' took longer than 0.2 s", True),
        ("blocks_sync", "Handler 'blocks_sync' took longer than 0.2 s", True),
    ],
)
async def test_whatever_goes_wrong_is_told(bench: Bench, state: str, error: str, again: bool) -> None:
    assert await bench.visit(state, initial_data={"what": "thing"}) == Outcome(error=error, again=again)
    assert (await bench.visit("sync")).error is None
    assert not bench.crashed.is_set()


async def test_a_blueprint_that_is_not_there_is_worth_another_try(bench: Bench) -> None:
    found = await bench.visit("start", blueprint="gone")
    assert found == Outcome(error="Blueprint 'gone' is not deployed in Python", again=True)


async def test_handlers_run_side_by_side_up_to_a_limit(folder: Path, tmp_path: Path) -> None:
    bench = Bench(folder, tmp_path, timeout_s=5.0, concurrent_max=2)
    asked = [asyncio.ensure_future(bench.visit("blocks_sync")) for _ in range(2)]
    third = asyncio.ensure_future(bench.visit("sync"))
    done, _ = await asyncio.wait([third], timeout=0.1)
    assert not done
    bench.gate().set()
    assert (await third).action == Transition("finished")
    await asyncio.gather(*asked)
    bench.actor.stop()


async def test_a_handler_that_blocks_the_loop_is_answered_then_the_process_ends(bench: Bench) -> None:
    found = await bench.visit("blocks")
    assert found == Outcome(error="Handler 'blocks' took longer than 0.2 s", again=True)
    await asyncio.wait_for(bench.crashed.wait(), 1)


async def test_while_the_loop_is_blocked_sync_handlers_and_pings_are_answered(bench: Bench) -> None:
    blocked = asyncio.ensure_future(bench.visit("blocks"))
    assert (await bench.visit("sync")).error is None
    assert await bench.actor.ping() == 1
    assert not blocked.done()
    await blocked


async def test_a_handler_that_ends_the_loop_ends_nothing(bench: Bench) -> None:
    assert (await bench.visit("ends_the_loop")).action == Transition("finished")


async def test_too_many_threads_left_behind_end_the_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_runs, "LEFT_BEHIND_MAX", 3)
    await bench.visits(*[a_visit("blocks_sync")] * 2)
    await asyncio.sleep(0)
    assert not bench.crashed.is_set()
    await bench.visit("blocks_sync")
    await asyncio.wait_for(bench.crashed.wait(), 1)


async def test_threads_that_come_back_are_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_runs, "LEFT_BEHIND_MAX", 3)
    await bench.visits(*[a_visit("blocks_sync")] * 2)
    bench.gate().set()
    while bench.actor._runs._left_behind:  # noqa: ASYNC110 # nobody tells
        await asyncio.sleep(0.01)
    bench.gate().clear()
    await bench.visits(*[a_visit("blocks_sync")] * 2)
    await asyncio.sleep(0.05)
    assert not bench.crashed.is_set()


async def test_blueprints_that_cannot_be_loaded_are_told_with_each_visit(folder: Path, tmp_path: Path) -> None:
    (folder / "flow.py").write_text("raise RuntimeError('broken')")
    bench = Bench(folder, tmp_path)
    found = await bench.visit("start")
    assert found.again
    assert found.error is not None
    assert found.error.startswith("Blueprint 'b' is not deployed in Python: ")
    assert found.error.endswith("flow.py: RuntimeError: broken")
    bench.actor.stop()


async def test_without_a_folder_there_are_none(tmp_path: Path) -> None:
    bench = Bench(None, tmp_path)
    assert await bench.actor.ping() == 0
    assert (await bench.visit("start")).again
    bench.actor.stop()
