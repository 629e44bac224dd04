"""What an API replica asks the outbox of webhooks: its log, and another try for a dead letter.

    request  one struct of `Request`, tagged `ask`;   answer  an `Answer`

Source: jobs contract, section 6.
"""

from __future__ import annotations

import msgspec

from orchestrator.webhook import Delivery


class Ask(msgspec.Struct, frozen=True, tag_field="ask", omit_defaults=True):
    """A request to the outbox."""


class Deliveries(Ask, frozen=True, tag="deliveries"):
    """The tenant's deliveries, newest first; `state` None = all."""

    tenant: str
    limit: int
    state: str | None = None


class Again(Ask, frozen=True, tag="again"):
    """A dead letter is tried from the start: the one of the answer. Refused: not_found | conflict (its state)."""

    tenant: str
    webhook_id: str


class Flush(Ask, frozen=True, tag="flush"):
    """Every delivery is gone."""


Request = Deliveries | Again | Flush


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """`refused` is a word of the request's docstring, or None when it was done."""

    deliveries: tuple[Delivery, ...] = ()
    refused: str | None = None
    message: str = ""
