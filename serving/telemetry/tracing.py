"""Traces by OpenTelemetry, if an endpoint is set; without one, nothing is imported or recorded.

A request is one span, the child of its caller's span by W3C Trace Context, with a child per step of the work. The names
of HTTP attributes follow https://opentelemetry.io/docs/specs/semconv/http/http-spans/. No span holds a path as sent, a
header, a file name or the message of an exception.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from starlette._utils import get_route_path
from starlette.types import Scope

from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.telemetry.logs import normalize_method

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import SpanKind

Attribute = str | int | float | bool

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables that name a collector: the whole address, or its base."""

PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"

PROBES = re.compile(r"/healthz|/readyz|/metrics|/v2/health/(live|ready)|/v2/models/[^/]+(/versions/[^/]+)?/ready")
"""Paths without traces: machines request them every few seconds."""

FLUSH_S = 2.0
"""Most seconds that the shutdown waits for the last spans to be sent."""

_log = logging.getLogger("pneumo.tracing")


class Span:
    """A span, recorded or not.

    Attributes:
        trace_id: Id of the trace, 32 hexadecimal digits; None for a span that is not recorded.
    """

    trace_id: str | None = None

    def __init__(self, span: "OtelSpan | None" = None, name: str = "") -> None:
        self._span = span
        self._name = name
        if span is not None:
            self.trace_id = format(span.get_span_context().trace_id, "032x")

    def set(self, **attributes: Attribute) -> None:
        """Add attributes, each named `pneumo.` and its keyword."""
        if self._span is not None:
            self._span.set_attributes(_prefix(attributes))

    def answered(self, route: str, status: int) -> None:
        """Set the route's template, or `-` if no route matched, and the HTTP status."""
        if self._span is None:
            return
        self._span.set_attributes({"http.request.method": self._name, "http.response.status_code": status})
        if route != "-":
            self._span.update_name(f"{self._name} {route}")
            self._span.set_attribute("http.route", route)
        if status >= 500:
            _fail(self._span, str(status))


_NOT_RECORDED = nullcontext(Span())


class Tracer:
    """Records spans, or nothing for a service without an endpoint."""

    _provider: "TracerProvider | None" = None

    def __init__(self, endpoint: str | None = None) -> None:
        """Send spans to the collector that the variable `endpoint` names; needs the extra `tracing`."""
        if endpoint is None:
            return
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # Each failed try to send would log a line or more; `_log_failures` logs once.
        for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "pneumo"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # which may take 30 s
        self._provider.add_span_processor(BatchSpanProcessor(_log_failures(OTLPSpanExporter(), endpoint)))
        self._tracer = self._provider.get_tracer("pneumo")
        self._api = trace
        self._propagator = TraceContextTextMapPropagator()
        self._no_parent = Context()

    def request(self, scope: Scope) -> AbstractContextManager[Span]:
        """Record the answering of an HTTP request by its ASGI scope; spans of its tasks and threads become children."""
        if self._provider is None or PROBES.fullmatch(get_route_path(scope)):
            return _NOT_RECORDED
        given = dict(scope["headers"]).get(b"traceparent", b"").decode("latin-1")
        parent = self._propagator.extract({"traceparent": given}, context=self._no_parent)
        return self._enter(normalize_method(scope["method"]), parent, self._api.SpanKind.SERVER, {})

    def span(self, name: str, **attributes: Attribute) -> AbstractContextManager[Span]:
        """Record one step of the work, with attributes as for `Span.set`."""
        if self._provider is None:
            return _NOT_RECORDED
        return self._enter(name, None, self._api.SpanKind.INTERNAL, attributes)

    def record(self, name: str, began: float, ended: float, **attributes: Attribute) -> None:
        """Record a past step of the work for the current request, between two times of `time.perf_counter`."""
        if self._provider is None or not self._api.get_current_span().is_recording():
            return
        offset = time.time_ns() - time.perf_counter_ns()
        span = self._tracer.start_span(name, start_time=offset + int(began * 1e9), attributes=_prefix(attributes))
        span.end(offset + int(ended * 1e9))

    def close(self) -> None:
        """Send the remaining spans, for at most `FLUSH_S` seconds; call it off the event loop."""
        if self._provider is None:
            return
        # Sending may hang until the exporter's own timeout; a daemon thread ends with the process.
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(FLUSH_S)

    @contextmanager
    def _enter(
        self, name: str, parent: "Context | None", kind: "SpanKind", attributes: dict[str, Attribute]
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            context=parent,
            kind=kind,
            attributes=_prefix(attributes),
            record_exception=False,  # its message can quote what an image holds
            set_status_on_exception=False,
        ) as span:
            try:
                yield Span(span, name)
            except BaseException as error:
                _fail(span, type(error).__name__)
                raise


def from_environment() -> Tracer:
    """Return the tracer that OpenTelemetry's variables set; warn in one line if they cannot be satisfied."""
    endpoint = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    if endpoint is None or off:
        return Tracer()
    protocol = next((name for name in PROTOCOLS if os.environ.get(name)), None)
    if protocol and os.environ[protocol] != PROTOCOL:
        _log.warning("no traces: %s must be %s, with the collector's port for it (4318)", protocol, PROTOCOL)
        return Tracer()
    try:
        return Tracer(endpoint)
    except ModuleNotFoundError as error:
        _log.warning("no traces: %s is set, but %s", endpoint, missing_module(error))
        return Tracer()


def _prefix(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {f"pneumo.{name}": value for name, value in attributes.items()}


def _fail(span: "OtelSpan", kind: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", kind)


def _log_failures(exporter: "SpanExporter", endpoint: str) -> "SpanExporter":
    """Wrap an exporter so that it logs one line when sending begins to fail, and one when it succeeds again."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class LoggingExporter(SpanExporter):
        failing = False

        def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
            result = exporter.export(spans)
            failing = result is not SpanExportResult.SUCCESS
            if failing and not self.failing:
                _log.warning("traces cannot be sent to %s; requests are still answered", endpoint)
            elif self.failing and not failing:
                _log.warning("traces are sent to %s again", endpoint)
            self.failing = failing
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return LoggingExporter()
