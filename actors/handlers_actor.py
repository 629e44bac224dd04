"""The actor `handlers-0`: runs the Python handlers of blueprints, which are the operator's code.

    jobs holder ──visits──▶ choose the handler, inject arguments ──▶ run it (handler_runs.py) ──outcomes──▶ jobs holder

Nothing here is durable but the data stores. A visit may be asked for twice, when this process or the one that asked has
died: handlers run at least once. Whatever they do short of ending the process becomes an outcome: one that raised or
took too long is worth another try; one that asked for what cannot be is not. Blueprints are loaded when the process
starts; when they cannot be, each visit is answered with the reason, and is worth another try once they can.
Source: jobs contract, sections 5, 7 and 9a.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from actors.blueprint_load import load
from actors.data_stores import DataStores
from actors.handler_runs import HandlerRuns
from actors.names import HANDLERS
from actors.task_files import TaskFiles
from orchestrator import outside_codec
from orchestrator.blueprint import Outcome, Visit, refused
from orchestrator.blueprints import StateMachineBlueprint
from orchestrator.errors import Invalid
from orchestrator.handler_calls import HandlerCall
from orchestrator.ports import Journal

_log = logging.getLogger(__name__)

#: seconds a handler may take
TIMEOUT_S = 60.0
#: handlers at a time
CONCURRENT_MAX = 100


class HandlersActor:
    """Handlers of the blueprints in `folder` (None = there are none). `artifacts`: where jobs' files are kept."""

    def __init__(
        self,
        journal: Journal,
        folder: Path | None,
        artifacts: Path,
        *,
        timeout_s: float = TIMEOUT_S,
        concurrent_max: int = CONCURRENT_MAX,
    ) -> None:
        self.name = HANDLERS
        self._journal = journal
        self._folder = folder
        self._artifacts = artifacts
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(concurrent_max)
        self._code: dict[str, StateMachineBlueprint] = {}
        self._stores: dict[str, DataStores] = {}
        self._fault = ""

    def on_crash(self) -> None:
        """Handlers block this process: let it end and be restarted (set by whoever made this actor)."""

    def start(self) -> None:
        """Load the blueprints. Within the loop that visits are asked for in."""
        self._runs = HandlerRuns(self._timeout_s, self._crash)
        if self._folder is None:
            return
        try:
            self._code = load(self._folder).code
        except Invalid as invalid:
            _log.critical("blueprints cannot be loaded: %s", invalid)
            self._fault = f": {invalid}"
        loop = asyncio.get_running_loop()
        self._stores = {
            name: DataStores(self._journal, loop, name, blueprint.data_stores) for name, blueprint in self._code.items()
        }

    def stop(self) -> None:
        """Handlers that await something do not go on."""
        self._runs.stop()

    async def visit(self, blob: bytes) -> bytes:
        """Make these visits side by side; their outcomes in the same order, once all have ended."""
        outcomes = await asyncio.gather(*map(self._visit, outside_codec.decode_visits(blob)))
        return outside_codec.encode_outcomes(outcomes)

    async def ping(self) -> int:
        """Number of blueprints in Python."""
        return len(self._code)

    async def _visit(self, visit: Visit) -> Outcome:
        blueprint = self._code.get(visit.blueprint)
        if blueprint is None:
            return Outcome(error=f"Blueprint {visit.blueprint!r} is not deployed in Python{self._fault}", again=True)
        async with self._room:
            try:
                call = self._call(blueprint, visit)
            except Invalid as invalid:
                return refused(str(invalid))
            return await self._runs.run(call)

    def _call(self, blueprint: StateMachineBlueprint, visit: Visit) -> HandlerCall:
        handler, is_end = blueprint.handler(visit)
        files = TaskFiles(self._artifacts / visit.job_id)
        return HandlerCall(handler, visit, is_end=is_end, data_stores=self._stores[blueprint.name], task_files=files)

    def _crash(self) -> None:
        self.on_crash()
