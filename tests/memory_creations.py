"""How runs come to be in a journal in memory, are restarted, leave for an archive and come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator import streams
from orchestrator.events import SCHEMA
from orchestrator.rows import TERMINAL, EventBatch, History
from orchestrator.steps import CreatedRun, Creation, CreationResult, NewRun
from tests.memory_ledger import KeptRun, Ledger, add_to, is_restarted, kind_of


class Creations(Ledger):
    """And how runs come to be, are restarted, leave and come back."""

    def _remove_history(self, run_id: str, version: int, event: bytes) -> bool:
        run = self.runs.get(run_id)
        if run is None or run.version != version or run.state not in TERMINAL or not run.passes:
            return False
        run.version = run.removed = version + 1
        run.events[1:] = [EventBatch(run.version, SCHEMA, event)]
        run.ended_ms = None
        self._feed.append((run_id, run.version, run.state))
        return True

    def _release(self, run_id: str, version: int) -> bool:
        run = self.runs.get(run_id)
        if run is None or run.version != version or run.state not in TERMINAL or run.holder or kind_of(run.dag_id):
            return False
        if run.run_type == "backfill":
            self.released[run_id] = run
        elif run.watchers or self._awaited(run) or self._keeps(run):
            return False
        else:
            add_to(self.run_counts[run.tenant, run.dag_id], run.state, -1)
        self.counters["archive_backfills" if run.run_type == "backfill" else "archive_runs"] += 1
        by_key = self.backfills_by_key if run.run_type == "backfill" else self.by_window_key
        if run.window_key and not run.caller:
            self.dag_rows[run.tenant, run.dag_id].archived += 1
            for key in [key for key, found in by_key.items() if found == run_id]:
                del by_key[key]
        self.logs = {key: chunks for key, chunks in self.logs.items() if key[0] != run_id}
        del self.runs[run_id]
        return True

    def _disband(self, limit: int) -> int:
        if not self.released:
            return 0
        backfill, run = next(iter(self.released.items()))
        for child in run.children[:limit]:
            if child in self.runs:
                self.runs[child].watchers = [each for each in self.runs[child].watchers if each != backfill]
        del run.children[:limit]
        if not run.children:
            del self.released[backfill]
        return len(self.released)

    def _restore(self, history: History, tasks: Mapping[str, str]) -> bool:
        row = history.row
        key = (row.tenant, row.dag_id, row.window_key)
        windowed = bool(row.window_key) and row.caller is None
        if row.run_id in self.runs or (windowed and key in self.by_window_key):
            return False
        names = KeptRun.__dataclass_fields__
        known = {name: getattr(row, name) for name in row.__struct_fields__ if name in names}
        ended_ms = None if row.removed else row.finished_ms or row.created_ms
        changes = {"watchers": [], "events": list(history.batches), "tasks": dict(tasks), "ended_ms": ended_ms}
        self.runs[row.run_id] = KeptRun(**(known | changes))
        add_to(self.run_counts[row.tenant, row.dag_id], row.state, 1)
        if windowed:
            self.by_window_key[key] = row.run_id
        return True

    def _erase(self, run_id: str) -> bool:
        run = self.runs.get(run_id)
        if run is None or not (run.holder or (run.state in TERMINAL and not run.window_key)):
            return False
        del self.runs[run_id]
        add_to(self.run_counts[run.tenant, run.dag_id], run.state, -1)
        for kind in ("wake", "sla"):
            self.timers.pop((kind, run_id), None)
        self.logs = {key: chunks for key, chunks in self.logs.items() if key[0] != run_id}
        key = (run.tenant, run.dag_id)
        if kind_of(run.dag_id) == "@flow" and not any(self.run_counts[key].values()):
            self.dag_rows.pop(key, None)
        return True

    def _holds(self, n: NewRun) -> bool:
        if n.owner:
            return True
        existing = self.by_window_key.get((n.tenant, n.dag_id, n.window_key)) if n.window_key else None
        if n.pinned_version and existing:
            return self.runs[existing].dag_version == n.pinned_version
        return self._version(n.tenant, n.dag_id) == n.dag_version

    def _stand(self, n: NewRun) -> CreatedRun:
        key = (n.tenant, n.dag_id, n.window_key)
        merged = bool(n.window_key) and n.caller is None
        run = self.runs.get(self.by_window_key.get(key, "") if merged else n.run_id)
        if run and merged and is_restarted(n.reprocess, run.state):
            self._restart(run, n.restart_event, 1, n.restart_version, wake_ms=n.wake_ms)
            run.because = n.because.decode() or run.because
            self._queue(run, run.parent, None, run.created_ms, True)
            return CreatedRun(run.run_id, "queued", "restarted")
        if run:
            return CreatedRun(run.run_id, run.state, "created" if run.run_id == n.run_id else "existing")
        batch = [EventBatch(1, n.schema, n.event)]
        head = (n.run_id, n.tenant, n.dag_id, n.dag_version, n.run_type, n.created_ms, batch)
        because = n.because.decode()
        run = KeptRun(*head, window_key=n.window_key, sla_ms=n.sla_ms, caller=n.caller, because=because)
        if n.owner:
            run.holder, run.owner, run.parent = n.owner, n.owner, n.parent
            self._born.setdefault(n.owner, []).append(streams.Born(n.run_id, n.schema, n.event.decode()))
        self._create(run, n.wake_ms)
        if n.alone:
            self.alone[n.tenant, n.dag_id] = n.run_id
        if merged:
            self.by_window_key[key] = n.run_id
        self._feed.append((n.run_id, 1, "queued"))
        if not run.holder:
            self._queue(run, "", None, n.created_ms, False)
        return CreatedRun(n.run_id, "queued", "created")

    def _create_runs(self, creations: Sequence[Creation]) -> list[CreationResult]:
        return [self._creation(creation) for creation in creations]

    def _creation(self, creation: Creation) -> CreationResult:
        status, kept, reply = self._stored(creation.idem)
        if status:
            return CreationResult(status, kept if isinstance(kept, tuple) else (), reply)
        if creation.once in self.told:
            return CreationResult("told", self.told[creation.once])
        if not all(self._holds(n) for n in creation.runs):
            return CreationResult("changed")
        if any(self._archived(tenant, dag_id) != seen for tenant, dag_id, seen in creation.archived):
            return CreationResult("changed")
        if any(self._unwanted(n) for n in creation.runs):
            return CreationResult("unwanted")
        for n in creation.runs:
            rival = self.runs.get(self.alone.get((n.tenant, n.dag_id), "")) if n.alone else None
            if rival and rival.run_id != n.run_id and rival.state not in TERMINAL:
                return CreationResult("busy", (CreatedRun(rival.run_id, rival.state, "existing"),))
        quota = creation.quota
        if quota is not None and creation.runs[0].run_id in self.runs:
            quota = None
        if quota is not None and self.quotas[quota.key] >= quota.most:
            return CreationResult("exhausted")
        runs = tuple(self._stand(n) for n in creation.runs)
        if quota is not None:
            self.quotas[quota.key] += 1
        if creation.once:
            self.told[creation.once] = runs
        self._store(creation.idem, runs)
        return CreationResult("ok", runs)

    def _unwanted(self, n: NewRun) -> bool:
        if n.caller is None or n.run_id in self.runs:
            return False
        caller = self.runs.get(n.caller[0])
        return caller is None or caller.calls.get(n.caller[1]) != n.run_id
