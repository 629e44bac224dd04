"""The gateway, the handlers of blueprints and the runners of CI jobs as Ray actors: skins, as those in `spawn.py`.

They have a module of their own for what they import: the other processes, of which there are more, need none of it, and
each would hold ten megabytes of it.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from actors import process
from actors.batched import Batched, answer_all
from actors.clock import Clock
from actors.core_worker import CoreWorker
from actors.directory import RayPeers, this_plane
from actors.handlers_actor import HandlersActor
from actors.jobs_holder import JobsHolder
from actors.names import GATEWAY, HANDLERS
from actors.pipelines_holder import PipelinesHolder
from actors.plane_journal import CastJournal
from actors.runner_actor import runner
from actors.settings import Settings
from actors.webhook_desk import WebhookDesk
from actors.webhook_post import WebhookPost
from actors.webhooks import Webhooks, mail_of, webhook_secrets
from orchestrator import outside_codec, remote
from orchestrator.blueprint import Outcome, Visit

#: seconds a visit may take beyond the time that a handler has: it may wait for room among others
VISIT_PATIENCE_S = 60.0


class GatewayProcess:
    """What holds jobs, CI jobs and the outbox of webhooks, as a Ray actor: parts of their own in one event loop."""

    async def __init__(self, _name: str, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        process.settle()
        made = Settings.from_dict(settings)
        journal, clock = CastJournal(made.journal_url, this_plane()), Clock()
        post = WebhookPost(made.private_webhooks)
        self._webhooks = Webhooks(journal, clock, post, webhook_secrets(made), made.webhook_max_attempts)
        self._jobs = JobsHolder(journal, clock, made, RayHandlers(made.blueprint_handler_timeout_s), mail_of)
        self._pipelines = PipelinesHolder(journal, clock, made)
        for part in (self._webhooks, self._jobs, self._pipelines):
            part.on_crash = process.end  # type: ignore[method-assign]  # as its docstring offers
            part.start()
        core = CoreWorker(self._ask_jobs, clock)
        self._core = asyncio.get_running_loop().create_task(core.run())
        self._core.add_done_callback(_exit_on_error)

    async def _ask_jobs(self, request: remote.Request) -> remote.Answer:
        return outside_codec.decode_answer(await self._jobs.ask(outside_codec.encode_request(request)))

    async def jobs(self, blob: bytes) -> bytes:
        """Requests of the jobs surface, as `batched.py` sends them."""
        return await answer_all(blob, self._jobs.ask)

    async def pipelines(self, blob: bytes) -> bytes:
        """Requests of the pipelines surface and of in-cluster runners, as `batched.py` sends them."""
        return await answer_all(blob, self._pipelines.ask)

    async def webhooks(self, blob: bytes) -> bytes:
        """Requests about webhooks, as `batched.py` sends them."""
        return await answer_all(blob, WebhookDesk(self._webhooks).ask)

    async def ping(self) -> int:
        """Number of jobs and CI jobs held, once recovered."""
        return await self._jobs.ping() + await self._pipelines.ping()

    def __repr__(self) -> str:
        return GATEWAY


class RayHandlers:
    """`handler_visits.Handlers` over Ray."""

    def __init__(self, timeout_s: float) -> None:
        self._peers = RayPeers()
        self._patience_s = timeout_s + VISIT_PATIENCE_S

    async def visit(self, visit: Visit) -> Outcome:
        """What it came to. Raises ActorUnreachable when the handlers' process died, or takes too long for it."""
        blob = await self._peers.ask(HANDLERS, "visit", outside_codec.encode_visits([visit]), self._patience_s)
        [outcome] = outside_codec.decode_outcomes(blob)
        return outcome


class HandlersProcess(HandlersActor):
    """What runs handlers of blueprints in Python, as a Ray actor."""

    async def __init__(self, _name: str, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        process.settle()
        made = Settings.from_dict(settings)
        super().__init__(
            CastJournal(made.journal_url, this_plane()),
            Path(made.blueprints_dir),
            made.path("artifacts"),
            timeout_s=made.blueprint_handler_timeout_s,
            concurrent_max=made.executor_max_concurrent_jobs,
        )
        self.start()

    def on_crash(self) -> None:
        process.end()

    def __repr__(self) -> str:
        return HANDLERS


class RunnerProcess:
    """An in-cluster runner of CI jobs as a Ray actor."""

    async def __init__(self, name: str, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        process.settle()
        made, peers = Settings.from_dict(settings), RayPeers()
        self._name = name

        async def ask(requests: bytes) -> bytes:
            return await peers.ask(GATEWAY, "pipelines", requests)

        loop = runner(name, Batched(ask).ask, Clock(), made.pipelines_process_backend)
        self._working = asyncio.get_running_loop().create_task(loop.run())
        self._working.add_done_callback(_exit_on_error)

    async def ping(self) -> int:
        """It is there."""
        return 1

    def __repr__(self) -> str:
        return self._name


def _exit_on_error(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logging.getLogger(__name__).critical("a runner or worker failed", exc_info=task.exception())
        process.end()
