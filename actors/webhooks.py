"""The outbox of webhooks: a notice arrives by mail, is kept, and is told until its receiver has taken it.

    inbox ─▶ records (durable) ─▶ cursor ─▶ due ─▶ POST ─▶ record of the attempt ─▶ delivered | later | dead

Whoever owes a notice sends it as mail in the very commit that makes it true (`mail_of`). The cursor moves only past
notices that are records, and ids of records are known, so a crash anywhere repeats work but adds no notice. A crash
between an answer and its record repeats the attempt: at least once, with the same `webhook-id`.

Records of kind RECORD hold everything but the payload, which is under the same key in kind BODY until it is delivered.
At most KEPT_MAX of the delivered and DEAD_MAX of the dead ones are kept, the newest. Secrets are looked up at each
attempt and kept nowhere.

Receivers that hang share nothing with the others: at most PER_RECEIVER of the CONCURRENCY attempts go to one. While a
receiver is down its dead letters are held, but for one probe at a time (`orchestrator/webhook.py` says when and why).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import TypeVar

from actors import names
from actors.clock import Clock
from actors.living import Living
from actors.record_writer import RecordWriter
from actors.settings import Settings
from actors.token_files import read_clients
from actors.webhook_post import PostFailed
from orchestrator import codec, outside_codec, webhook
from orchestrator.errors import Broken, Invalid, JournalUnavailable, NotFound
from orchestrator.job import Job
from orchestrator.ports import Journal
from orchestrator.steps import Commit, Mail
from orchestrator.streams import Letter, inbox, place
from orchestrator.webhook import DEAD, DELIVERED, PROBE_EVERY, Delivery, Notice, Try

_log = logging.getLogger(__name__)
T = TypeVar("T")

RECORD, BODY = "webhook", "webhook_body"
CONCURRENCY = 32
PER_RECEIVER = 8
KEPT_MAX = 2_000
DEAD_MAX = 10_000
#: milliseconds one read of the inbox waits
TAIL_MS = 10_000

#: (url, body, headers) -> status of the answer; raises PostFailed
Post = Callable[[str, bytes, dict[str, str]], Awaitable[int]]
#: (tenant, name of the client) -> its secret, or the deployment's; "" = none
SecretOf = Callable[[str, str], str]


def mail_of(job: Job) -> Mail | None:
    """Mail for the outbox that goes with the commit that ends the job; None = nobody wants to be told."""
    notice = webhook.of_job(job)
    return None if notice is None else mail(names.JOBS, notice)


def mail(sender: str, notice: Notice) -> Mail:
    """The notice, as mail for the outbox."""
    return Mail(names.WEBHOOKS, codec.encode_mail(sender, outside_codec.encode_notice(notice)))


def webhook_secrets(settings: Settings) -> SecretOf:
    """Each client's own secret, else the deployment's. Raises Invalid for a file of clients that cannot be read."""
    own = {(each.tenant, each.name): each.webhook_secret for each in read_clients(settings.clients_config_path)}
    return lambda tenant, client: own.get((tenant, client)) or settings.webhook_secret


class Webhooks(Living):
    """The outbox of a deployment. `start` returns at once."""

    def __init__(self, journal: Journal, clock: Clock, post: Post, secret_of: SecretOf, attempts_max: int) -> None:
        super().__init__(names.WEBHOOKS)
        self._journal = journal
        self._clock = clock
        self._post = post
        self._secret_of = secret_of
        self._attempts_max = attempts_max
        self._records, self._bodies = (
            RecordWriter(journal, RECORD, self._fence),
            RecordWriter(journal, BODY, self._fence),
        )
        self._deliveries: dict[str, Delivery] = {}
        #: ids of what is delivered and of what is dead, in the order in which they ended
        self._ended: dict[str, OrderedDict[str, None]] = {DELIVERED: OrderedDict(), DEAD: OrderedDict()}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        #: attempts under way
        self._trying: set[str] = set()
        self._busy: Counter[str] = Counter()
        #: due, but PER_RECEIVER attempts to its receiver are under way
        self._parked: dict[str, deque[str]] = {}
        #: receiver that failed -> when that began, or when it was last probed
        self._down: dict[str, datetime] = {}
        #: dead letters that wait for their receiver to be back
        self._held: dict[str, set[str]] = {}
        self._recovered = asyncio.Event()
        #: inbox position up to which every notice is known, and that it has moved
        self._cursor = "0-0"
        self._heard = asyncio.Event()
        self._epoch = self._turn = 0

    # ── what others call ──────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin to live: recover, then deliver."""
        self._spawn(self._live())

    async def ping(self) -> int:
        """Number of deliveries that are neither delivered nor dead, once recovered."""
        await self._recovered.wait()
        return len(self._deliveries) - sum(map(len, self._ended.values()))

    async def deliveries(self, tenant: str) -> list[Delivery]:
        """Deliveries of the tenant with the log of their attempts, newest first."""
        await self._recovered.wait()
        found = [delivery for delivery in self._deliveries.values() if delivery.tenant == tenant]
        return sorted(found, key=lambda delivery: (delivery.created_at, delivery.id), reverse=True)

    async def again(self, tenant: str, webhook_id: str) -> Delivery:
        """A dead letter is tried again from the start, durably. Raises NotFound, Conflict (it is not dead)."""
        await self._recovered.wait()
        delivery = self._deliveries.get(webhook_id)
        if delivery is None or delivery.tenant != tenant:
            raise NotFound("webhook", webhook_id)
        after = webhook.again(delivery, self._clock.now())
        await self._keep(after)
        self._plan(after)
        return after

    async def flush(self) -> None:
        """Every delivery is gone, also of notices that are on their way here; what is under way is not tried again."""
        await self._recovered.wait()
        wanted = place(await self.insist(lambda: self._journal.position(inbox(self.name))))
        while place(self._cursor) < wanted:
            self._heard.clear()
            await self._heard.wait()
        await self._remove(list(self._deliveries))

    async def _fence(self) -> None:
        await self.ensure_current(self._journal, self._epoch)

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def _live(self) -> None:
        self._epoch = await self.insist(lambda: self._journal.take_epoch(self.name))
        self._cursor = (await self.insist(lambda: self._journal.owner(self.name))).cursor
        records = await self.insist(lambda: self._journal.records(RECORD))
        self._recover([outside_codec.decode_delivery(record) for record in records.values()])
        for _ in range(CONCURRENCY):
            self._spawn(self._deliver())
        self._recovered.set()
        await self._read_inbox()

    def _recover(self, deliveries: list[Delivery]) -> None:
        last: dict[str, Try] = {}
        for delivery in sorted(deliveries, key=lambda each: each.ended_at or each.created_at):
            self._remember(delivery)
            for attempt in delivery.log[-1:]:
                known = last.get(delivery.receiver)
                last[delivery.receiver] = attempt if known is None or known.at < attempt.at else known
        self._down = {receiver: attempt.at for receiver, attempt in last.items() if not attempt.delivered}
        for delivery in deliveries:
            self._plan(delivery)

    async def _read_inbox(self) -> None:
        stream = inbox(self.name)
        while True:
            try:
                entries = await self._journal.tail(stream, self._cursor, TAIL_MS)
            except JournalUnavailable as unavailable:
                _log.warning("inbox of webhooks: %s", unavailable)
                await asyncio.sleep(0.5)
                continue
            if entries:
                new = await self._admit(notice for entry in entries for notice in _notices(entry.item))
                await self._move_on(entries[-1].cursor)
                for delivery in new:
                    self._plan(delivery)

    async def _admit(self, notices: Iterable[Notice]) -> list[Delivery]:
        """Those of the notices that were not known are records."""
        new = []
        for notice in notices:
            if notice.id not in self._deliveries:
                delivery = webhook.begin(notice, self._clock.now())
                self._bodies.note(notice.id, bytes(notice.payload))
                self._remember(delivery)
                new.append(delivery)
        await self._bodies.flush()
        for delivery in new:
            if delivery.id in self._deliveries:  # not flushed meanwhile
                self._records.note(delivery.id, outside_codec.encode_delivery(delivery))
        await self._records.flush()
        return new

    async def _move_on(self, cursor: str) -> None:
        self._turn += 1
        commit = Commit(owner=self.name, epoch=self._epoch, turn=self._turn, cursor=cursor)
        await self.insist(lambda: self._journal.commit(commit))
        self._cursor = cursor
        self._heard.set()

    # ── when ──────────────────────────────────────────────────────────────────────────────────────

    def _plan(self, delivery: Delivery) -> None:
        """Try it when it is due."""
        if delivery.next_at is not None:
            self._arm(delivery.id, delivery.next_at)

    def _arm(self, webhook_id: str, at: datetime) -> None:
        self._disarm(webhook_id)
        delay_s = max(0.0, (at - self._clock.now()).total_seconds())
        self._timers[webhook_id] = asyncio.get_running_loop().call_later(delay_s, self._due, webhook_id)

    def _disarm(self, webhook_id: str) -> None:
        timer = self._timers.pop(webhook_id, None)
        if timer is not None:
            timer.cancel()

    def _due(self, webhook_id: str) -> None:
        self._timers.pop(webhook_id, None)
        delivery = self._deliveries.get(webhook_id)
        if delivery is None:
            return
        receiver, now = delivery.receiver, self._clock.now()
        if delivery.state == DEAD and receiver in self._down:
            probe_at = self._down[receiver] + PROBE_EVERY
            if now < probe_at:
                self._held.setdefault(receiver, set()).add(webhook_id)
                self._arm(webhook_id, probe_at)
                return
            self._down[receiver] = now
        self._unhold(delivery)
        self._ready.put_nowait(webhook_id)

    def _unhold(self, delivery: Delivery) -> None:
        self._held.get(delivery.receiver, set()).discard(delivery.id)

    def _is_back(self, receiver: str) -> None:
        self._down.pop(receiver, None)
        for webhook_id in self._held.pop(receiver, ()):
            self._arm(webhook_id, self._clock.now())

    # ── deliver ───────────────────────────────────────────────────────────────────────────────────

    async def _deliver(self) -> None:
        while True:
            delivery = self._deliveries.get(await self._ready.get())
            if delivery is None or delivery.next_at is None or delivery.id in self._trying:
                continue
            receiver = delivery.receiver
            if self._busy[receiver] >= PER_RECEIVER:
                self._parked.setdefault(receiver, deque()).append(delivery.id)
                continue
            self._trying.add(delivery.id)
            self._busy[receiver] += 1
            try:
                await self._try(delivery)
            finally:
                self._trying.discard(delivery.id)
                self._leave(receiver)

    def _leave(self, receiver: str) -> None:
        self._busy[receiver] -= 1
        if not self._busy[receiver]:
            del self._busy[receiver]
        waiting = self._parked.get(receiver)
        if waiting:
            self._ready.put_nowait(waiting.popleft())
        else:
            self._parked.pop(receiver, None)

    async def _try(self, delivery: Delivery) -> None:
        body = await self.insist(lambda: self._journal.record(BODY, delivery.id))
        if body is None:
            return  # flushed or removed since
        attempt = await self._attempt(delivery, body)
        current = self._deliveries.get(delivery.id)
        if current is None:
            return
        after = webhook.tried(current, attempt, self._attempts_max)
        await self._keep(after)
        if attempt.delivered:
            self._bodies.note(after.id, None)
            self._bodies.begin()
            self._is_back(after.receiver)
        else:
            self._down.setdefault(after.receiver, attempt.at)
            self._plan(after)
        await self._prune()

    async def _attempt(self, delivery: Delivery, body: bytes) -> Try:
        try:
            secret = self._secret_of(delivery.tenant, delivery.client)
            headers = webhook.headers(delivery.id, body, secret, self._clock.now())
            status = await self._post(delivery.url, body, headers)
        except (PostFailed, Invalid) as failed:
            return Try(self._clock.now(), error=str(failed))
        except Exception as error:  # whatever one URL provokes, the others are still to be told
            _log.exception("webhook %s to %s", delivery.id, delivery.receiver)
            return Try(self._clock.now(), error=type(error).__name__)
        return Try(self._clock.now(), status=status)

    # ── records ───────────────────────────────────────────────────────────────────────────────────

    async def _keep(self, delivery: Delivery) -> None:
        self._remember(delivery)
        await self._records.put(delivery.id, outside_codec.encode_delivery(delivery))

    def _remember(self, delivery: Delivery) -> None:
        self._deliveries[delivery.id] = delivery
        for state, ended in self._ended.items():
            if state == delivery.state:
                ended.setdefault(delivery.id)
            else:
                ended.pop(delivery.id, None)

    async def _prune(self) -> None:
        for state, limit in ((DELIVERED, KEPT_MAX), (DEAD, DEAD_MAX)):
            ended = self._ended[state]
            if len(ended) > limit:
                await self._remove(list(ended)[: len(ended) - limit])

    async def _remove(self, webhook_ids: list[str]) -> None:
        for webhook_id in webhook_ids:
            self._disarm(webhook_id)
            delivery = self._deliveries.pop(webhook_id, None)
            if delivery is None:
                continue
            self._unhold(delivery)
            for ended in self._ended.values():
                ended.pop(webhook_id, None)
            self._records.note(webhook_id, None)
            self._bodies.note(webhook_id, None)
        await self._records.flush()
        await self._bodies.flush()

    # ── small things ──────────────────────────────────────────────────────────────────────────────


def _notices(item: bytes) -> list[Notice]:
    """Notices in an inbox entry; what cannot be read would be in the way for ever, so it is told and left out."""
    found = []
    for letter in codec.decode_inbox(item):
        if isinstance(letter, Letter):
            try:
                found.append(outside_codec.decode_notice(bytes(letter.data)))
            except Broken as broken:
                _log.error("a notice from %s: %s", letter.sender, broken)
    return found
