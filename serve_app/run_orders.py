"""Commands on runs, on their way to the actors that own them; of a backfill to those of its windows."""

from __future__ import annotations

from orchestrator.command import Command, CommandReply
from orchestrator.errors import Conflict
from orchestrator.ports import ControlPlane, Journal
from orchestrator.rows import RunRow
from orchestrator.views import RunChanged
from serve_app import map_instances
from serve_app.archived_runs import ArchivedRuns
from serve_app.asking import ask, kept_reply, shown
from serve_app.dag_book import DagBook
from serve_app.window_orders import MEANT, WindowOrders


class RunOrders:
    """The gateway's part about commands; deadlines are the gateway's."""

    def __init__(self, journal: Journal, control: ControlPlane, book: DagBook, archive: ArchivedRuns) -> None:
        self._journal = journal
        self._control = control
        self._book = book
        self._archive = archive

    async def command(self, tenant: str, command: Command) -> RunChanged:
        """What the command came to, durably. Raises what it is refused with."""
        kind, run_id, task = command.kind, command.run_id, command.task
        row = await self._row_here(tenant, run_id)
        if (kept := await kept_reply(self._journal, command.idem)) is not None:
            return _changed(run_id, kept)
        if task is not None:
            await self._check_task(row, task)
        if kind == "cap" and row.run_type != "backfill":
            raise Conflict(f"run {run_id} is no backfill")
        if row.run_type == "backfill" and kind in MEANT:
            return _changed(run_id, await WindowOrders(self._journal, self._control).carry_out(row, command))
        return _changed(run_id, await ask(self._journal, self._control, row.owner, command))

    async def _row_here(self, tenant: str, run_id: str) -> RunRow:
        """The row of a run that a command is about: one that left comes back."""
        found = await self._journal.summary(run_id)
        return shown(found, tenant, run_id) if found else await self._archive.bring_back(tenant, run_id)

    async def _check_task(self, row: RunRow, task: str) -> None:
        definition = await self._book.version(row.tenant, row.dag_id, row.dag_version)
        map_instances.check_task(definition, task)


def _changed(run_id: str, reply: CommandReply) -> RunChanged:
    return RunChanged(run_id, reply.state, reply.attempts, reply.task_state, reply.replayed)
