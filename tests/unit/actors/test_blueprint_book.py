"""Versions of blueprints in the journal."""

from __future__ import annotations

import pytest

from actors.blueprint_book import BlueprintBook
from orchestrator.blueprint import Blueprint, State, Transition, sealed
from orchestrator.errors import Broken
from tests.blueprint_builders import a_machine
from tests.fakes_journal import MemoryJournal


def flow(name: str = "b", **writes: int) -> Blueprint:
    return sealed(a_machine(State("s", start=True, set=writes, action=Transition("finished")), name=name))


async def test_a_new_blueprint_is_version_1() -> None:
    book = BlueprintBook(MemoryJournal())
    assert await book.publish([flow("a"), flow("b")]) == {"a": 1, "b": 1}
    deployed = await book.deployed()
    assert {name: (one.version, one.blueprint) for name, one in deployed.items()} == {
        "a": (1, flow("a")),
        "b": (1, flow("b")),
    }


async def test_other_content_is_another_version_and_the_same_is_not() -> None:
    journal = MemoryJournal()
    assert await BlueprintBook(journal).publish([flow(n=1)]) == {"b": 1}
    assert await BlueprintBook(journal).publish([flow(n=1)]) == {"b": 1}
    assert await BlueprintBook(journal).publish([flow(n=2)]) == {"b": 2}
    assert await BlueprintBook(journal).publish([flow(n=1)]) == {"b": 3}


async def test_every_version_stays_readable() -> None:
    journal = MemoryJournal()
    for n in (1, 2):
        await BlueprintBook(journal).publish([flow(n=n)])
    book = BlueprintBook(journal)
    assert [await book.version("b", number) for number in (1, 2)] == [flow(n=1), flow(n=2)]
    assert await book.version("b", 1) is await book.version("b", 1)
    with pytest.raises(Broken, match="blueprint b version 3 is not in the journal"):
        await book.version("b", 3)


async def test_a_blueprint_whose_file_is_gone_is_not_deployed_and_can_come_back() -> None:
    journal = MemoryJournal()
    book = BlueprintBook(journal)
    await book.publish([flow("a"), flow("b")])
    await book.publish([flow("b")])
    assert sorted(await book.deployed()) == ["b"]
    assert await book.version("a", 1) == flow("a")
    assert await book.publish([flow("a")]) == {"a": 1}
    assert sorted(await book.deployed()) == ["a"]
    assert await book.publish([]) == {}
    assert await book.publish([flow("a", n=1)]) == {"a": 2}
