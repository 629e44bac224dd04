"""A RunActor's way to the `kubernetes` actor: a seat without a lease and without a limit.

    order ──▶ exchange, one per attempt, for as long as its Job lasts ──▶ Ended
                 ▲            │ the actor has gone, or is not there yet
                 └── again ◀──┘

The other side keeps nothing that matters: an attempt's Job is created once under its name, and adopted after that. So
an order is sent until it is answered, and a RunActor that was replaced sends those of its running attempts again:
no attempt is lost with either of the two. Who never hears an answer gives up when the attempt is long overdue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from actors.crew import Ended, Key
from actors.kubernetes_config import configured
from actors.names import KUBERNETES
from actors.peers import Peers, WorkerGone
from actors.readiness import assignment
from actors.settings import Settings
from orchestrator import actor_codec
from orchestrator.definition import Container
from orchestrator.messages import JobOrder, Report, Settled
from orchestrator.run_state import Run

_log = logging.getLogger(__name__)

#: pause before a message is sent again; doubles up to the cap
PAUSE_S, PAUSE_MAX_S = 0.1, 5.0
#: seconds after an attempt's limit in which the actor itself would have ended it
LATE_S = 120.0
_PLAIN = Container()


@dataclass(slots=True, eq=False)
class _Order:
    """An attempt that is not answered yet."""

    key: Key
    blob: bytes
    timeout_s: float
    aborted: bool = False


class KubernetesSeat:
    """All Jobs that one RunActor waits for."""

    def __init__(self, owner: str, epoch: int, peers: Peers, post: Callable[[Ended], None], settings: Settings) -> None:
        self._owner = owner
        self._epoch = epoch
        self._peers = peers
        self._post = post
        self._settings = settings
        self._open: dict[Key, _Order] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def order(self, run: Run, positions: Iterable[int]) -> None:
        """Have the tasks at these positions run as Jobs; their attempts are durable as started."""
        there = configured(self._settings)
        for position in positions:
            task = assignment(run, position)
            key = (task.run_id, task.task, task.attempt)
            if not there:
                self._answer(Report(*key, "error", error="no Kubernetes cluster is configured", permanent=True))
                continue
            box = run.compiled.specs[position].container or _PLAIN
            order = JobOrder(
                self._owner, self._epoch, run.context(self._owner, self._settings.traced), task, box.image, box.command
            )
            self._open[key] = _Order(key, actor_codec.encode_job_order(order), task.timeout_s)
            self._spawn(self._see_through(self._open[key]))

    def abort(self, _worker: str, key: Key) -> None:
        """Delete the Job of an attempt whose result does not count any more."""
        order = self._open.get(key)
        if order is not None and not order.aborted:
            order.aborted = True
            self._spawn(self._cancel(order))

    async def _see_through(self, order: _Order) -> None:
        try:
            async with asyncio.timeout(order.timeout_s + LATE_S):
                answer = await self._exchange(order)
        except TimeoutError:
            why = f"timed out after {order.timeout_s:g} s, and actor {KUBERNETES} said nothing of it"
            self._answer(Report(*order.key, "timed_out", error=why))
        else:
            self._post(Ended(KUBERNETES, actor_codec.decode_settled(answer), None))
        finally:
            self._open.pop(order.key, None)

    async def _exchange(self, order: _Order) -> bytes:
        pause_s = PAUSE_S
        while True:
            try:
                if order.aborted:  # whoever was told may have forgotten
                    await self._tell_cancel(order)
                return await self._peers.exchange(KUBERNETES, order.blob)
            except WorkerGone as gone:
                _log.warning("%s", gone)
            await asyncio.sleep(pause_s)
            pause_s = min(PAUSE_MAX_S, 2 * pause_s)

    async def _cancel(self, order: _Order) -> None:
        pause_s = PAUSE_S
        while order.key in self._open:
            try:
                return await self._tell_cancel(order)
            except WorkerGone as gone:
                _log.warning("cancel of %s: %s", order.key, gone)
            await asyncio.sleep(pause_s)
            pause_s = min(PAUSE_MAX_S, 2 * pause_s)

    async def _tell_cancel(self, order: _Order) -> None:
        await self._peers.control(KUBERNETES, "cancel", *order.key, "cancelled")

    def _answer(self, report: Report) -> None:
        self._post(Ended(KUBERNETES, Settled(KUBERNETES, KUBERNETES, 0, (report,)), None))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
