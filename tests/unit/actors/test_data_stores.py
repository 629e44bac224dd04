"""Data stores of blueprints over the journal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.data_stores import DataStores
from orchestrator.errors import Invalid
from tests.fakes_journal import MemoryJournal


def stores(journal: MemoryJournal, **initial: dict[str, Any]) -> DataStores:
    return DataStores(journal, asyncio.get_running_loop(), "b", initial or {"prefs": {"a": 1, "list": [1]}})


async def test_a_value_is_what_was_set_last_else_the_initial_one_else_none() -> None:
    prefs = stores(MemoryJournal()).prefs
    assert [await prefs.get(key) for key in ("a", "b")] == [1, None]
    await prefs.set("a", {"x": [1, None]})
    await prefs.set("b", None)
    assert [await prefs.get(key) for key in ("a", "b")] == [{"x": [1, None]}, None]


async def test_values_outlive_the_process_and_are_read_through() -> None:
    journal = MemoryJournal()
    one, other = stores(journal), stores(journal)
    await one.prefs.set("a", 2)
    assert await other.prefs.get("a") == 2
    await other.prefs.set("a", 3)
    assert await one.prefs.get("a") == 3


async def test_a_store_is_an_attribute_and_an_item() -> None:
    found = stores(MemoryJournal())
    assert found["prefs"] is found.prefs
    with pytest.raises(AttributeError, match="blueprint 'b' has no data store 'nope'"):
        _ = found.nope
    with pytest.raises(KeyError, match="blueprint 'b' has no data store 'nope'"):
        _ = found["nope"]


async def test_stores_do_not_mix() -> None:
    found = stores(MemoryJournal(), one={"k": 1}, two={"k": 2})
    await found.one.set("k", 5)
    assert (await found.one.get("k"), await found.two.get("k")) == (5, 2)


async def test_nobody_can_change_the_initial_value() -> None:
    prefs = stores(MemoryJournal()).prefs
    (await prefs.get("list")).append(2)
    assert await prefs.get("list") == [1]


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), {1: 2}, object()])
async def test_a_value_that_is_not_json_is_refused(value: object) -> None:
    prefs = stores(MemoryJournal()).prefs
    with pytest.raises(Invalid, match=r"^a: |^a has"):
        await prefs.set("a", value)
    assert await prefs.get("a") == 1


@pytest.mark.parametrize("key", ["", "x" * 1001, 5, None])
async def test_a_key_is_text(key: Any) -> None:
    prefs = stores(MemoryJournal()).prefs
    with pytest.raises(Invalid, match="a key of a data store must be text"):
        await prefs.get(key)
    with pytest.raises(Invalid, match="a key of a data store must be text"):
        await prefs.set(key, 1)


async def test_a_journal_that_is_away_is_waited_for() -> None:
    journal = MemoryJournal()
    prefs = stores(journal).prefs
    journal.failing = [False, True]
    await prefs.set("a", 2)
    assert await prefs.get("a") == 2


async def test_a_handler_in_another_loop_reaches_the_journal_in_its_own() -> None:
    journal = MemoryJournal()
    found, home = stores(journal), asyncio.get_running_loop()
    used: list[object] = []
    put = journal.put_records

    async def watched(*args: Any) -> None:
        used.append(asyncio.get_running_loop())
        await put(*args)

    journal.put_records = watched  # type: ignore[method-assign] # to see where it is called
    await asyncio.to_thread(asyncio.run, found.prefs.set("a", 2))
    assert used == [home]
    assert await found.prefs.get("a") == 2
