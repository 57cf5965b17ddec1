import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from pneumo.serving.telemetry import tracing
from pneumo.serving.telemetry.tracing import Tracer, from_environment
from tests.support.paths import ROOT
from tests.support.waiting import until

SECRET = "Xenia_Quist_1950"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """An HTTP server that takes spans as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.paths.append(self.path)
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def resources(self) -> list:
        return [found for body in self.bodies for found in ExportTraceServiceRequest.FromString(body).resource_spans]

    @property
    def spans(self) -> dict[str, Sent]:
        spans = [span for found in self.resources for scope in found.scope_spans for span in scope.spans]
        assert len({span.name for span in spans}) == len(spans)
        return {span.name: span for span in spans}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


@pytest.fixture
def tracer(collector: Collector) -> Iterator[Tracer]:
    tracer = from_environment()
    yield tracer
    tracer.close()


def scope(path: str = "/v1/predict", method: str = "POST", **headers: str) -> dict[str, object]:
    raw = [(name.encode(), value.encode("utf-8")) for name, value in headers.items()]
    return {"type": "http", "path": path, "method": method, "headers": raw}


def attributes(span: Sent) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def predict(tracer: Tracer, **headers: str) -> str | None:
    """What the service does for one request."""
    with tracer.request(scope(**headers)) as span:
        with tracer.span("decode", bytes=4711):
            time.sleep(0.002)
        now = time.perf_counter()
        tracer.record("queue", now - 0.03, now - 0.02)
        tracer.record("inference", now - 0.02, now, batch_size=3)
        span.set(images=1, model="tiny:1")
        span.answered("/v1/predict", 200)
        return span.trace_id


def test_a_request_is_a_span_with_a_child_for_each_thing_done(tracer, collector):
    trace = predict(tracer)
    tracer.close()
    assert collector.paths == ["/v1/traces"]
    spans = collector.spans
    assert spans.keys() == {"POST /v1/predict", "decode", "queue", "inference"}
    root = spans.pop("POST /v1/predict")
    assert root.kind == Sent.SPAN_KIND_SERVER
    assert root.parent_span_id == b""
    assert root.trace_id.hex() == trace
    assert attributes(root) == {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "pneumo.images": 1,
        "pneumo.model": "tiny:1",
    }
    assert {span.parent_span_id for span in spans.values()} == {root.span_id}
    assert attributes(spans["decode"]) == {"pneumo.bytes": 4711}
    assert attributes(spans["inference"]) == {"pneumo.batch_size": 3}


def test_what_was_done_elsewhere_keeps_its_times(tracer, collector):
    before = time.time()
    predict(tracer)
    tracer.close()
    queue, inference = collector.spans["queue"], collector.spans["inference"]
    assert (queue.end_time_unix_nano - queue.start_time_unix_nano) / 1e9 == pytest.approx(0.01, abs=1e-6)
    assert (inference.end_time_unix_nano - inference.start_time_unix_nano) / 1e9 == pytest.approx(0.02, abs=1e-6)
    assert inference.start_time_unix_nano == pytest.approx(queue.end_time_unix_nano, abs=1e6)
    assert inference.end_time_unix_nano / 1e9 == pytest.approx(before, abs=5)


def test_a_request_belongs_to_the_trace_that_it_names(tracer, collector):
    assert predict(tracer, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate=f"x={SECRET}") == TRACE
    tracer.close()
    assert {span.trace_id.hex() for span in collector.spans.values()} == {TRACE}
    assert collector.spans["POST /v1/predict"].parent_span_id.hex() == PARENT
    assert SECRET.encode() not in collector.bodies[0]


def test_a_trace_that_is_not_sampled_is_not_sent(tracer, collector):
    predict(tracer, traceparent=f"00-{TRACE}-{PARENT}-00")
    tracer.close()
    assert collector.bodies == []


@pytest.fixture(scope="module")
def unread() -> Iterator[Tracer]:
    """A tracer whose collector is not there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        tracer = from_environment()
    yield tracer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "FLUSH_S", 0.0)
        tracer.close()


@given(
    st.binary(max_size=80) | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?", fullmatch=True)
)
def test_any_traceparent_is_answered(unread, header):
    given_scope = scope() | {"headers": [(b"traceparent", header)]}
    with unread.request(given_scope) as span:
        assert re.fullmatch("[0-9a-f]{32}", span.trace_id)


def test_children_follow_into_tasks_and_threads(tracer, collector):
    async def one(number: int) -> None:
        def decode() -> None:
            with tracer.span(f"decode {number}"):
                pass

        await anyio.to_thread.run_sync(decode)
        tracer.record(f"inference {number}", 0, 1)

    async def request() -> None:
        with tracer.request(scope()) as span:
            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(one, number)
            span.answered("/v1/predict", 200)

    anyio.run(request)
    tracer.close()
    spans = collector.spans
    root = spans.pop("POST /v1/predict")
    assert len(spans) == 6
    assert {span.parent_span_id for span in spans.values()} == {root.span_id}


def test_requests_at_the_same_time_are_traces_of_their_own(tracer, collector):
    async def request(number: int) -> None:
        with tracer.request(scope()) as span:
            await anyio.sleep(0.01)
            with tracer.span(f"decode {number}"):
                await anyio.sleep(0.01)
            span.answered(f"/v1/{number}", 200)

    async def both() -> None:
        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(request, number)

    anyio.run(both)
    tracer.close()
    for number in range(2):
        assert collector.spans[f"decode {number}"].parent_span_id == collector.spans[f"POST /v1/{number}"].span_id


def test_a_failure_is_told_by_kind_without_its_words(tracer, collector):
    def fail() -> None:
        with tracer.request(scope(f"/{SECRET}", SECRET, cookie=SECRET)) as span:
            span.answered("-", 404)
            with tracer.span("decode"):
                raise ValueError(SECRET)

    with pytest.raises(ValueError, match=SECRET):
        fail()
    with tracer.request(scope()) as span:
        span.answered("/v1/predict", 503)
    tracer.close()
    assert collector.spans.keys() == {"_OTHER", "decode", "POST /v1/predict"}
    for name, kind in (("decode", "ValueError"), ("_OTHER", "ValueError"), ("POST /v1/predict", "503")):
        assert attributes(collector.spans[name])["error.type"] == kind
        assert collector.spans[name].status.code == Status.STATUS_CODE_ERROR
        assert not collector.spans[name].events
    assert not [body for body in collector.bodies if SECRET.encode() in body]


def test_a_request_that_was_refused_is_no_failure(tracer, collector):
    with tracer.request(scope()) as span:
        span.answered("/v1/predict", 415)
    tracer.close()
    assert collector.spans["POST /v1/predict"].status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize("root", ["", "/xray"])
@pytest.mark.parametrize(
    "path",
    [
        *("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"),
        *("/v2/models/tiny/ready", "/v2/models/tiny/versions/1/ready"),
    ],
)
def test_probes_are_not_traced(tracer, collector, path, root):
    with tracer.request(scope(f"{root}{path}", "GET") | {"root_path": root}) as span:
        tracer.record("queue", 0, 1)
        span.answered(path, 200)
    tracer.close()
    assert collector.bodies == []


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", "", "pneumo"),
        ("OTEL_SERVICE_NAME", "ward 3", "ward 3"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=ward 4", "ward 4"),
    ],
)
def test_the_service_has_a_name_that_the_user_may_change(collector, monkeypatch, variable, value, expected):
    monkeypatch.setenv(variable, value)
    tracer = from_environment()
    predict(tracer)
    tracer.close()
    (resource,) = collector.resources
    assert {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"] == expected


def test_the_whole_address_of_a_collector_can_be_given(collector, monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.address}/in")
    tracer = from_environment()
    predict(tracer)
    tracer.close()
    assert collector.paths == ["/in"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ],
)
def test_where_no_traces_are_asked_for_nothing_is_recorded(collector, monkeypatch, caplog, variable, value):
    monkeypatch.setenv(variable, value)
    tracer = from_environment()
    assert predict(tracer) is None
    tracer.close()
    warned = ["no traces: OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, with the collector's port for it (4318)"]
    assert [record.getMessage() for record in caplog.records] == (warned if value == "grpc" else [])


def test_without_an_endpoint_nothing_is_imported():
    program = (
        "import sys; from pneumo.serving.telemetry import tracing; tracer = tracing.from_environment()\n"
        "with tracer.request({'path': '/', 'method': 'GET', 'headers': []}), tracer.span('decode'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=clean, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_missing_packages_are_one_line_with_the_fix(collector, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert predict(from_environment()) is None
    (record,) = caplog.records
    assert re.fullmatch(
        r"no traces: OTEL_EXPORTER_OTLP_ENDPOINT is set, but opentelemetry\S+ is not installed; "
        r"run `pip install '\.\[tracing\]'` in a checkout of pneumo",
        record.getMessage(),
    )


def test_a_collector_that_refuses_is_told_of_once_and_so_is_its_return(collector, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    tracer = from_environment()

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records]

    def came(count: int) -> bool:
        return len(collector.bodies) >= count

    collector.status = 400
    for count in (1, 2, 3):
        predict(tracer)
        until(partial(came, count))
    until(lambda: len(said()) == 1)
    collector.status = 200
    predict(tracer)
    until(lambda: len(said()) == 2)
    tracer.close()
    assert said() == [
        "traces cannot be sent to OTEL_EXPORTER_OTLP_ENDPOINT; requests are still answered",
        "traces are sent to OTEL_EXPORTER_OTLP_ENDPOINT again",
    ]


@pytest.fixture
def silent() -> Iterator[str]:
    """A collector that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


SERVICE = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from pneumo.serving.telemetry import logs, tracing
logs.configure("json")

def serve(address):
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = address
    tracer = tracing.from_environment()
    for _ in range(3000):
        with tracer.request({"path": "/v1/predict", "method": "POST", "headers": []}) as span:
            with tracer.span("decode"):
                pass
            span.answered("/v1/predict", 200)
    return tracer.close

with ThreadPoolExecutor() as pool:
    ends = [pool.submit(end) for end in map(serve, sys.argv[1:])]
for address, end in zip(sys.argv[1:], ends):
    end.result()
    print(address, flush=True)
"""


def test_a_collector_that_is_not_there_holds_up_neither_requests_nor_the_end(silent):
    addresses = ["http://127.0.0.1:9", silent, "http://collector.invalid:4318", "collector"]
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, *addresses], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.split() == addresses
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= len(addresses)


def test_other_loggers_keep_their_levels(tracer):
    assert logging.getLogger("opentelemetry.sdk.trace").getEffectiveLevel() == logging.getLogger().level
