"""Our spans as those of the OpenTelemetry SDK, on their way to a collector. Needs the extra `otel`.

Nothing of OpenTelemetry is imported unless spans are exported. Besides the endpoint, which is a setting, the exporter
reads the usual variables of its process: OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
OTEL_EXPORTER_OTLP_TIMEOUT and the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from orchestrator.traces import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

SERVICE = "ray-orchestrator"


class Exporter(Protocol):
    """Where spans go."""

    def export(self, spans: Sequence[Span]) -> bool:
        """Blocks. False: they did not arrive, and may be sent again."""


def installed() -> bool:
    """Is the extra there?"""
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def open_exporter(endpoint: str) -> Exporter:
    """To the collector at that base URL. Raises ImportError without the extra `otel`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return SdkExporter(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces"))


class SdkExporter:
    """`Exporter` over one of the SDK."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource

        self._exporter = exporter
        own = Resource.create({"service.name": SERVICE})
        self._resource = own.merge(OTELResourceDetector().detect())

    def export(self, spans: Sequence[Span]) -> bool:
        """As Exporter."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        made = [_readable(span, self._resource) for span in spans]
        return self._exporter.export(made) is SpanExportResult.SUCCESS


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    def context(span_id: str, remote: bool) -> SpanContext:
        return SpanContext(int(span.trace_id, 16), int(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED))

    return ReadableSpan(
        name=span.name,
        context=context(span.span_id, False),
        parent=context(span.parent_id, True) if span.parent_id else None,
        resource=resource,
        attributes=dict(span.attributes),
        kind=SpanKind.SERVER if span.server else SpanKind.INTERNAL,
        status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
        start_time=_ns(span.start),
        end_time=_ns(span.end),
        instrumentation_scope=InstrumentationScope(SERVICE),
    )


def _ns(at: datetime) -> int:
    return round(at.timestamp() * 1e6) * 1000
