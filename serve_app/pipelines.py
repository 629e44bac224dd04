"""CI pipelines: `serve_app.outside_ports.Pipelines` over the journal and the gateway.

    pipelines         records, which never change; created here, deleted by the gateway
    launch            one journal step: a run of `@ci/<pipeline id>`, held by the gateway from the start
    job, jobs, logs   the fold of a job's own events, and its lines; nobody is asked
    the rest          requests to the gateway (`orchestrator/pipeline_messages.py`)

**Secrets.** The contract is silent about how one is given; here it is the value of an input that the script declares
with `secret = true`, or of `config.secret_env_vars` (additive, texts by name). What is stored of a value is its
ciphertext; it is shown as `***`, and is masked in all other parameters, and by the gateway in logs, outputs and errors
(`orchestrator/masking.py` tells the limits). It is given to the runner that claims the job, and to nobody else. A value
that also stands in the script, in `env_vars` or anywhere else in the body of a create is refused: it would be stored.

**Idempotency keys.** A launch's answer is stored in the step that creates the job. A create's answer is stored before
the pipeline is, and the first one under a key stays: whoever repeats the request completes what was begun, unless the
pipeline has been deleted since. A claim's key is in the job's own event. Fingerprints are keyed, since bodies hold
secrets.

A request that changes nothing the second time is sent again when the gateway is being restarted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import chain
from typing import Any

import msgspec

from actors.clock import Clock
from actors.hosted import milliseconds
from actors.names import PIPELINES
from actors.pipelines_desk import PipelinesDesk
from actors.vault import Vault
from orchestrator import codec, outside_codec
from orchestrator import pipeline_events as e
from orchestrator import pipeline_messages as pm
from orchestrator.errors import ActorUnreachable, Conflict, Invalid, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.masking import Mask
from orchestrator.pipeline import MASK, PipelineDefinition, check_definition, check_name, checked, modules_to_match
from orchestrator.pipeline_fold import by_time, fold, view
from orchestrator.pipeline_job import STATES
from orchestrator.pipeline_views import (
    Claimed,
    CompletionWanted,
    LogEntry,
    PipelineConfig,
    PipelineJobView,
    PipelineView,
    PipelineWanted,
    RunnerView,
)
from orchestrator.ports import ControlPlane, Journal
from orchestrator.rows import TERMINAL, History, RunFilter
from orchestrator.steps import Creation, NewRun, StoredReply
from orchestrator.views import Frame
from serve_app.creations import Creations
from serve_app.deadlines import DEADLINE_S, LONG_DEADLINE_S, within
from serve_app.hub import Hub
from serve_app.log_stream import log_frames

#: the script of a new pipeline may run for five seconds
CREATE_S = 10.0
#: seconds between two tries to reach the gateway
PAUSE_S = 0.1
#: jobs read at once, and lines
CHUNK = 200
LINES = 5_000

_encode = msgspec.json.encode

Validate = Callable[[str], Awaitable[PipelineDefinition]]


class Pipelines:
    """Creates, launches and reads; `validate` runs a script in the sandbox and says what it defines."""

    def __init__(
        self,
        journal: Journal,
        control: ControlPlane,
        creations: Creations,
        hub: Hub,
        clock: Clock,
        vault: Vault,
        validate: Validate,
    ) -> None:
        self._journal = journal
        self._control = control
        self._creations = creations
        self._hub = hub
        self._clock = clock
        self._vault = vault
        self._validate = validate
        self._once = PipelinesDesk(self._send)
        self._desk = PipelinesDesk(self._send_again)

    async def _send(self, request: bytes) -> bytes:
        return await self._control.gateway("pipelines", request)

    async def _send_alone(self, request: bytes) -> bytes:
        """What takes long must not keep others' answers back."""
        return await self._control.gateway("pipelines", request, LONG_DEADLINE_S)

    async def _send_again(self, request: bytes) -> bytes:
        """Until the gateway answers; whoever calls keeps the deadline."""
        while True:
            try:
                return await self._send(request)
            except ActorUnreachable:
                await asyncio.sleep(PAUSE_S)

    # ── pipelines ─────────────────────────────────────────────────────────────────────────────────

    @within(CREATE_S)
    async def create(self, tenant: str, wanted: PipelineWanted, idem: Idempotency | None) -> PipelineView:
        """The pipeline is stored. Raises Invalid with the contract's text, Conflict (reused key)."""
        if not wanted.script.strip():
            raise Invalid("Pipeline script cannot be empty")
        _check_config(wanted.config)
        definition = await self._validate(wanted.script)
        check_definition(definition)
        made = self._made(wanted, definition)
        if idem is None:
            return await self._store(tenant, wanted, definition, made)
        key = self._reply_key(idem)
        await self._journal.store_reply(StoredReply(key, self._vault.fingerprint(idem.fingerprint), _encode(made)))
        first = await self._journal.stored_reply(key)
        if first is None or first.fingerprint != self._vault.fingerprint(idem.fingerprint):
            raise Conflict("Idempotency key reused")
        made = msgspec.json.decode(first.reply, type=PipelineView)
        record_key = pm.record_key(tenant, made.id)
        known = await self._journal.record(pm.PIPELINES, record_key)
        if known is not None or await self._journal.record(pm.DELETIONS, record_key) is not None:
            return made
        return await self._store(tenant, wanted, definition, made)

    def _made(self, wanted: PipelineWanted, definition: PipelineDefinition) -> PipelineView:
        """As it is shown. Raises Invalid."""
        name = definition.name if wanted.name is None else wanted.name
        check_name(name)
        now = self._clock.now()
        secrets = wanted.config.secret_env_vars
        made = PipelineView(
            id=self._clock.uuid(),
            name=name,
            description=definition.description if wanted.description is None else wanted.description,
            script=wanted.script,
            required_modules=modules_to_match(definition, wanted.required_modules, wanted.tags),
            created_at=now,
            updated_at=now,
            tags=wanted.tags or definition.tags,
            config=msgspec.structs.replace(wanted.config, secret_env_vars=dict.fromkeys(secrets, MASK)),
        )
        for secret, value in secrets.items():
            if not _is_masked(made, Mask([value])):
                where = f"the value of secret '{secret}' stands elsewhere in the request, where it is no secret"
                raise Invalid(f"Invalid pipeline definition: {where}")
        return made

    async def _store(
        self, tenant: str, wanted: PipelineWanted, definition: PipelineDefinition, made: PipelineView
    ) -> PipelineView:
        secrets = wanted.config.secret_env_vars
        sealed = self._vault.seal(_encode(secrets), f"pipeline {made.id}") if secrets else ""
        record = pm.PipelineRecord(tenant, made, definition.inputs, sealed)
        key = pm.record_key(tenant, made.id)
        await self._journal.put_records(pm.PIPELINES, {key: codec.encode_document(record)})
        return made

    @within(LONG_DEADLINE_S)
    async def pipelines(self, tenant: str) -> list[PipelineView]:
        """Newest first."""
        found = await self._journal.records(pm.PIPELINES)
        mine = [data for key, data in found.items() if key.startswith(pm.record_key(tenant, ""))]
        views = [codec.decode_document(data, pm.PipelineRecord).view for data in mine]
        return sorted(views, key=lambda each: (each.created_at, each.id), reverse=True)

    @within(DEADLINE_S)
    async def pipeline(self, tenant: str, pipeline_id: str) -> PipelineView:
        """One of them. Raises NotFound."""
        return (await self._record(tenant, pipeline_id)).view

    async def _record(self, tenant: str, pipeline_id: str) -> pm.PipelineRecord:
        data = await self._journal.record(pm.PIPELINES, pm.record_key(tenant, pipeline_id))
        if data is None:
            raise NotFound("pipeline", pipeline_id)
        return codec.decode_document(data, pm.PipelineRecord)

    @within(DEADLINE_S)
    async def delete(self, tenant: str, pipeline_id: str) -> None:
        """Its open jobs are cancelled; then it, its jobs and their logs are gone. Raises NotFound.

        Where there are too many for the deadline it goes on, and nobody finds the pipeline meanwhile.
        """
        await PipelinesDesk(self._send_alone).delete_pipeline(tenant, pipeline_id)

    # ── launch ────────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def launch(
        self, tenant: str, pipeline_id: str, parameters: dict[str, Any], idem: Idempotency | None
    ) -> PipelineJobView:
        """A job is queued, durably. Raises NotFound, Invalid (inputs), Conflict (reused key)."""
        record = await self._record(tenant, pipeline_id)
        launched = self._launched(record, checked(record.inputs, parameters))
        made = view(fold([launched]))
        new = NewRun(
            run_id=launched.job_id,
            tenant=tenant,
            dag_id=pm.definition_of(pipeline_id),
            dag_version=record.view.version,
            run_type="manual",
            created_ms=milliseconds(launched.at),
            event=codec.encode_pipeline_events([launched]),
            schema=e.SCHEMA,
            owner=PIPELINES,
        )
        result = await self._creations.create(Creation((new,), self._kept(idem, made)))
        if result.status == "conflict":
            raise Conflict("Idempotency key reused")
        if result.status == "replayed":
            return msgspec.json.decode(result.reply, type=PipelineJobView)
        return made

    def _launched(self, record: pm.PipelineRecord, parameters: dict[str, Any]) -> e.JobLaunched:
        job_id, shown = self._clock.uuid(), record.view
        hidden = {each.name for each in record.inputs if each.secret and parameters.get(each.name) is not None}
        env_vars: dict[str, str] = {}
        if record.sealed:
            env_vars = msgspec.json.decode(self._vault.unseal(record.sealed, f"pipeline {shown.id}"))
        secrets = pm.SecretsOfJob(
            parameters, env_vars, (*env_vars.values(), *(parameters[name] for name in sorted(hidden)))
        )
        mask = Mask(secrets.values)
        sealed = self._vault.seal(_encode(secrets), f"job {job_id}") if secrets.values else ""
        return e.JobLaunched(
            at=self._clock.now(),
            job_id=job_id,
            tenant=record.tenant,
            pipeline_id=shown.id,
            pipeline_version=shown.version,
            parameters=_shown(parameters, hidden, mask) if sealed else parameters,
            required_modules=shown.required_modules,
            timeout_seconds=shown.config.timeout_seconds,
            max_retries=shown.config.max_retries,
            sealed=sealed,
        )

    def _kept(self, idem: Idempotency | None, made: PipelineJobView) -> StoredReply | None:
        if idem is None:
            return None
        return StoredReply(self._reply_key(idem), self._vault.fingerprint(idem.fingerprint), _encode(made))

    def _reply_key(self, idem: Idempotency) -> str:
        return f"pipelines:{self._vault.fingerprint(idem.key)}"

    # ── jobs ──────────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def job(self, tenant: str, job_id: str) -> PipelineJobView:
        """One job. Raises NotFound."""
        return _view(await self._history(tenant, job_id))

    @within(LONG_DEADLINE_S)
    async def jobs(
        self, tenant: str, pipeline_id: str | None, status: str | None, limit: int | None
    ) -> list[PipelineJobView]:
        """Newest first; `limit` None = all."""
        wanted = RunFilter(
            tenant=tenant,
            kind=pm.KIND,
            dag_id=None if pipeline_id is None else pm.definition_of(pipeline_id),
            state=None if status is None else STATES[status],
        )
        found: list[PipelineJobView] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            left = CHUNK if limit is None else min(CHUNK, limit - len(found))
            page = await self._journal.summaries(wanted, cursor, left)
            found += map(_view, await self._journal.load([row.run_id for row in page.rows]))
            cursor = page.next_cursor
            if cursor is None:
                break
        return sorted(found, key=lambda each: (each.requested_at, each.id), reverse=True)

    async def _history(self, tenant: str, job_id: str) -> History:
        found = await self._journal.load([job_id])
        if not found or found[0].row.tenant != tenant or not found[0].row.dag_id.startswith(f"{pm.KIND}/"):
            raise NotFound("job", job_id)
        return found[0]

    @within(DEADLINE_S)
    async def scheduled(self, tenant: str, runner_id: str | None) -> list[PipelineJobView]:
        """Queued jobs that fit the runner and whose retry delay is over, oldest first."""
        return await self._desk.scheduled(tenant, runner_id)

    @within(DEADLINE_S)
    async def claim(self, tenant: str, job_id: str, runner_id: str, idem: Idempotency | None) -> Claimed:
        """The job is the runner's. Raises NotFound, Invalid, Conflict (reused key)."""
        # without a key of the caller it gets one of ours, so that it can be sent again
        key, fingerprint = (self._clock.uuid(), "") if idem is None else (idem.key, idem.fingerprint)
        return await self._desk.claim(tenant, job_id, runner_id, key, fingerprint)

    @within(DEADLINE_S)
    async def set_status(self, tenant: str, job_id: str, status: str) -> None:
        """Raises NotFound, Invalid."""
        await self._desk.set_status(tenant, job_id, status)

    @within(DEADLINE_S)
    async def complete(self, tenant: str, job_id: str, wanted: CompletionWanted) -> None:
        """Raises NotFound, Invalid."""
        await self._desk.complete(tenant, job_id, wanted)

    @within(DEADLINE_S)
    async def cancel(self, tenant: str, job_id: str) -> PipelineJobView:
        """Raises NotFound, Invalid."""
        return await self._once.cancel(tenant, job_id)

    # ── logs ──────────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def add_logs(self, tenant: str, job_id: str, entries: Sequence[LogEntry]) -> str | None:
        """All or nothing. Raises NotFound."""
        return await self._once.add_logs(tenant, job_id, entries)

    @within(LONG_DEADLINE_S)
    async def logs(self, tenant: str, job_id: str) -> list[LogEntry]:
        """By time, then arrival. Raises NotFound."""
        await self._history(tenant, job_id)
        chunks: list[list[bytes]] = []
        after = 0
        while chunk := await self._journal.lines(job_id, after, LINES):
            chunks.append(chunk)
            after += len(chunk)
        # a full log takes a second to read and sort
        return await asyncio.to_thread(
            lambda: by_time(map(outside_codec.decode_log_entry, chain.from_iterable(chunks)))
        )

    @within(DEADLINE_S)
    async def open_logs(self, tenant: str, job_id: str, after: int) -> AsyncIterator[Sequence[Frame]] | None:
        """Lines after place `after`, live, then `end`; None when nothing will ever follow. Raises NotFound."""
        history = await self._history(tenant, job_id)
        if after and history.row.state in TERMINAL and not await self._journal.lines(job_id, after, 1):
            return None
        return log_frames(self._hub, self._journal, job_id, after)

    # ── runners ───────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def register(self, tenant: str, runner_id: str, capabilities: Sequence[str] | None) -> RunnerView:
        """It is there, with these capabilities."""
        return await self._desk.register(tenant, runner_id, capabilities)

    @within(DEADLINE_S)
    async def heartbeat(self, tenant: str, runner_id: str) -> RunnerView:
        """Raises NotFound."""
        return await self._desk.heartbeat(tenant, runner_id)

    @within(DEADLINE_S)
    async def runners(self, tenant: str) -> list[RunnerView]:
        """By id."""
        return await self._desk.runners(tenant)

    @within(DEADLINE_S)
    async def runner(self, tenant: str, runner_id: str) -> RunnerView:
        """Raises NotFound."""
        for each in await self._desk.runners(tenant):
            if each.id == runner_id:
                return each
        raise NotFound("runner", runner_id)

    @within(DEADLINE_S)
    async def delete_runner(self, tenant: str, runner_id: str) -> None:
        """Its jobs are treated as lost. Raises NotFound."""
        await self._once.delete_runner(tenant, runner_id)


def _check_config(config: PipelineConfig) -> None:
    if config.timeout_seconds is not None and config.timeout_seconds < 1:
        raise Invalid("Invalid pipeline config: timeout_seconds must be at least 1")
    if config.max_retries < 0:
        raise Invalid("Invalid pipeline config: max_retries cannot be negative")


def _is_masked(made: PipelineView, mask: Mask) -> bool:
    """Nothing that its author wrote shows a secret."""
    config = made.config
    written = [made.script, made.name, made.description, *made.required_modules, *made.tags]
    written += [config.env_vars, *config.secret_env_vars]
    return bool(mask.value(written) == written)


def _shown(parameters: dict[str, Any], hidden: set[str], mask: Mask) -> dict[str, Any]:
    """The parameters without the secrets, wherever those stand."""
    public = mask.value({name: value for name, value in parameters.items() if name not in hidden})
    return (public if isinstance(public, dict) else {}) | dict.fromkeys(hidden, MASK)


def _view(history: History) -> PipelineJobView:
    events = [event for batch in history.batches for event in codec.decode_pipeline_events(batch.events, batch.schema)]
    return view(fold(events))
