"""Runs that a later fire replaced are cancelled, whoever noted it, and until they have ended."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.replaced import LOOK_S, ReplacedRuns
from orchestrator import actor_codec
from orchestrator.errors import ActorUnreachable
from tests.conformance.journal_builders import Owner, a_fire, append, new_run, put
from tests.fakes_journal import MemoryJournal
from tests.virtual_time import virtually


class Peers:
    """RunActors that end a run at the second request; the first one gets lost."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal
        self.asked: list[tuple[str, str, str]] = []

    async def ask(self, actor: str, method: str, blob: bytes) -> bytes:
        """As `actors.peers.Peers`."""
        command = actor_codec.decode_command(blob)
        self.asked.append((actor, command.kind, command.run_id))
        if len(self.asked) == 1:
            raise ActorUnreachable(actor, "lost")
        self._journal._move(self._journal.runs[command.run_id], "cancelled")
        return b""


async def _replaced(journal: MemoryJournal, owned: bool) -> str:
    """A run that a fire replaced."""
    scheduler = await Owner(journal, "scheduler").start()
    await journal.put_dag(put(next_fire_ms=1000))
    run = new_run("2025-01-01", run_type="scheduled")
    await journal.fire(a_fire(scheduler, 1000, next_ms=2000, runs=(run,)))
    if owned:
        await (await Owner(journal, "run-actor-7").start()).commit(append(run.run_id, 1, state="running"))
    await journal.fire(a_fire(scheduler, 2000, replaces=(run.run_id,)))
    return run.run_id


def _play(owned: bool, told: bool, waits_s: float, some: str | None = "run-actor-0") -> list[tuple[str, str, str]]:
    async def story() -> list[tuple[str, str, str]]:
        journal = MemoryJournal()
        peers: Any = Peers(journal)
        replaced = ReplacedRuns(journal, peers, lambda: some)
        if not told:
            await _replaced(journal, owned)
        task = asyncio.get_running_loop().create_task(replaced.run())
        await asyncio.sleep(1.0)
        if told:
            await _replaced(journal, owned)
            replaced.look()
        await asyncio.sleep(waits_s)
        task.cancel()
        return [(actor, kind, "") for actor, kind, _ in peers.asked]

    return virtually(story())


def test_what_was_noted_before_is_cancelled_at_once_and_again_until_it_has_ended() -> None:
    assert _play(owned=True, told=False, waits_s=0.0) == [("run-actor-7", "cancel", "")] * 2


def test_a_fire_that_replaces_runs_is_told() -> None:
    assert _play(owned=True, told=True, waits_s=1.0) == [("run-actor-7", "cancel", "")] * 2


def test_a_run_that_nobody_owns_is_cancelled_by_some_run_actor() -> None:
    assert _play(owned=False, told=True, waits_s=1.0) == [("run-actor-0", "cancel", "")] * 2
    assert _play(owned=False, told=True, waits_s=1.0, some=None) == []


def test_a_note_that_nobody_told_about_is_found_after_a_while() -> None:
    async def story() -> list[tuple[str, str, str]]:
        journal = MemoryJournal()
        peers: Any = Peers(journal)
        task = asyncio.get_running_loop().create_task(ReplacedRuns(journal, peers, lambda: None).run())
        await asyncio.sleep(1.0)
        await _replaced(journal, owned=True)
        await asyncio.sleep(LOOK_S)
        task.cancel()
        return peers.asked  # type: ignore[no-any-return] # a stand-in

    assert len(virtually(story())) == 2
