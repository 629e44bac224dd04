"""Data stores of blueprints: values that the handlers of one blueprint share and that outlive every process.

    value = await data_stores.prefs.get("a")      else the blueprint's initial value, else None
    await data_stores["prefs"].set("a", 2)        durable when it returns

A value is a record of the journal (`store:<blueprint>:<store>`) and is read through each time: nothing is kept here.
The last writer wins. Handlers run in another loop than the one that the journal's connections belong to, so every
access crosses over to that one; a journal that is away is waited for, within the time a handler has.
Source: jobs contract, sections 7 and 9a.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec

from orchestrator.action_form import plain
from orchestrator.errors import Invalid, JournalUnavailable
from orchestrator.faults import json_fault, refusal
from orchestrator.ports import Journal

T = TypeVar("T")

#: characters of a key
KEY_MAX = 1000
#: bytes of a value as JSON
VALUE_MAX_BYTES = 16 * 1024 * 1024
#: seconds between tries while the journal is away
_PAUSE_S = 0.2

_encode = msgspec.json.Encoder().encode


class DataStore:
    """One store of one blueprint."""

    def __init__(
        self, journal: Journal, loop: asyncio.AbstractEventLoop, kind: str, initial: Mapping[str, Any]
    ) -> None:
        self._journal = journal
        #: the one that the journal is used in
        self._loop = loop
        self._kind = kind
        self._initial = initial

    async def get(self, key: str) -> Any:
        """The value: what was set last, else the initial one, else None. Raises Invalid."""
        _check_key(key)
        record = await self._cross(_patiently(lambda: self._journal.record(self._kind, key)))
        return copy.deepcopy(self._initial.get(key)) if record is None else msgspec.json.decode(record)

    async def set(self, key: str, value: Any) -> None:
        """Durable. Raises Invalid for a value that is not JSON."""
        _check_key(key)
        value = plain(value)
        if found := json_fault(value):
            raise refusal([("/".join(filter(None, (key[:100], found[0]))), found[1])])
        record = _encode(value)
        if len(record) > VALUE_MAX_BYTES:
            raise Invalid(f"{key[:100]}: has {len(record)} bytes, more than {VALUE_MAX_BYTES}")
        await self._cross(_patiently(lambda: self._journal.put_records(self._kind, {key: record})))

    async def _cross(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


class DataStores:
    """The stores of one blueprint, as attributes or items."""

    def __init__(
        self,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        blueprint: str,
        initial: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._blueprint = blueprint
        self._stores = {
            store: DataStore(journal, loop, f"store:{blueprint}:{store}", values) for store, values in initial.items()
        }

    def __getitem__(self, store: str) -> DataStore:
        if store not in self._stores:
            raise KeyError(f"blueprint {self._blueprint!r} has no data store {store!r}")
        return self._stores[store]

    def __getattr__(self, store: str) -> DataStore:
        stores = self.__dict__.get("_stores", {})
        if store not in stores:
            raise AttributeError(f"blueprint {self.__dict__.get('_blueprint')!r} has no data store {store!r}")
        found: DataStore = stores[store]
        return found


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not key or len(key) > KEY_MAX:
        raise Invalid(f"a key of a data store must be text of 1 to {KEY_MAX} characters")


async def _patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await attempt()
        except JournalUnavailable:
            await asyncio.sleep(_PAUSE_S)
