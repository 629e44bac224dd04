"""One webhook: what is told to whom, and when it is tried again.

    pending ─▶ delivered                 a 2xx answer
       ▲ └──▶ dead  ─▶ delivered         WEBHOOK_MAX_ATTEMPTS without one; a dead letter is tried now and then for a day
       └───────┘                         `again`, by command

Attempts are made at once and after 2 s, 4 s, 30 s, 2 min and 10 min: 12 min 36 s with the six attempts of the contract.
A receiver may be down for longer, and each webhook is to reach it once it is back. So what has used up its attempts is
a dead letter, shown as such, which is still tried, in all for DEAD_FOR: every PROBE_EVERY one letter per receiver, as a
probe; when that or any other delivery to the receiver succeeds, its other dead letters are due at once
(`actors/webhooks.py` knows the receivers). A letter whose own receiver refuses it alone is tried once per PROBE_EVERY.

Headers with a secret follow Standard Webhooks 1.0: https://github.com/standard-webhooks/standard-webhooks.
Source: jobs contract, sections 6 and 9a.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import msgspec

from orchestrator import addresses
from orchestrator.errors import Conflict, Invalid
from orchestrator.job_state import Job, Status

#: before the second, third, … attempt; the last one goes on for all that follow
WAITS_S = (2.0, 4.0, 30.0, 120.0, 600.0)
PROBE_EVERY = timedelta(minutes=15)
DEAD_FOR = timedelta(hours=24)
#: attempts that a delivery's log keeps
LOG_MAX = 20
ERROR_MAX = 300
URL_MAX = 2_000

PENDING, DELIVERED, DEAD = "pending", "delivered", "dead"
_EVENTS = {
    Status.FINISHED: "job_finished",
    Status.FAILED: "job_failed",
    Status.ERROR: "job_failed",
    Status.QUARANTINED: "job_quarantined",
    Status.CANCELLED: "job_cancelled",
}


class _Addressed(msgspec.Struct, frozen=True):
    """What is told, and to whom."""

    #: `webhook-id` of every attempt
    id: str
    tenant: str
    #: name of the client whose secret signs it
    client: str
    url: str
    event: str
    #: id of what it is about
    about: str


class Notice(_Addressed, frozen=True):
    """What somebody is to be told: mail for the outbox, once per id."""

    #: JSON, sent byte for byte
    payload: msgspec.Raw


class Try(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt: the status that was answered, or why there was none."""

    at: datetime
    status: int | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        """Was it taken?"""
        return self.status is not None and 200 <= self.status < 300


class Delivery(_Addressed, frozen=True, omit_defaults=True, kw_only=True):
    """A notice and what became of it; the payload is kept apart until it is delivered."""

    created_at: datetime
    state: str = PENDING
    #: of this round: `again` begins a new one
    attempts: int = 0
    next_at: datetime | None = None
    #: since when it is delivered or dead
    ended_at: datetime | None = None
    #: the last LOG_MAX attempts, oldest first
    log: tuple[Try, ...] = ()

    @property
    def receiver(self) -> str:
        """Scheme, host and port of its URL."""
        return receiver_of(self.url)


def receiver_of(url: str) -> str:
    """Scheme, host and port."""
    return "://".join(urlsplit(url)[:2]).lower()


# ── notices ───────────────────────────────────────────────────────────────────────────────────────


def of_job(job: Job) -> Notice | None:
    """What the job's client is to be told now that it has ended; None = nothing."""
    if job.webhook_url is None or not job.ended:
        return None
    event = _EVENTS[job.status]
    payload = {
        "event": event,
        "job_id": job.job_id,
        "status": job.status,
        "result": job.state_history,
        "error": job.error,
    }
    return Notice(
        id=f"msg_{job.job_id}" if not job.releases else f"msg_{job.job_id}_{job.releases}",
        tenant=job.tenant,
        client=str(job.client.get("name") or ""),
        url=job.webhook_url,
        event=event,
        about=job.job_id,
        payload=msgspec.Raw(msgspec.json.encode(payload)),
    )


def check_webhook_url(url: str, allow_private: bool) -> None:
    """Raises Invalid unless it is an http or https URL without credentials, at a name or a public address."""
    if not _is_target(url, allow_private):
        raise Invalid("Invalid webhook_url")


def _is_target(url: str, allow_private: bool) -> bool:
    if len(url) > URL_MAX or any(character <= " " or character in "\\\x7f" for character in url):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.scheme.lower() not in ("http", "https") or not host or "@" in parts.netloc:
        return False
    address = addresses.read(host)
    return allow_private or (addresses.is_public(address) if address else not host.endswith("localhost"))


# ── deliveries ────────────────────────────────────────────────────────────────────────────────────


def begin(notice: Notice, now: datetime) -> Delivery:
    """A delivery of the notice, due at once."""
    return Delivery(
        id=notice.id,
        tenant=notice.tenant,
        client=notice.client,
        url=notice.url,
        event=notice.event,
        about=notice.about,
        created_at=now,
        next_at=now,
    )


def tried(delivery: Delivery, attempt: Try, attempts_max: int) -> Delivery:
    """The delivery after the attempt."""
    log = (*delivery.log, attempt)[-LOG_MAX:]
    attempts = delivery.attempts + 1
    after = msgspec.structs.replace(delivery, log=log, attempts=attempts)
    if attempt.delivered:
        return msgspec.structs.replace(after, state=DELIVERED, next_at=None, ended_at=attempt.at)
    if delivery.state == PENDING and attempts < attempts_max:
        wait_s = WAITS_S[min(attempts, len(WAITS_S)) - 1]
        return msgspec.structs.replace(after, next_at=attempt.at + timedelta(seconds=wait_s))
    dead_since = delivery.ended_at or attempt.at
    probe_at = attempt.at + PROBE_EVERY
    next_at = probe_at if probe_at <= dead_since + DEAD_FOR else None
    return msgspec.structs.replace(after, state=DEAD, next_at=next_at, ended_at=dead_since)


def again(delivery: Delivery, now: datetime) -> Delivery:
    """A dead letter with all its attempts before it. Raises Conflict for any other delivery: its state."""
    if delivery.state != DEAD:
        raise Conflict(delivery.state)
    return msgspec.structs.replace(delivery, state=PENDING, attempts=0, next_at=now, ended_at=None)


# ── signatures ────────────────────────────────────────────────────────────────────────────────────


def headers(webhook_id: str, body: bytes, secret: str, now: datetime) -> dict[str, str]:
    """What an attempt at `now` carries; signed when there is a secret."""
    plain = {"content-type": "application/json"}
    if not secret:
        return plain
    timestamp = str(int(now.timestamp()))
    signed = b".".join((webhook_id.encode(), timestamp.encode(), body))
    digest = hmac.new(secret_key(secret), signed, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return plain | {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": signature}


def secret_key(secret: str) -> bytes:
    """The key that `whsec_<base64>` or raw text stands for. Raises Invalid when it is not base64 after all."""
    encoded = secret.removeprefix("whsec_")
    if encoded == secret:
        return secret.encode()
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        raise Invalid("a webhook secret that begins with whsec_ must go on in base64") from None
