"""Requests as spans: the first link of the chain API -> run -> task -> attempt.

A request becomes a span when a run comes of it, or when its caller traces (`traceparent`, sampled); polls and reads of
others are not worth one. Nothing is looked at, and no span made, unless spans are exported: then a run gets the
caller's own `traceparent`. Spans are only noted; once a second they go out in a thread. What cannot be handed over is
kept up to a bound, and then the oldest are dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime

from starlette.requests import Request

from actors.span_export import Exporter
from orchestrator.traces import Span, Trace, parsed, valid

PERIOD_S = 1.0
#: spans kept, and sent at once
KEPT = 10_000
SENT = 512
#: where `front` leaves the RequestTrace of a request
TRACE_KEY = "orchestrator.trace"

_log = logging.getLogger(__name__)


class RequestTrace:
    """The trace of one request."""

    __slots__ = ("_span_id", "_trace", "_worth")

    def __init__(self, given: str | None, mint: Callable[[], str]) -> None:
        digits = hashlib.sha256(mint().encode()).hexdigest()
        trace = parsed(valid(given))
        self._trace = trace or Trace(digits[:32], "", True)
        self._span_id = digits[32:48]
        self._worth = trace is not None

    def descend(self) -> str:
        """The `traceparent` of a run that comes of the request."""
        self._worth = True
        return self._trace.at(self._span_id)

    def span(self, method: str, route: str, status: int, start: datetime, end: datetime) -> Span | None:
        """The request, when it is worth a span."""
        if not self._worth or not self._trace.sampled:
            return None
        return Span(
            trace_id=self._trace.trace_id,
            span_id=self._span_id,
            parent_id=self._trace.parent_id,
            name=f"{method} {route}",
            start=start,
            end=max(start, end),
            error=f"answered {status}" if status >= 500 else None,
            server=True,
            attributes={"http.request.method": method, "http.route": route, "http.response.status_code": status},
        )


def traceparent_of(request: Request) -> str:
    """For a run that comes of `request`; "" = none."""
    trace: RequestTrace | None = request.scope.get(TRACE_KEY)
    return trace.descend() if trace is not None else valid(request.headers.get("traceparent"))


class Spans:
    """Spans on their way to the collector."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._waiting: deque[Span] = deque(maxlen=KEPT)

    def add(self, span: Span) -> None:
        """Note one."""
        self._waiting.append(span)

    async def flush(self) -> None:
        """Hand over what is noted; what the collector does not take is kept."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(SENT, len(self._waiting)))]
            if not await asyncio.to_thread(self._sent, batch):
                room = KEPT - len(self._waiting)
                self._waiting.extendleft(reversed(batch[max(0, len(batch) - room) :]))
                _log.info("%d spans wait: the collector does not take them", len(self._waiting))
                return

    def _sent(self, batch: Sequence[Span]) -> bool:
        try:
            return self._exporter.export(batch)
        except Exception:  # each exporter has errors of its own; those of requests are none of theirs
            _log.exception("spans could not be exported")
            return False

    async def keep_flushing(self) -> None:
        """Flush every second, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.flush()
