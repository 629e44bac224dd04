"""CI jobs and their runners, in one mailbox: claims, completions, timers, lost runners, logs, deletions.

    ask ─▶ find the job ─▶ one act: the runner lives, the job decides ─▶ commit ─▶ answer (with secrets, to who claimed)
                                                                            └─▶ lines of the job's own log

A claim is atomic because every claim is an act of the same turn or of another one. What may be lost with this process
is only the instants of runners' last signs of life (`runner_book`); all else is the jobs' own events, and records.

Deleting a pipeline is a record before it is anything else, so that a successor carries it on: from then on nobody finds
the pipeline, its open jobs are cancelled, then all of its jobs and their logs are erased. A job that was launched in
that moment by a replica that still saw the pipeline goes the same way when it arrives.

Source: pipelines contract, sections 2 to 4.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec

from actors import names
from actors.clock import Clock
from actors.held_pipeline_job import HeldPipelineJob, held_from
from actors.holder import Holder, Turn
from actors.pipeline_logs import PipelineLogs
from actors.pipeline_queue import PipelineQueue, RunnerKey
from actors.runner_book import RunnerBook
from actors.settings import Settings
from actors.vault import Vault
from orchestrator import codec, outside_codec
from orchestrator import pipeline_events as e
from orchestrator import pipeline_job as pj
from orchestrator import pipeline_messages as pm
from orchestrator.errors import JournalUnavailable, NotFound, Refused, Unavailable
from orchestrator.masking import Mask
from orchestrator.pipeline_fold import view
from orchestrator.pipeline_views import Claimed, JobResult, LogEntry, RunnerView
from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL, EventBatch, RunFilter, RunPage, RunRow
from orchestrator.streams import Letter

_log = logging.getLogger(__name__)

#: the longest list of scheduled jobs, in jobs and in bytes; runners ask again when they have claimed some
LISTED_MAX = 1_000
LISTED_BYTES_MAX = 16 * 1024 * 1024
#: pipelines kept in memory for claims
RECORDS_MAX = 64
#: jobs read, cancelled or erased at once
CHUNK = 500
#: seconds until the last signs of life are written
WRITE_BEHIND_S = 1.0
#: how long a deletion is remembered: longer than any idempotency key of a creation
REMEMBERED = timedelta(hours=25)

_COUNTED: dict[type[e.PipelineEvent], str] = {e.JobLost: "pipeline_jobs_lost", e.JobRetried: "pipeline_jobs_retried"}
_canonical = msgspec.json.Encoder(order="deterministic")


class PipelinesHolder(Holder[HeldPipelineJob]):
    """The gateway's part for pipelines. `ask` is what others call."""

    def __init__(self, journal: Journal, clock: Clock, settings: Settings) -> None:
        super().__init__(names.PIPELINES, journal, clock)
        self._rules = pj.Rules(
            lost_runner_retries=settings.pipelines_lost_runner_retries,
            queue_timeout_s=settings.pipelines_queue_timeout_s,
            retry_delay_s=settings.pipelines_retry_delay_s,
        )
        self._vault = Vault(settings.secret_key, clock)
        self._queue = PipelineQueue()
        self._logs = PipelineLogs(journal, clock)
        self._runners = RunnerBook(clock, settings.pipelines_runner_timeout_s)
        self._runners_writing = asyncio.Lock()
        self._runners_later: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._records: OrderedDict[str, pm.PipelineRecord] = OrderedDict()
        #: record key -> deletion of that pipeline, carried out or not
        self._deleted: dict[str, pm.Deletion] = {}
        #: record key -> done when the deletion is
        self._deletions: dict[str, asyncio.Future[None]] = {}

    async def ask(self, data: bytes) -> bytes:
        """A request and its answer (`orchestrator/pipeline_messages.py`). What it changed is durable."""
        await self._recovered.wait()
        request = outside_codec.decode_pipeline_request(data)
        try:
            answer = pm.Answer(msgspec.Raw(msgspec.json.encode(await self._answer(request))))
        except (Refused, Unavailable) as refused:
            answer = pm.refusal(refused)
        self._watch_silence()
        if self._runners.is_urgent or self._runners_writing.locked():
            await self._runners_told()
        elif self._runners.is_changed and self._runners_later is None:
            self._runners_later = asyncio.get_running_loop().call_later(WRITE_BEHIND_S, self._write_runners_now)
        return outside_codec.encode_pipeline_answer(answer)

    async def _answer(self, ask: pm.Request) -> Any:
        match ask:
            case pm.Scheduled():
                await self.caught_up()  # who has just launched a job finds it
                return self._scheduled(ask)
            case pm.Claim():
                return await self._claim(ask)
            case pm.SetStatus():
                return await self._report(await self._job_of_runner(ask.tenant, ask.job_id), pj.SetStatus(ask.status))
            case pm.Complete():
                return await self._complete(ask)
            case pm.AddLogs():
                return await self._add_logs(ask)
            case pm.Cancel():
                return await self._cancel(ask)
            case pm.DeletePipeline():
                return await self._delete_pipeline(ask)
            case pm.Register():
                self._runners.register((ask.tenant, ask.runner_id), ask.capabilities)
                return self._runner_view((ask.tenant, ask.runner_id))
            case pm.Heartbeat():
                self._runners.alive((ask.tenant, ask.runner_id))
                return self._runner_view((ask.tenant, ask.runner_id))
            case pm.Runners():
                return [self._runner_view(runner.key) for runner in self._runners.of_tenant(ask.tenant)]
            case pm.DeleteRunner():
                return await self.do(partial(self._delete_runner, key=(ask.tenant, ask.runner_id)))

    # ── as Holder ─────────────────────────────────────────────────────────────────────────────────

    def revive(self, run_id: str, batches: Sequence[EventBatch]) -> HeldPipelineJob:
        """As Holder."""
        return held_from(batches, self._rules)

    def adopted(self, turn: Turn[HeldPipelineJob], held: HeldPipelineJob) -> None:
        """It waits, or its runner is watched again; a job of a deleted pipeline goes."""
        self._queue.place(held)
        launched = held.job.launched
        if pm.record_key(launched.tenant, launched.pipeline_id) in self._deleted:
            self._decide(turn, held, pj.Cancel())
            turn.after.append(lambda: self._spawn(self._erase([held.run_id])))
        if held.told:
            turn.after.append(lambda: self._spawn(self._mend(held.run_id, held.told)))
        if (key := held.job.held_by) is not None:
            runner = self._runners.get(key) or self._runners.register(key, None)
            self._watch_silence()
            if runner.record.offline:
                self._lose_jobs(turn, key)

    def woken(self, turn: Turn[HeldPipelineJob], held: HeldPipelineJob) -> None:
        """A limit may be over."""
        self._decide(turn, held, pj.Tick())

    def received(self, turn: Turn[HeldPipelineJob], letter: Letter) -> None:
        """Nobody writes to it."""
        _log.warning("%s: mail of %s is not for it", self.name, letter.sender)

    def drop(self, run_id: str) -> None:
        """As Holder."""
        super().drop(run_id)
        self._queue.drop(run_id)
        self._logs.forget(run_id)

    async def prepare(self) -> None:
        """Runners, and deletions that are to be carried on."""
        self._runners.load((await self.insist(lambda: self._journal.records(pm.RUNNERS))).values())
        self._watch_silence()
        for key, data in (await self.insist(lambda: self._journal.records(pm.DELETIONS))).items():
            deletion = codec.decode_document(data, pm.Deletion)
            self._deleted[key] = deletion
            if not deletion.done:
                self._begin_deletion(key, deletion)

    # ── jobs ──────────────────────────────────────────────────────────────────────────────────────

    def _scheduled(self, ask: pm.Scheduled) -> list[msgspec.Raw]:
        capabilities = None
        if ask.runner_id is not None:
            runner = self._runners.alive((ask.tenant, ask.runner_id))
            if runner is None:
                return []
            capabilities = runner.capabilities
        found: list[msgspec.Raw] = []
        size = 0
        for held in self._queue.queued(self._clock.now()):
            if _serves(ask.tenant, held) and not pj.missing_modules(held.job, capabilities):
                found.append(held.view_json())
                size += len(found[-1])
                if len(found) == LISTED_MAX or size > LISTED_BYTES_MAX:
                    break
        return found

    async def _claim(self, ask: pm.Claim) -> Claimed:
        held = await self._job_of_runner(ask.tenant, ask.job_id)
        record = await self._record(held)
        secrets = self._secrets(held)
        await self.do(partial(self._claim_act, held=held, ask=ask))
        return Claimed(
            job_id=held.run_id,
            pipeline_id=record.view.id,
            pipeline_source=record.view.script,
            parameters=secrets.parameters if held.job.launched.sealed else held.job.launched.parameters,
            env_vars=record.view.config.env_vars | secrets.env_vars,
        )

    def _claim_act(self, turn: Turn[HeldPipelineJob], held: HeldPipelineJob, ask: pm.Claim) -> None:
        runner = self._runners.claims((ask.tenant, ask.runner_id))
        key = self._vault.fingerprint(ask.key) if ask.key else ""
        fingerprint = self._vault.fingerprint(ask.fingerprint) if ask.key else ""
        command = pj.Claim(ask.runner_id, ask.tenant, runner.capabilities, key, fingerprint)
        self._decide(turn, self._current(held), command)

    async def _complete(self, ask: pm.Complete) -> None:
        held = await self._job_of_runner(ask.tenant, ask.job_id)
        mask, given = self._mask(held), ask.result
        why = None if given.error_message is None else mask.text(given.error_message)
        result = JobResult(given.success, given.exit_code, mask.value(given.output), why)
        digest = hashlib.sha256(_canonical.encode((ask.status, result))).hexdigest()
        await self._report(held, pj.Complete(result, ask.status, digest))

    async def _report(self, held: HeldPipelineJob, command: pj.SetStatus | pj.Complete) -> None:
        def act(turn: Turn[HeldPipelineJob]) -> None:
            current = self._current(held)
            self._runner_lives(current)
            self._decide(turn, current, command)

        await self.do(act)

    async def _add_logs(self, ask: pm.AddLogs) -> str | None:
        held = await self._job_of_runner(ask.tenant, ask.job_id)
        self._runner_lives(held)
        await self._logs.add(held.run_id, ask.entries, self._mask(held))
        state = self._current(held).job.state
        return pj.WORDS[state] if state in (pj.JobState.CANCELLED, pj.JobState.TIMED_OUT) else None

    async def _cancel(self, ask: pm.Cancel) -> Any:
        held = await self._job(ask.job_id)
        if held.job.launched.tenant != ask.tenant:
            raise NotFound("job", ask.job_id)

        def act(turn: Turn[HeldPipelineJob]) -> Any:
            current = self._current(held)
            self._decide(turn, current, pj.Cancel())
            return view(current.job)

        return await self.do(act)

    def _decide(self, turn: Turn[HeldPipelineJob], held: HeldPipelineJob, command: pj.Command) -> None:
        events, lines = held.decide(command, self._clock.now())
        if not events:
            return
        turn.touch(held)
        turn.counts += [
            (f"{_COUNTED[kind]}_total|{pm.KIND}", 1) for event in events if (kind := type(event)) in _COUNTED
        ]
        self._queue.place(held)
        if lines:
            turn.after.append(lambda: self._spawn(self._tell(held.run_id, lines)))

    async def _job(self, job_id: str) -> HeldPipelineJob:
        held = await self.find(job_id)
        if held is None:
            raise NotFound("job", job_id)
        return held

    async def _job_of_runner(self, tenant: str, job_id: str) -> HeldPipelineJob:
        held = await self._job(job_id)
        if not _serves(tenant, held):
            raise NotFound("job", job_id)
        return held

    def _current(self, held: HeldPipelineJob) -> HeldPipelineJob:
        """The same job, at the time of an act."""
        return self._held.get(held.run_id) or self._past.get(held.run_id) or held

    async def _record(self, held: HeldPipelineJob) -> pm.PipelineRecord:
        """The pipeline of the job. Raises NotFound about the job: it goes with its pipeline."""
        key = pm.record_key(held.job.launched.tenant, held.job.launched.pipeline_id)
        record = self._records.get(key)
        if record is None:
            data = await self.insist(lambda: self._journal.record(pm.PIPELINES, key))
            if data is None or key in self._deleted:
                raise NotFound("job", held.run_id)
            record = self._records[key] = codec.decode_document(data, pm.PipelineRecord)
        self._records.move_to_end(key)
        while len(self._records) > RECORDS_MAX:
            self._records.popitem(last=False)
        return record

    # ── secrets and logs ──────────────────────────────────────────────────────────────────────────

    def _secrets(self, held: HeldPipelineJob) -> pm.SecretsOfJob:
        """Raises Unavailable when they cannot be read."""
        if held.secrets is None:
            sealed = held.job.launched.sealed
            plain = self._vault.unseal(sealed, f"job {held.run_id}") if sealed else b"{}"
            held.secrets = codec.decode_document(plain, pm.SecretsOfJob)
        return held.secrets

    def _mask(self, held: HeldPipelineJob) -> Mask:
        if held.mask is None:
            held.mask = Mask(self._secrets(held).values)
        return held.mask

    async def _tell(self, job_id: str, lines: Sequence[LogEntry]) -> None:
        try:
            await self._logs.tell(job_id, lines)
        except JournalUnavailable:
            await self._mend(job_id, lines)
        except NotFound:
            _log.info("job %s was erased before its log said: %s", job_id, lines[-1].message)

    async def _mend(self, job_id: str, lines: Sequence[LogEntry]) -> None:
        try:
            await self.insist(lambda: self._logs.mend(job_id, lines))
        except NotFound:
            _log.info("job %s was erased before its log said: %s", job_id, lines[-1].message)

    # ── runners ───────────────────────────────────────────────────────────────────────────────────

    def _runner_view(self, key: RunnerKey) -> RunnerView:
        runner = self._runners.get(key)
        if runner is None:
            raise NotFound("runner", key[1])
        return runner.view(busy=bool(self._queue.of_runner(key)))

    def _runner_lives(self, held: HeldPipelineJob) -> None:
        """Whoever has the job says something about it."""
        if (key := held.job.held_by) is not None:
            self._runners.alive(key)

    def _delete_runner(self, turn: Turn[HeldPipelineJob], key: RunnerKey) -> None:
        if not self._runners.remove(key):
            raise NotFound("runner", key[1])
        self._lose_jobs(turn, key)

    def _lose_jobs(self, turn: Turn[HeldPipelineJob], key: RunnerKey) -> None:
        runner = self._runners.get(key)
        if runner is None or runner.record.offline:
            for held in self._queue.of_runner(key):
                self._decide(turn, held, pj.Lose())

    def _watch_silence(self) -> None:
        """Signs of life only put off the instant at which somebody falls silent, so one timer is never too late."""
        after_s = self._runners.next_silent_s()
        if self._silence is None and after_s is not None:
            self._silence = asyncio.get_running_loop().call_later(after_s, self._on_silence)

    def _on_silence(self) -> None:
        self._silence = None
        for key in self._runners.fall_silent():
            self.post(partial(self._fell_silent, key=key))
        self._watch_silence()

    def _fell_silent(self, turn: Turn[HeldPipelineJob], key: RunnerKey) -> None:
        """Its jobs are lost; then that is written: a process that was replaced is fenced before it tells lies."""
        self._lose_jobs(turn, key)
        turn.after.append(self._write_runners_now)

    def _write_runners_now(self) -> None:
        if self._runners_later is not None:
            self._runners_later.cancel()
            self._runners_later = None
        self._spawn(self._write_runners())

    async def _runners_told(self) -> None:
        """What is urgent about runners is durable, whoever writes it; one write for all who wait."""
        async with self._runners_writing:
            if self._runners.is_urgent:
                await self._put(pm.RUNNERS, self._runners.changes())

    async def _write_runners(self) -> None:
        async with self._runners_writing:
            if changes := self._runners.changes():
                await self._put(pm.RUNNERS, changes)

    # ── deletion of pipelines ─────────────────────────────────────────────────────────────────────

    async def _delete_pipeline(self, ask: pm.DeletePipeline) -> None:
        key = pm.record_key(ask.tenant, ask.pipeline_id)
        if key not in self._deletions:
            known = await self.insist(lambda: self._journal.record(pm.PIPELINES, key))
            if key not in self._deletions:
                if known is None:
                    raise NotFound("pipeline", ask.pipeline_id)
                self._begin_deletion(key, pm.Deletion(ask.tenant, ask.pipeline_id, self._clock.now()))
        await asyncio.shield(self._deletions[key])

    def _begin_deletion(self, key: str, deletion: pm.Deletion) -> None:
        self._deletions[key] = asyncio.get_running_loop().create_future()
        self._spawn(self._carry_out(key, deletion))

    async def _carry_out(self, key: str, deletion: pm.Deletion) -> None:
        await self._put(pm.DELETIONS, {key: codec.encode_document(deletion)})
        self._deleted[key] = deletion
        await self._put(pm.PIPELINES, {key: None})
        self._records.pop(key, None)
        async for rows in self._rows_of(deletion):
            await self._cancel_jobs([row.run_id for row in rows if row.state not in TERMINAL])
        async for rows in self._rows_of(deletion):
            await self._erase([row.run_id for row in rows])
        await self._put(pm.DELETIONS, {key: codec.encode_document(msgspec.structs.replace(deletion, done=True))})
        await self._forget_deletions()
        self._deletions.pop(key).set_result(None)

    async def _rows_of(self, deletion: pm.Deletion) -> AsyncIterator[Sequence[RunRow]]:
        wanted = RunFilter(tenant=deletion.tenant, kind=pm.KIND, dag_id=pm.definition_of(deletion.pipeline_id))
        cursor: str | None = None
        while True:
            page: RunPage = await self.insist(partial(self._journal.summaries, wanted, cursor, CHUNK))
            yield page.rows
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _cancel_jobs(self, run_ids: Sequence[str]) -> None:
        found = [held for run_id in run_ids if (held := await self.find(run_id)) is not None]

        def act(turn: Turn[HeldPipelineJob]) -> None:
            for held in map(self._current, found):
                if not held.ended:
                    self._decide(turn, held, pj.Cancel())

        if found:
            await self.do(act)

    async def _erase(self, run_ids: Sequence[str]) -> None:
        if run_ids:
            await self.insist(lambda: self._journal.erase(run_ids))
        for run_id in run_ids:
            self.drop(run_id)

    async def _forget_deletions(self) -> None:
        now = self._clock.now()
        old = [key for key, each in self._deleted.items() if now - each.at > REMEMBERED and key not in self._deletions]
        for key in old:
            del self._deleted[key]
        if old:
            await self._put(pm.DELETIONS, dict.fromkeys(old))

    def _put(self, kind: str, records: dict[str, bytes | None]) -> Coroutine[Any, Any, None]:
        return self.insist(lambda: self._journal.put_records(kind, records))


def _serves(tenant: str, held: HeldPipelineJob) -> bool:
    """May a runner of that tenant have the job?"""
    return tenant in (pm.DEFAULT_TENANT, held.job.launched.tenant)
