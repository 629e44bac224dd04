"""A command reaches whoever owns the run, once or as often as it may be carried out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from orchestrator import actor_codec
from orchestrator.command import Command, CommandReply
from orchestrator.errors import ActorUnreachable, Conflict, NotFound, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.steps import StoredReply
from serve_app.asking import ask
from tests.conformance.journal_builders import Owner, append, create, new_run
from tests.fakes_journal import MemoryJournal

DONE = CommandReply(state="cancelled")
MOVED = CommandReply(refused="moved", message="run moved to actor-1")
DEAD = ActorUnreachable("run-actor-0", "it died")


@dataclass
class Stage:
    """Answers in turn, and remembers whom it was asked for."""

    answers: list[CommandReply | ActorUnreachable]
    asked: list[str] = field(default_factory=list)

    async def command(self, owner: str, run_id: str, command: bytes) -> bytes:
        self.asked.append(owner)
        answer = self.answers.pop(0)
        if isinstance(answer, ActorUnreachable):
            raise answer
        return actor_codec.encode_command_reply(answer)


async def owned() -> tuple[MemoryJournal, str]:
    journal = MemoryJournal()
    [run] = await create(journal, new_run())
    await (await Owner(journal).start()).commit(append(run, 1))
    return journal, run


async def asked(stage: Any, kind: str = "cancel", **changes: Any) -> CommandReply:
    journal, run = await owned()
    return await ask(journal, stage, "", Command(kind=kind, run_id=run, **changes))


@pytest.mark.parametrize("kind", ["cancel", "post", "retry_task"])
async def test_what_moved_meanwhile_is_asked_at_its_new_owner(kind: str) -> None:
    stage = Stage([MOVED, DONE])
    assert (await asked(stage, kind)).state == "cancelled"
    assert stage.asked == ["", "actor-1"]


@pytest.mark.parametrize("kind", ["cancel", "pause", "resume", "skip_task"])
async def test_what_may_be_done_twice_is_asked_again_when_its_owner_dies(kind: str) -> None:
    stage = Stage([DEAD, DONE])
    await asked(stage, kind)
    assert stage.asked == ["", "actor-1"]


@pytest.mark.parametrize("kind", ["post", "retry_task", "retry_run"])
async def test_what_may_have_been_done_is_not_done_again(kind: str) -> None:
    stage = Stage([DEAD, DONE])
    with pytest.raises(ActorUnreachable):
        await asked(stage, kind)
    assert await asked(Stage([DEAD, DONE]), kind, idem=Idempotency("k", "f")) == DONE


@pytest.mark.parametrize(
    ("word", "error"), [("conflict", Conflict), ("not_found", NotFound), ("unavailable", Unavailable)]
)
async def test_a_refusal_is_told(word: str, error: type[Exception]) -> None:
    stage = Stage([CommandReply(refused=word, message="no")])
    with pytest.raises(error):
        await asked(stage)
    assert len(stage.asked) == 1


async def test_a_cancel_whose_answer_is_lost_with_the_actor_of_its_run_is_told_by_the_run() -> None:
    journal = MemoryJournal()
    owner = await Owner(journal).start()
    [run] = await create(journal, new_run())
    await owner.commit(append(run, 1, state="cancelled"))
    for kind, told in (("cancel", "cancelled"), ("pause", "done by nobody")):
        stage: Any = Stage([DEAD, CommandReply(state="done by nobody")])
        assert (await ask(journal, stage, "", Command(kind=kind, run_id=run))).state == told


async def test_a_cancel_that_was_carried_out_for_another_replica_has_the_answer_of_that_one() -> None:
    journal = MemoryJournal()
    owner = await Owner(journal).start()
    [run] = await create(journal, new_run())
    first = CommandReply(state="cancelling", attempts=1, before="running")
    stored = StoredReply("k", "f", actor_codec.encode_command_reply(first))
    await owner.commit(append(run, 1, state="cancelling", idem=stored))
    await owner.commit(append(run, 2, state="cancelled"))
    again = Command(kind="cancel", run_id=run, idem=Idempotency("k", "f"))
    gone: Any = Stage([DEAD])
    assert await ask(journal, gone, "", again) == msgspec.structs.replace(first, replayed=True)
    other: Any = Stage([DEAD])
    with pytest.raises(Conflict, match="another body"):
        await ask(journal, other, "", msgspec.structs.replace(again, idem=Idempotency("k", "other")))
