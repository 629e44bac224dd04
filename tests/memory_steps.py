"""What a journal in memory does in one step about backfills, DAGs, their fires, and timers."""

from __future__ import annotations

import msgspec

from orchestrator import codec, streams
from orchestrator.errors import Fenced
from orchestrator.events import SCHEMA
from orchestrator.rows import TERMINAL, DagRow, EventBatch
from orchestrator.steps import (
    BackfillResult,
    DagWritten,
    Fire,
    FireResult,
    Gather,
    GatherResult,
    NewBackfill,
    NewWindow,
    PutDag,
    StoredReply,
)
from tests.memory_creations import Creations
from tests.memory_ledger import KeptDag, KeptRun, add_to, is_restarted, kind_of, replay_of, turned_round


class Steps(Creations):
    """And backfills, DAGs, their fires, and timers."""

    def _create_backfill(self, b: NewBackfill) -> BackfillResult:
        status, kept, reply = self._stored(b.idem)
        if status == "replayed":
            assert isinstance(kept, BackfillResult)
            return msgspec.structs.replace(kept, status="replayed", reply=reply)
        if status:
            return BackfillResult(status)
        key = (b.tenant, b.dag_id, b.window_key)
        run = self.runs.get(self.backfills_by_key.get(key, ""))
        if b.widens:
            return self._widen(b, run)
        if run and not (run.state in TERMINAL and b.reprocess != "none"):
            if b.require_hash and run.plan_hash != b.require_hash:
                return BackfillResult("hash")
            found = BackfillResult("existing", run.run_id, run.state, self._counts(run))
            self._store(b.idem, found)
            return found
        if (run and (run.run_id != b.restarts or run.version != b.restarts_version)) or (not run and b.restarts):
            return BackfillResult("changed")
        if not self._plan_holds(b, run):
            return BackfillResult("changed")
        made = self._write_backfill(b, run)
        self._write_windows(b, made, again=run is not None)
        if b.backwards:
            self._sched = [turned_round(item) for item in self._sched]
        answer = BackfillResult("restarted" if run else "created", made.run_id, "queued", self._counts(made))
        self._store(b.idem, answer)
        return answer

    def _widen(self, b: NewBackfill, taken: KeptRun | None) -> BackfillResult:
        run = self.runs[b.widens]
        if taken and taken is not run:
            return BackfillResult("taken", taken.run_id)
        if run.state in TERMINAL or run.state == "cancelling":
            return BackfillResult("over", run.run_id, run.state)
        if run.window_key != b.widens_key or not self._plan_holds(b, None):
            return BackfillResult("changed")
        if b.windows:
            run.version += 1
            run.events.append(EventBatch(run.version, SCHEMA, b.event))
            run.window_key = b.window_key
            self.backfills_by_key[b.tenant, b.dag_id, b.window_key] = run.run_id
            self._feed.append((run.run_id, run.version, run.state))
            if run.owner:
                self._write(streams.inbox(run.owner), codec.encode_items([streams.Widened(run.run_id, run.version)]))
            else:
                self._sched.append(streams.Wake(run.run_id, "window"))
        had, run.children = run.children, []
        b = msgspec.structs.replace(b, max_active_runs=run.max_active_runs, backwards=run.backwards)
        self._write_windows(b, run, again=False)
        run.children = [*run.children[: b.in_front], *had, *run.children[b.in_front :]]
        if b.backwards:
            self._sched = [turned_round(item) for item in self._sched]
        answer = BackfillResult("widened", run.run_id, run.state, self._counts(run))
        self._store(b.idem, answer)
        return answer

    def _plan_holds(self, b: NewBackfill, run: KeptRun | None) -> bool:
        if self._version(b.tenant, b.dag_id) != b.dag_version or self._archived(b.tenant, b.dag_id) != b.archived:
            return False
        if run and run.children != [w.run_id for w in b.windows]:
            return False
        return all(self._window_holds(b, w) for w in b.windows)

    def _window_holds(self, b: NewBackfill, w: NewWindow) -> bool:
        existing = self.by_window_key.get((b.tenant, b.dag_id, w.window_key))
        if existing is None:
            return w.action == "create"
        state = self.runs[existing].state
        if state not in TERMINAL:
            action = "adopt"
        else:
            action = "restart" if is_restarted(b.reprocess, state) else "skip"
        return w.action == action and w.run_id == existing and (action != "restart" or state == w.before)

    def _write_backfill(self, b: NewBackfill, run: KeptRun | None) -> KeptRun:
        if run:
            self._restart(run, b.restart_events, b.restart_count, b.dag_version)
        else:
            batch = [EventBatch(1, SCHEMA, b.event)]
            run = KeptRun(b.run_id, b.tenant, b.dag_id, b.dag_version, "backfill", b.created_ms, batch, b.window_key)
            self._create(run, None)
            self.backfills_by_key[b.tenant, b.dag_id, b.window_key] = b.run_id
            self._feed.append((b.run_id, 1, "queued"))
        run.plan_hash, run.backwards, run.max_active_runs = b.plan_hash, b.backwards, b.max_active_runs
        self._queue(run, "", b.max_active_runs, b.created_ms, bool(b.restarts))
        return run

    def _write_windows(self, b: NewBackfill, made: KeptRun, again: bool) -> None:
        for w in b.windows:
            if w.action == "create":
                self._create_child(b, w, made)
            elif w.action == "restart":
                self._restart_child(b, w, made, again)
            elif not again and w.action == "skip":
                made.kept.add(w.run_id)
            elif not again:
                self._watch(made, self.runs[w.run_id])
            if not again:
                made.children.append(w.run_id)

    def _create_child(self, b: NewBackfill, w: NewWindow, made: KeptRun) -> None:
        batch = [EventBatch(1, SCHEMA, w.event)]
        head = (w.run_id, b.tenant, b.dag_id, b.dag_version, "manual", b.created_ms, batch, w.window_key)
        child = KeptRun(*head, parent=made.run_id, sla_ms=w.sla_ms, watchers=[made.run_id])
        self._create(child, w.wake_ms)
        self.by_window_key[b.tenant, b.dag_id, w.window_key] = w.run_id
        add_to(made.counts, "queued", 1)
        self._queue(child, made.run_id, b.max_active_runs, b.created_ms, False)

    def _restart_child(self, b: NewBackfill, w: NewWindow, made: KeptRun, again: bool) -> None:
        child = self.runs[w.run_id]
        known = again and w.run_id not in made.kept
        self._restart(child, w.event, 1, w.dag_version, quiet=made.run_id, wake_ms=w.wake_ms)
        if not known:
            made.kept.discard(w.run_id)
            self._watch(made, child)
        self._queue(child, made.run_id, b.max_active_runs, b.created_ms, True)

    def _watch(self, made: KeptRun, child: KeptRun) -> None:
        if made.run_id not in child.watchers:
            child.watchers.append(made.run_id)
        add_to(made.counts, child.state, 1)
        for task, letter in child.tasks.items():
            if letter != "p":
                add_to(made.task_counts, (task, letter), 1)

    def _counts(self, run: KeptRun) -> dict[str, int]:
        found = {state: n for state, n in run.counts.items() if n}
        return found | {"skipped": len(run.kept)} if run.kept else found

    def _fire(self, f: Fire) -> FireResult:
        if not self._schedules(f.scheduler_epoch):
            return FireResult("fenced")
        dag = self.dag_rows.get((f.tenant, f.dag_id), KeptDag())
        if dag.next_fire_ms != f.expected_ms:
            return FireResult("stale")
        if dag.paused:
            return FireResult("paused")
        if not all(self._holds(run) for run in f.runs):
            return FireResult("changed")
        self.replaced_runs |= self.live & set(f.replaces)
        stands = tuple(self._stand(run) for run in f.runs)
        dag.next_fire_ms, dag.next_due_ms = f.next_ms, f.next_due_ms or f.next_ms
        dag.fired_ms = f.last_ms or f.expected_ms
        for drop in f.dropped:
            dag.dropped[drop.reason] = dag.dropped.get(drop.reason, 0) + drop.count
            dag.dropped_ms, dag.dropped_why = drop.last_ms, drop.reason
        for name, n in f.counts:
            self.counters[name] += n
        return FireResult("ok", stands)

    def _put_dag(self, d: PutDag) -> DagWritten:
        status, kept, reply = self._stored(d.idem)
        if status:
            return replay_of(status, kept, reply)
        dag = self.dag_rows.get((d.tenant, d.dag_id), KeptDag())
        if dag.version != d.base_version:
            return DagWritten("changed", dag.version, dag.paused)
        listed = sum(t == d.tenant and not kind_of(name) for t, name in self.dag_rows)
        if dag.version == 0 and not kind_of(d.dag_id) and listed >= d.max_dags:
            return DagWritten("full")
        if dag.content_hash != d.content_hash:
            if way := self._circle(d):
                return DagWritten("circle", dag.version, dag.paused, " ".join(way).encode())
            dag.follows, dag.makes = d.follows, d.makes
            self.dag_rows[d.tenant, d.dag_id] = dag
            dag.version += 1
            dag.content_hash, dag.updated_ms = d.content_hash, d.now_ms
            dag.created_ms = dag.created_ms or d.now_ms
            dag.definitions[dag.version] = d.definition
            if d.next_fire_ms is not None:
                dag.next_fire_ms, dag.next_due_ms = d.next_fire_ms, d.next_due_ms or d.next_fire_ms
            self._sched.append(streams.DagChanged(d.tenant, d.dag_id, dag.version, dag.paused))
        self._store(d.idem, (dag.version, dag.paused))
        return DagWritten("ok", dag.version, dag.paused)

    def _circle(self, d: PutDag) -> list[str]:
        """The way on which the DAG would start itself."""
        ways = [[d.dag_id]]
        known = {d.dag_id}
        for way in ways:
            made = d.makes if way[-1] == d.dag_id else self.dag_rows[d.tenant, way[-1]].makes
            for source in (f"after/{way[-1]}", *(f"asset/{asset}" for asset in made)):
                if source in d.follows:
                    return [*way, d.dag_id]
                for follower in set(self._followers(d.tenant, source)) - known:
                    known.add(follower)
                    ways.append([*way, follower])
        return []

    def _gather(self, g: Gather) -> GatherResult:
        if not self._schedules(g.scheduler_epoch):
            return GatherResult("fenced")
        if self.documents[g.kind].get(g.key, b"") != g.expected:
            return GatherResult("stale")
        if g.dag_id:
            dag = self.dag_rows.get((g.tenant, g.dag_id), KeptDag())
            if dag.version != g.dag_version or dag.paused != g.paused:
                return GatherResult("changed")
            if dag.archived != g.archived and any(n.window_key for n in g.runs):
                return GatherResult("changed")
        standing = {n.window_key: self.by_window_key.get((g.tenant, g.dag_id, n.window_key)) for n in g.runs}
        going = {key for key, i in standing.items() if i and self.runs[i].state not in {*TERMINAL, "queued"}}
        if going:
            return GatherResult("busy", busy=tuple(n.window_key for n in g.runs if n.window_key in going))
        runs = tuple(self._stand(n) for n in g.runs)
        if runs:
            self.counters[f"triggered_runs_total|{g.dag_id}"] += len(runs)
        self.documents[g.kind][g.key] = g.record
        return GatherResult("ok", runs)

    def _set_paused(self, tenant: str, dag_id: str, paused: bool, now_ms: int, idem: StoredReply | None) -> DagWritten:
        status, kept, reply = self._stored(idem)
        if status:
            return replay_of(status, kept, reply)
        dag = self.dag_rows.get((tenant, dag_id))
        if dag is None:
            return DagWritten("missing")
        if dag.paused != paused:
            dag.paused, dag.updated_ms = paused, now_ms
            self._sched.append(streams.DagChanged(tenant, dag_id, dag.version, paused))
        self._store(idem, (dag.version, paused))
        return DagWritten("ok", dag.version, paused)

    def _dag_row(self, tenant: str, dag_id: str) -> DagRow:
        dag = self.dag_rows[tenant, dag_id]
        return DagRow(
            tenant=tenant,
            dag_id=dag_id,
            version=dag.version,
            paused=dag.paused,
            content_hash=dag.content_hash,
            created_ms=dag.created_ms,
            updated_ms=dag.updated_ms,
            next_fire_ms=dag.next_fire_ms or None,
            next_due_ms=dag.next_due_ms or None,
            fired_ms=dag.fired_ms,
            definition=dag.definitions[dag.version],
            run_counts={state: n for state, n in self.run_counts[tenant, dag_id].items() if n},
            dropped=dict(dag.dropped),
            dropped_ms=dag.dropped_ms,
            dropped_why=dag.dropped_why,
            archived=dag.archived,
        )

    def _cron(self) -> dict[tuple[str, str], int]:
        return {key: dag.next_due_ms for key, dag in self.dag_rows.items() if dag.next_fire_ms and not dag.paused}

    def _pop_timers(self, epoch: int, now_ms: int, limit: int) -> int:
        if not self._schedules(epoch):
            raise Fenced("scheduler", epoch, self.owners["scheduler"].epoch)
        due = sorted((at, kind, run_id) for (kind, run_id), at in self.timers.items() if at <= now_ms)[:limit]
        inboxes: dict[str, list[streams.InboxItem]] = {}
        for at, kind, run_id in due:
            del self.timers[kind, run_id]
            run = self.runs.get(run_id)
            if run is None or run.state in TERMINAL:
                continue
            if run.owner:
                inboxes.setdefault(run.owner, []).append(streams.TimerFired(run_id, kind, at))
            else:
                self._sched.append(streams.Wake(run_id, kind))
        for owner, items in inboxes.items():
            self._write(streams.inbox(owner), codec.encode_items(items))
        return len(due)
