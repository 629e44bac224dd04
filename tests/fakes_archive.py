"""An archive in memory, behind the port of the HTTP layer: what left is what says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from orchestrator.archive import Sweep
from orchestrator.idempotency import Idempotency
from orchestrator.rows import RunFilter
from orchestrator.views import Page, RunView


class FakeArchive:
    """`ports.Archive`."""

    def __init__(self, check: Callable[[], None], runs: Mapping[tuple[str, str], RunView], sweeps: list[Sweep]) -> None:
        #: raises when the system is to be broken
        self._check = check
        #: by tenant and id; those in the archive say so
        self._runs = runs
        self._sweeps = sweeps

    async def runs(self, wanted: RunFilter, cursor: str | None, limit: int) -> Page[RunView]:
        self._check()
        found = [view for (owner, _), view in self._runs.items() if owner == wanted.tenant and view.archived]
        fit = [v for v in found if wanted.dag_id in (None, v.dag_id) and wanted.state in (None, v.state)]
        return Page(tuple(sorted(fit, key=lambda view: view.run_id, reverse=True)[:limit]))

    async def sweep(self, older_than: timedelta, to: str | None, idem: Idempotency | None) -> Sweep:
        self._check()
        sweep_id = idem.key if idem else f"sweep-{len(self._sweeps)}"
        known = [sweep for sweep in self._sweeps if sweep.id == sweep_id]
        if not known:
            age_ms = int(older_than.total_seconds() * 1000)
            self._sweeps.append(Sweep(id=sweep_id, before_ms=2_000_000_000_000 - age_ms, to=to or "", asked_ms=1))
        return (known or self._sweeps)[-1]

    async def sweeps(self) -> list[Sweep]:
        self._check()
        return self._sweeps[::-1]
