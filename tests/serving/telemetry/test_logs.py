import base64
import contextlib
import io
import itertools
import json
import logging
import os
import re
import select
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from starlette.responses import StreamingResponse

from pneumo.serving.contracts import problems
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.telemetry.logs import RequestFields, configure, log_request
from tests.support.paths import ROOT
from tests.support.waiting import until

LogFormat = Literal["text", "json"]

SECRET = "Xenia_Quist_1950"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
REQUEST = RequestFields(
    "abc", "POST", "/v1/predict", 200, 12.3456, images=2, bytes=4711, model="tiny:1", lane="champion"
)


@pytest.fixture
def written() -> Iterator[Callable[[LogFormat], io.StringIO]]:
    """`written("json")` configures the log and gives what it is written to; afterwards all is as it was."""
    names = ("", "pneumo", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]

    def start(log_format: LogFormat) -> io.StringIO:
        for logger in loggers[2:]:
            logger.setLevel(logging.NOTSET)  # a server of another test may have left another level, DVC does
        stream = io.StringIO()
        configure(log_format, stream)
        return stream

    yield start
    logging.captureWarnings(False)
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def records(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_request_is_one_line_of_json_with_what_is_known_of_it(written):
    stream = written("json")
    log_request(REQUEST)
    (line,) = records(stream)
    assert re.fullmatch(TIME, line.pop("time"))
    assert line == {
        "level": "INFO",
        "logger": "pneumo.request",
        "message": "abc POST /v1/predict 200 12.3 ms",
        "request_id": "abc",
        "method": "POST",
        "route": "/v1/predict",
        "status": 200,
        "duration_ms": 12.35,
        "images": 2,
        "bytes": 4711,
        "model": "tiny:1",
        "lane": "champion",
    }


def test_a_request_is_one_line_of_text(written):
    stream = written("text")
    log_request(REQUEST)
    said = "abc POST /v1/predict 200 12.3 ms images=2 bytes=4711 model=tiny:1 lane=champion"
    assert re.fullmatch(rf"{TIME} INFO pneumo\.request: {re.escape(said)}\n", stream.getvalue())


def test_requests_that_the_service_failed_are_warnings(written):
    stream = written("json")
    for status in (200, 404, 500, 503):
        log_request(RequestFields("abc", "GET", "-", status, 1.0))
    assert [line["level"] for line in records(stream)] == ["INFO", "INFO", "WARNING", "WARNING"]


def test_a_method_that_a_client_made_up_is_not_logged(written):
    stream = written("json")
    log_request(RequestFields("abc", SECRET, "-", 405, 1.0))
    assert records(stream)[0]["method"] == "_OTHER"
    assert SECRET not in stream.getvalue()


def test_times_are_utc(written):
    stream = written("json")
    before = time.time()
    log_request(REQUEST)
    written_at = records(stream)[0]["time"]
    assert time.strftime("%Y-%m-%dT%H", time.gmtime(before)) == written_at[:13]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_one_record_is_one_line_whatever_it_says(written, text):
    for log_format in ("text", "json"):
        stream = written(log_format)
        logging.getLogger("pneumo.service").error("%s", text)
        assert len(stream.getvalue().splitlines()) == 1
    assert records(stream)[0]["message"] == text.strip()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_of_an_exception_type_and_place_are_shown(written, log_format):
    stream = written(log_format)
    for name in ("pneumo.service", "uvicorn.error"):
        try:
            {**problems.KINDS}[SECRET]  # type: ignore[index]
        except KeyError:
            logging.getLogger(name).exception("Exception in ASGI application\n")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert SECRET not in stream.getvalue()
    assert all("Exception in ASGI application" in line and "KeyError" in line for line in lines)
    assert all(re.search(r"telemetry/test_logs\.py:\d+", line) for line in lines)


def test_the_place_is_where_our_own_code_was_left(written):
    stream = written("json")
    try:
        RequestFields("abc", "GET", "-", 200, "long")  # type: ignore[arg-type]
        log_request(RequestFields("abc", "GET", "-", 200, "long"))  # type: ignore[arg-type]
    except TypeError:
        logging.getLogger("pneumo.service").exception("failed")
    line = records(stream)[-1]
    assert (line["exception"], line["message"]) == ("TypeError", "failed")
    assert re.fullmatch(r"serving/telemetry/logs\.py:\d+", line["place"])


def test_messages_of_other_libraries_are_left_out_and_where_they_came_from_is_not(written):
    stream = written("json")
    logging.getLogger("some_library").warning("Invalid value for VR UI: '%s'", SECRET)
    logging.getLogger("asyncio").error(f"Task exception was never retrieved: ValueError('{SECRET}')")
    logging.getLogger("PIL.TiffImagePlugin").info(SECRET)
    lines = records(stream)
    assert [(line["level"], line["logger"]) for line in lines] == [("WARNING", "some_library"), ("ERROR", "asyncio")]
    assert all("telemetry/test_logs.py:" in line["message"] for line in lines)
    assert SECRET not in stream.getvalue()


def test_warnings_are_shown_by_kind_and_place(written):
    stream = written("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(f"Invalid value for VR UI: '{SECRET}'", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    (line,) = records(stream)
    assert re.fullmatch(r"UserWarning at telemetry/test_logs\.py:\d+", line["message"])
    assert line["logger"] == "py.warnings"


def test_a_traceback_that_the_server_logs_as_a_message_is_left_out(written):
    stream = written("json")
    logging.getLogger("uvicorn.error").error(
        'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nValueError: ' + SECRET + "\n"
    )
    assert records(stream)[0]["message"] == "ValueError (traceback left out)"


def test_a_thread_that_fails_is_told_of_without_what_it_held(written, capfd):
    stream = written("json")

    def fail() -> None:
        raise ValueError(SECRET)

    thread = threading.Thread(target=fail, name="network")
    thread.start()
    thread.join()
    (line,) = records(stream)
    assert re.fullmatch(r"the thread network failed: ValueError at telemetry/test_logs\.py:\d+", line["message"])
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def handler(written) -> Callable[[LogFormat], tuple[logging.Handler, io.StringIO]]:
    def start(log_format: LogFormat) -> tuple[logging.Handler, io.StringIO]:
        stream = written(log_format)
        (ours,) = [each for each in logging.getLogger().handlers if getattr(each, "stream", None) is stream]
        return ours, stream

    return start


def test_a_call_with_wrong_arguments_shows_none_of_them(handler, capfd):
    ours, stream = handler("json")
    ours.handle(logging.LogRecord("pneumo.service", logging.ERROR, __file__, 7, "%d images", (SECRET,), None))
    assert records(stream)[0]["message"] == "message left out, its arguments do not fit (telemetry/test_logs.py:7)"
    assert capfd.readouterr() == ("", "")


def test_where_lines_cannot_be_written_nothing_is_printed_instead(handler, capfd):
    ours, stream = handler("text")
    stream.close()
    ours.handle(logging.LogRecord("pneumo.service", logging.ERROR, __file__, 7, "%s", (SECRET,), None))
    assert capfd.readouterr() == ("", "")


def test_the_format_is_a_setting():
    assert Settings().log_format == "text"
    assert Settings.from_environment({"PNEUMO_LOG_FORMAT": "json"}).log_format == "json"
    with pytest.raises(InputError, match="PNEUMO_LOG_FORMAT='xml'"):
        Settings.from_environment({"PNEUMO_LOG_FORMAT": "xml"})


def test_configured_again_it_writes_once_and_leaves_handlers_of_others(written):
    root, other = logging.getLogger(), logging.NullHandler()
    root.addHandler(other)
    plain = logging.StreamHandler(io.StringIO())
    root.addHandler(plain)
    first, second = written("text"), written("json")
    log_request(REQUEST)
    assert first.getvalue() == ""
    assert len(records(second)) == 1
    assert other in root.handlers
    assert plain not in root.handlers


class Running:
    """The service on a real server, with every log line that uvicorn can write asked for."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(app, port=0, log_config=None, log_level="trace")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        until(lambda: self.server.started)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def send(self, raw: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(raw)
            connection.settimeout(0.3)
            try:
                while connection.recv(4096):
                    pass
            except TimeoutError:
                pass

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()


def secret_images() -> list[tuple[str, bytes]]:
    """Images that name somebody: whole ones, broken ones, and what only looks like one."""
    known = PngImagePlugin.PngInfo()
    known.add_text("Patient", SECRET)
    made = {}
    for kind, options in (
        ("PNG", {"pnginfo": known}),
        ("TIFF", {"description": SECRET}),
        ("JPEG", {"comment": SECRET}),
    ):
        buffer = io.BytesIO()
        Image.effect_noise((40, 50), 50).save(buffer, kind, **options)
        made[kind] = buffer.getvalue()
        assert SECRET.encode() in made[kind]
    element = b"\x10\x00\x10\x00PN" + len(SECRET).to_bytes(2, "little") + SECRET.encode()
    return [
        *((f"{SECRET}.{kind.lower()}", data) for kind, data in made.items()),
        *((f"{SECRET}.{kind.lower()}", data[:-30]) for kind, data in made.items()),
        *((f"{SECRET}.{kind.lower()}", data[:60] + SECRET.encode() + data[60:]) for kind, data in made.items()),
        (f"{SECRET}.dcm", b"\0" * 128 + b"DICM" + element),
        (f"{SECRET}.zip", b"PK\x03\x04" + SECRET.encode()),
        (f"{SECRET}.txt", SECRET.encode()),
    ]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_that_a_client_sends_is_logged(written, bundle, capfd, log_format):
    app = create_app(bundle)

    async def bug(_request):
        raise RuntimeError(SECRET)

    async def half(_request):
        async def content():
            yield b"half"
            raise RuntimeError(SECRET)

        return StreamingResponse(content())

    app.add_route("/bug", bug)
    app.add_route("/half", half)
    stream = written(log_format)
    running = Running(app)
    headers = {
        "Authorization": f"Bearer {SECRET}",
        "X-API-Key": SECRET,
        "Cookie": f"name={SECRET}",
        "User-Agent": SECRET,
        "Referer": f"http://x/{SECRET}",
        "X-Request-ID": f"{SECRET} of ward 3",
        "X-Forwarded-For": SECRET,
        "traceparent": f"00-{SECRET}",
        "Accept": f"application/openmetrics-text;version={SECRET}",
    }
    sent = 0
    with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", headers=headers, timeout=30) as client:
        while client.get("/readyz").status_code == 503:
            sent += 1
            time.sleep(0.05)
        paths = [*app.openapi()["paths"], "/", "/docs", f"/{SECRET}", f"/v1/{SECRET}/predict", "/bug", "/half"]
        for path, method in itertools.product(paths, ("GET", "POST", "PUT", "OPTIONS")):
            address = re.sub(r"\{\w+\}", SECRET, path)
            cut = (httpx.RemoteProtocolError, httpx.ReadError)  # cut short, or reset with its body unread
            with contextlib.suppress(*(cut if path == "/half" else ())):
                client.request(method, address, params={"q": SECRET}, content=SECRET.encode())
            sent += 1
        for name, data in secret_images():
            client.post("/v1/predict", files={"file": (name, data, f"image/{SECRET}")})
            client.post("/v1/predict", files={SECRET: (name, data)})
            client.post("/v1/predict", content=data, headers={"Content-Type": "application/octet-stream"})
            client.post(
                "/v1/predict", content=data, headers={"Content-Type": f"multipart/form-data; boundary={SECRET}"}
            )
            client.post("/v1/predict", json={"images": [{"filename": name, "data": base64.b64encode(data).decode()}]})
            client.post("/v1/predict", json={"images": [{SECRET: name, "data": SECRET}], SECRET: SECRET})
            sent += 6
    for raw in (
        f"GET /{SECRET} HTTP/9.9\r\n\r\n",
        f"GET /{SECRET} HTTP/1.1\r\n{SECRET}\r\n\r\n",
        f"{SECRET} / HTTP/1.1\r\nHost: x\r\n\r\n",
        f"POST /v1/predict HTTP/1.1\r\nHost: {SECRET}\r\nContent-Length: 999\r\n\r\n{SECRET}",
        f"GET /{SECRET} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(b'x' * 16).decode()}\r\n\r\n",
    ):
        running.send(raw.encode())
    running.stop()
    out = stream.getvalue() + "".join(capfd.readouterr())
    assert len(stream.getvalue().splitlines()) >= sent
    assert "RuntimeError" in out
    for form in (SECRET, "Xenia", "Quist", base64.b64encode(SECRET.encode()).decode()[:12], SECRET.encode().hex()):
        assert form.lower() not in out.lower()
    assert "127.0.0.1" not in out
    assert str(ROOT) not in out


def test_lines_that_nobody_reads_are_dropped_and_counted(written, monkeypatch):
    written("text")  # puts the loggers back afterwards
    counted: list[None] = []
    monkeypatch.setattr("pneumo.serving.telemetry.logs.WAITING", 10)
    monkeypatch.setattr("pneumo.serving.telemetry.logs.on_dropped", {lambda: counted.append(None)})
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader) as lines:
        monkeypatch.setattr("sys.stderr", stream)
        configure("text")
        log = logging.getLogger("pneumo.service")
        log.warning("first %s", "x" * 200_000)  # no pipe holds it
        assert select.select([reader], [], [], 10)[0], "the thread has begun to write, and waits"
        for number in range(500):
            log.warning("%d", number)
        assert len(counted) == 490
        received = [lines.readline() for _ in range(12)]
        log.warning("last")
        received.append(lines.readline())
    told = [line.partition(": ")[2] or line for line in received]
    assert told[0].startswith("first xxx")
    assert told[1:] == [
        *(f"{number}\n" for number in range(10)),
        "490 log lines were dropped, since nobody read them\n",
        "last\n",
    ]


def handlers() -> list[Any]:
    """The handlers of the log that write in a thread of their own."""
    return [handler for handler in logging.getLogger().handlers if hasattr(handler, "_lines")]
