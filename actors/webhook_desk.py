"""Requests to the outbox of webhooks, and its answers, as bytes. Source: jobs contract, section 6."""

from __future__ import annotations

from typing import assert_never

from actors.webhooks import Webhooks
from orchestrator import outside_codec
from orchestrator import webhook_messages as wm
from orchestrator.errors import ActorUnreachable, Conflict, Fenced, NotFound


class WebhookDesk:
    """Answers for one outbox."""

    def __init__(self, outbox: Webhooks) -> None:
        self._outbox = outbox

    async def ask(self, blob: bytes) -> bytes:
        """`outside_codec.encode_webhook_request` in, `encode_webhook_answer` out; what it changed is durable."""
        try:
            answer = await self._answer(outside_codec.decode_webhook_request(blob))
        except NotFound as refused:
            answer = wm.Answer(refused="not_found", message=str(refused))
        except Conflict as refused:
            answer = wm.Answer(refused="conflict", message=refused.message)
        except Fenced as fenced:
            raise ActorUnreachable(self._outbox.name, str(fenced)) from fenced
        return outside_codec.encode_webhook_answer(answer)

    async def _answer(self, ask: wm.Request) -> wm.Answer:
        match ask:
            case wm.Deliveries():
                found = await self._outbox.deliveries(ask.tenant)
                fitting = [each for each in found if ask.state in (None, each.state)]
                return wm.Answer(tuple(fitting[: ask.limit]))
            case wm.Again():
                return wm.Answer((await self._outbox.again(ask.tenant, ask.webhook_id),))
            case wm.Flush():
                await self._outbox.flush()
                return wm.Answer()
            case _ as never:
                assert_never(never)
