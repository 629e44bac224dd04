"""Reading runs that somebody has a message for; those that are wanted at the same time are read together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from actors.mail import Loaded
from actors.reading import Reader
from orchestrator.ports import Journal

#: runs that are read together
TOGETHER = 500


class RunLoader:
    """`put` gets each run, or who has it instead; `insist` tries until the journal answers."""

    def __init__(
        self,
        name: str,
        journal: Journal,
        reader: Reader,
        insist: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
        put: Callable[[Sequence[Loaded]], None],
    ) -> None:
        self._name = name
        self._journal = journal
        self._reader = reader
        self._insist = insist
        self._put = put
        self._wanted: list[str] = []
        self._loading = False

    async def load(self, run_id: str) -> None:
        """Returns at once while another read goes on: the run is among the next ones."""
        self._wanted.append(run_id)
        if self._loading:
            return
        self._loading = True
        while self._wanted:
            run_ids, self._wanted = self._wanted[:TOGETHER], self._wanted[TOGETHER:]
            await self._insist(partial(self._load_chunk, run_ids))
        self._loading = False

    async def _load_chunk(self, run_ids: list[str]) -> None:
        histories = {history.row.run_id: history for history in await self._journal.load(run_ids)}
        loaded = []
        for run_id in run_ids:
            history = histories.get(run_id)
            if history is None or history.row.owner not in ("", self._name):
                loaded.append(Loaded(run_id, None, history.row.owner if history else ""))
            else:
                loaded.append(Loaded(run_id, await self._reader.revive(history)))
        self._put(loaded)
