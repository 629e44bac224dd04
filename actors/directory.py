"""Reaching an actor by its name: the only place that asks Ray for a handle.

Handles are cached by name and dropped when a call through one fails, so that the next call finds
whoever has the name then; of workers also when another incarnation is heard of. Calls are made in an
empty context: Ray cancels by context, and what an actor tells another one must not be cancelled because
a client went away.

Ray (2.60) tells of a death (`ActorDiedError`) only of actors that it does not start again, and workers always are. Of
them a call fails as `ActorUnavailableError` a second or two after the connection broke, whether the process has died or
not. So it is looked for: who is being started anew, or refuses a connection, is dead; of all others nobody knows.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from actors.handles import Handles
from actors.names import NAMESPACE
from actors.peers import WorkerGone, WorkerUnreachable
from orchestrator.errors import ActorUnreachable, OrchestratorError

_log = logging.getLogger(__name__)

#: seconds a worker may take to answer a control call, and an actor to take or answer a message
CONTROL_S = 3.0
TELL_S = 5.0
#: seconds in which it is found out whether a process is dead, or not at all
PROBE_S = 1.0


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
        #: GCS is asked where a process is, about one at a time for the same reason
        self._looking: asyncio.Future[tuple[str, int] | None] | None = None

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
        """Runs as long as the batch does; WorkerGone, or WorkerUnreachable."""
        try:
            answer: bytes = await self._call(worker, "exchange", blob)
        except (RayError, ValueError) as failed:
            raise self._failed(worker, failed) from failed
        return answer

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        """A quick answer, or WorkerGone, or WorkerUnreachable."""
        try:
            return await asyncio.wait_for(self._call(worker, method, *args), CONTROL_S)
        except TimeoutError as late:  # it may only be slow, and while Ray's GCS is away it would not be found again
            raise WorkerUnreachable(worker, f"no answer to {method} within {CONTROL_S:.0f} s") from late
        except (RayError, ValueError) as failed:
            raise self._failed(worker, failed) from failed

    def _failed(self, worker: str, failed: RayError | ValueError) -> WorkerGone:
        """What a call that failed says of the worker."""
        if isinstance(failed, ActorUnavailableError):  # once it is reached again, it is by the same handle
            return WorkerUnreachable(worker, _first_line(failed))
        self._handles.drop(worker)
        return WorkerGone(worker, _first_line(failed))

    async def is_dead(self, worker: str) -> bool:
        """Was it started anew, or does nobody listen any more where it was? False when that is not known at once."""
        try:
            async with asyncio.timeout(PROBE_S):
                try:
                    handle = await self._handle(worker)
                except ValueError:
                    return True
                place = await self._place(handle)
                return place is None or await _refuses(*place)
        except (RayError, RuntimeError, OSError):  # a TimeoutError is an OSError
            return False
        except Exception as error:  # what is asked is no public part of Ray: another version may not have it
            _log.warning("cannot tell whether %s lives: %r", worker, error)
            return False

    async def _place(self, handle: Any) -> tuple[str, int] | None:
        while self._looking is not None:
            await asyncio.wait((self._looking,))
        looking = self._looking = asyncio.ensure_future(asyncio.to_thread(process_of, handle._actor_id))
        looking.add_done_callback(self._looked)
        return await asyncio.shield(looking)

    def _looked(self, looking: asyncio.Future[tuple[str, int] | None]) -> None:
        self._looking = None
        if not looking.cancelled():
            looking.exception()  # whoever asked may have had to go

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


def process_of(actor_id: Any) -> tuple[str, int] | None:
    """Address and port of the process that Ray's GCS has for an actor; None = it is not alive there. Blocks."""
    from ray.core.generated import gcs_pb2

    records: Any = gcs_pb2  # its classes are made when it is imported
    state: Any = ray._private.state.state  # the public API of states needs the dashboard
    told = state.get_actor_info(actor_id)
    actor = records.ActorTableData.FromString(told) if told else None
    if actor is None or actor.state != records.ActorTableData.ALIVE:
        return None
    return actor.address.ip_address, actor.address.port


async def _refuses(address: str, port: int) -> bool:
    """Does nobody listen there, on a machine that lives?"""
    try:
        _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no answer'}"
