"""Reaching an actor by its name: the only place that asks Ray for a handle.

Handles are cached by name and dropped when a call through one fails, so that the next call finds
whoever has the name then; of workers also when another incarnation is heard of. Calls are made in an
empty context: Ray cancels by context, and what an actor tells another one must not be cancelled because
a client went away.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.handles import Handles
from actors.names import NAMESPACE
from actors.peers import WorkerGone
from orchestrator.errors import ActorUnreachable, OrchestratorError

_log = logging.getLogger(__name__)

#: seconds a worker may take to answer a control call, and an actor to take or answer a message
CONTROL_S = 3.0
TELL_S = 5.0


def this_plane() -> str:
    """Id of this control plane: there is one in a Ray cluster, and all its processes are of one session."""
    return str(ray.get_runtime_context().get_session_name())


class RayPeers:
    """`peers.Peers` over Ray."""

    def __init__(self) -> None:
        self._handles = Handles()
        #: worker -> incarnation that the handle is of
        self._met: dict[str, str] = {}
        #: names that are being asked for: while Ray's GCS is away each blocks one thread, and not one more per caller
        self._asked: dict[str, asyncio.Future[Any]] = {}

    def meet(self, worker: str, incarnation: str) -> None:
        """Names come again: a batch that is sent to an actor which was ended would count as lost."""
        if self._met.get(worker) != incarnation:
            self._met[worker] = incarnation
            self._handles.drop(worker)
            self._asked.pop(worker, None)

    async def look_up(self, worker: str, incarnation: str) -> None:
        """As `reaches`, of that incarnation."""
        self.meet(worker, incarnation)
        await self.reaches(worker)

    async def exchange(self, worker: str, blob: bytes) -> bytes:
        """Runs as long as the batch does; Ray reports the worker's death."""
        try:
            answer: bytes = await self._call(worker, "exchange", blob)
        except (RayError, ValueError) as gone:
            self._handles.drop(worker)
            raise WorkerGone(worker, _first_line(gone)) from gone
        return answer

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        """A quick answer, or WorkerGone."""
        try:
            return await asyncio.wait_for(self._call(worker, method, *args), CONTROL_S)
        except TimeoutError as late:  # it may only be slow, and while Ray's GCS is away it would not be found again
            raise WorkerGone(worker, f"no answer to {method} within {CONTROL_S:.0f} s") from late
        except (RayError, ValueError) as gone:
            self._handles.drop(worker)
            raise WorkerGone(worker, _first_line(gone)) from gone

    async def kill(self, worker: str) -> None:
        """The process ends now; Ray starts it again."""
        try:
            handle = await self._handle(worker)
            await asyncio.to_thread(ray.kill, handle, no_restart=False)
        except (RayError, ValueError) as gone:
            raise WorkerGone(worker, _first_line(gone)) from gone

    async def tell(self, actor: str, method: str, blob: bytes) -> None:
        """Delivered, or ActorUnreachable."""
        await self._reach(actor, method, blob)

    async def ask(self, actor: str, method: str, blob: bytes, patience_s: float = TELL_S) -> bytes:
        """The answer, or ActorUnreachable."""
        answer: bytes = await self._reach(actor, method, blob, patience_s)
        return answer

    async def reaches(self, actor: str) -> bool:
        """Does the actor answer within CONTROL_S? Then the next call needs nothing of Ray's GCS.

        To know that it exists is not enough: a process asks GCS where an actor lives when it first calls it.
        """
        try:
            await self.control(actor, "ping")
        except WorkerGone as gone:
            _log.info("%s", gone)
            return False
        return True

    async def exists(self, actor: str) -> bool:
        """Does an actor of that name live, or is it being restarted?"""
        try:
            await self._handle(actor)
        except (RayError, ValueError):
            return False
        return True

    async def _reach(self, actor: str, method: str, blob: bytes, patience_s: float = TELL_S) -> Any:
        try:
            return await asyncio.wait_for(self._call(actor, method, blob), patience_s)
        except TimeoutError as late:
            raise ActorUnreachable(actor, f"no answer to {method} within {patience_s:.0f} s") from late
        except RayActorError as gone:
            self._handles.drop(actor)
            raise ActorUnreachable(actor, _first_line(gone)) from gone
        except (RayError, ValueError) as failed:
            cause = failed.cause if isinstance(failed, RayTaskError) else failed
            if isinstance(cause, OrchestratorError):
                raise cause from None  # Ray's own text is a traceback, and a caller is told what the error says
            raise ActorUnreachable(actor, _first_line(failed)) from failed

    async def _call(self, actor: str, method: str, *args: Any) -> Any:
        handle = self._handles.get(actor) or await self._handle(actor)
        return await Context().run(getattr(handle, method).remote, *args)

    async def _handle(self, actor: str) -> Any:
        """Raises ValueError when no such actor lives."""
        handle = self._handles.get(actor)
        if handle is None:
            asked = self._asked.get(actor)
            if asked is None:
                asked = self._asked[actor] = asyncio.ensure_future(asyncio.to_thread(ray.get_actor, actor, NAMESPACE))
                asked.add_done_callback(partial(self._answered, actor))
            handle = await asyncio.shield(asked)
        return handle

    def _answered(self, actor: str, asked: asyncio.Future[Any]) -> None:
        if self._asked.get(actor) is not asked:
            return  # somebody else has the name by now
        del self._asked[actor]
        if not asked.cancelled() and asked.exception() is None:
            self._handles.keep(actor, asked.result())


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no answer'}"
