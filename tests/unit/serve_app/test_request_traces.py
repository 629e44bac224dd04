"""serve_app.request_traces: spans of requests on their way to a collector."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.traces import Span
from serve_app.request_traces import Spans

AT = datetime(2026, 1, 2, tzinfo=UTC)


class Collector:
    """Breaks so many times, then takes what comes."""

    def __init__(self, breaks: int) -> None:
        self._breaks = breaks
        self.names: list[str] = []

    def export(self, spans: Sequence[Span]) -> bool:
        if self._breaks:
            self._breaks -= 1
            raise ConnectionError("nobody listens")
        self.names += [span.name for span in spans]
        return True


async def test_an_exporter_that_breaks_loses_nothing_and_is_tried_again() -> None:
    collector = Collector(breaks=2)
    spans = Spans(collector)
    for name in ("first", "second"):
        spans.add(Span(trace_id="1", span_id=name, parent_id="", name=name, start=AT, end=AT))
        await spans.flush()
    assert collector.names == []
    await spans.flush()
    assert collector.names == ["first", "second"]
