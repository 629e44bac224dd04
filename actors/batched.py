"""Requests to one actor, together: what comes while calls are under way travels with the next one.

    ask ─▶ waiting ──one call for all, at most UNDER_WAY at a time──▶ actor: each answered on its own ─▶ answers

A call between actors costs about a millisecond of CPU on either side, whatever it carries. A request shares its call
with others, so it must be one that is answered soon; and with their fate when the actor cannot be reached.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable

from orchestrator import actor_codec
from orchestrator.errors import ActorUnreachable, Broken

_log = logging.getLogger(__name__)

#: calls at a time: while one is slow, another one goes
UNDER_WAY = 2
#: requests of one call
BATCH_MAX = 500

Ask = Callable[[bytes], Awaitable[bytes]]


class Batched:
    """`ask` to whatever `call` reaches, where `answer_all` takes the batches apart."""

    def __init__(self, call: Ask) -> None:
        self._call = call
        self._waiting: list[tuple[bytes, asyncio.Future[bytes]]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, request: bytes) -> bytes:
        """The answer. Raises ActorUnreachable; Broken when the actor met a bug."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        self._send()
        return await answer

    def _send(self) -> None:
        while self._waiting and len(self._under_way) < UNDER_WAY:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            # in a context of its own: Ray cancels by context, and one caller must not cancel for all
            task = asyncio.get_running_loop().create_task(
                self._ask_all(batch, self._call), context=contextvars.Context()
            )
            self._under_way.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._send()

    async def alone(self, request: bytes, call: Ask) -> bytes:
        """The same by a call of its own, for what is answered late. Raises ActorUnreachable."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        await self._ask_all([(request, answer)], call)
        return await answer

    async def _ask_all(self, batch: list[tuple[bytes, asyncio.Future[bytes]]], call: Ask) -> None:
        try:
            answers = actor_codec.decode_answers(
                await call(actor_codec.encode_requests([request for request, _ in batch]))
            )
        except Exception as error:  # whatever it is, nobody may wait for ever
            for _, future in batch:
                _settle(future, error)
            return
        for (_, future), (found, why, broken) in zip(batch, answers, strict=True):
            fault = Broken(why) if broken else ActorUnreachable("the actor", why)
            _settle(future, fault if why else found)


def _settle(future: asyncio.Future[bytes], outcome: bytes | Exception) -> None:
    if future.done():  # whoever asked has gone
        return
    if isinstance(outcome, bytes):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)


async def answer_all(blob: bytes, ask: Ask) -> bytes:
    """The actor's side: every request of the batch side by side, and all their answers."""

    async def one(request: bytes) -> tuple[bytes, str, bool]:
        try:
            return await ask(request), "", False
        except ActorUnreachable as unreachable:
            return b"", str(unreachable), False
        except Exception as error:  # a bug that one request met must not take the others along
            _log.exception("a request failed")
            return b"", f"{type(error).__name__}: {error}", True

    return actor_codec.encode_answers(await asyncio.gather(*map(one, actor_codec.decode_requests(blob))))
