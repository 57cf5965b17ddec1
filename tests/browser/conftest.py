"""The page in headless Chromium, from a real server: what its tests share."""

import contextlib
import csv
import io
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.predictions.store import LogStore
from tests.support import prediction_logs as simulated
from tests.support.bundles import make_bundle
from tests.support.waiting import until

MAX_BYTES = 3_000_000
MODEL = {"name": "tiny", "version": "1", "positive_class": "PNEUMONIA"}
PROBLEM = "application/problem+json"


@dataclass
class Site:
    """A running server.

    Attributes:
        address: Where it listens, without a slash at the end.
        bodies: Request bodies that came, as bytes.
    """

    address: str = ""
    bodies: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def serve(bundle: Bundle, **settings: object) -> Iterator[Site]:
    """A real server on a free port of this machine."""
    app = create_app(bundle, Settings.model_validate({"threads": 1, "max_bytes": MAX_BYTES, "reload_s": 0} | settings))
    site = Site()
    config = uvicorn.Config(
        _recorded(app, site.bodies),
        host="127.0.0.1",
        port=0,
        log_config=None,
        log_level="warning",
        access_log=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        site.address = _wait(lambda: f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
        _wait(lambda: httpx.get(f"{site.address}/readyz").raise_for_status())
        yield site
    finally:
        server.should_exit = True
        thread.join(timeout=20)


def _wait(attempt: Callable[[], Any]) -> Any:
    found: list[Any] = []

    def came() -> bool:
        with contextlib.suppress(Exception):
            found.append(attempt())
        return bool(found)

    until(came)
    return found[0]


def _recorded(app, bodies: list[bytes]):
    """The application, with every body that it is sent kept: browsers don't tell what is in a form with files."""

    async def recorded(scope, receive, send):
        body = bytearray()

        async def receive_and_keep():
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        await app(scope, receive_and_keep, send)
        if body:
            bodies.append(bytes(body))

    return recorded


class Screen:
    """The page as a person sees it.

    Attributes:
        page: Playwright's page.
        complaints: What the browser wrote to its console as errors.
        elsewhere: Requests to anything but the server.
    """

    def __init__(self, page, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        page.set_default_timeout(30_000)
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        own = (f"{address}/", "blob:", "data:")
        page.on("request", lambda request: None if request.url.startswith(own) else self.elsewhere.append(request.url))
        page.goto(address)

    def locate(self, selector: str):
        """What a CSS selector finds."""
        return self.page.locator(selector)

    def choose(self, *files: str | tuple[str, bytes]) -> None:
        """Choose files: by name alone an image, each another, or with what is in them."""
        named = [(each, encode(seed)) if isinstance(each, str) else each for seed, each in enumerate(files)]
        chosen = [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in named]
        self.page.set_input_files("#files", chosen)

    def settled(self, count: int):
        """The rows of the list, once so many have an answer or an error."""
        from playwright.sync_api import expect

        rows = self.locate(".row[data-state=done], .row[data-state=error]")
        expect(rows).to_have_count(count)
        return rows

    def open(self, name: str) -> None:
        """Show the image of this name large."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def answer_with(self, *, model: Mapping[str, object] = MODEL, **changes: object) -> None:
        """Let the service answer every image with the same prediction."""
        self.page.route("**/v1/predict*", lambda route: self.fulfill(route, model=model, **changes))

    def fulfill(self, route, *, model: Mapping[str, object] = MODEL, **changes: object) -> None:
        """Answer a request with a prediction."""
        prediction = {
            "index": 0,
            "filename": None,
            "label": "PNEUMONIA",
            "probability": 0.923,
            "probabilities": {"NORMAL": 0.077, "PNEUMONIA": 0.923},
            "threshold": 0.4,
            "certainty": "certain",
            "in_distribution": True,
            "outlier_score": 0.1,
            "elapsed_ms": 12.3,
            "remarks": [],
        }
        answer = {
            "request_id": "r1",
            "model": model,
            "predictions": [prediction | changes],
            "errors": [],
            "notice": "-",
        }
        route.fulfill(json=answer)

    def refuse(self, pattern: str, status: int, title: str, detail: str) -> None:
        """Let the service answer with a problem."""
        self.page.route(pattern, lambda route: route.fulfill(**describe(status, title, detail)))

    def downloaded(self) -> list[dict[str, str]]:
        """The rows of the table that the page gives."""
        with self.page.expect_download() as download:
            self.locate("#download").click()
        assert re.fullmatch(r"pneumo-[\dT-]+\.csv", download.value.suggested_filename)
        content = Path(download.value.path()).read_bytes().decode("utf-8-sig")
        return list(csv.DictReader(io.StringIO(content, newline="")))


def describe(
    status: int, title: str, detail: str, *, kind: str = "about:blank", retry_after: int | None = None
) -> dict:
    """An answer with a problem, as Playwright's `fulfill` takes it."""
    content = {"type": kind, "title": title, "status": status, "detail": detail, "request_id": "r7"}
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return {"status": status, "headers": headers, "content_type": PROBLEM, "body": json.dumps(content)}


def encode(seed: int = 0, *, kind: str = "PNG") -> bytes:
    """An image file of 120 x 96 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 200, (96, 120)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Bundle:
    """A sealed bundle that tests must not change."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def site(bundle) -> Iterator[Site]:
    """A server that tests share."""
    with serve(bundle) as site:
        yield site


@pytest.fixture(scope="session")
def drifted(tmp_path_factory) -> Iterator[str]:
    """The address of a service with the log of a stable detector that became darker."""
    pytest.importorskip("evidently", reason="evidently is not installed (extra drift)")
    folder = tmp_path_factory.mktemp("drifted")
    bundle = simulated.with_reference(make_bundle(folder / "tiny"))
    url = f"sqlite:///{folder / 'log.sqlite3'}"
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    simulated.simulate(LogStore(url), bundle, end=end, stable=8, darker=3, checked=3)
    with serve(bundle, log_url=url, log_spool=folder / "spool") as site:
        yield site.address


@pytest.fixture
def other_bundle(tmp_path: Path):
    """Makes another bundle with these changes."""
    return lambda **changes: make_bundle(tmp_path / "other", **changes)


@pytest.fixture(scope="session")
def serve_bundle():
    """Serves a bundle with these settings as a context."""
    return serve


@pytest.fixture
def film() -> Callable[..., bytes]:
    """Makes an image file from a seed."""
    return encode


@pytest.fixture
def problem() -> Callable[..., dict]:
    """Makes an answer with a problem, as Playwright's `fulfill` takes it."""
    return describe


@pytest.fixture
def open_screen(browser, site) -> Iterator[Callable[..., Screen]]:
    """Open the page with the browser's options; whatever it does must stay on the server and within its rules."""
    with contextlib.ExitStack() as contexts:
        screens = []

        def open_(address: str = site.address, **options: object) -> Screen:
            given = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | options
            context = contexts.enter_context(contextlib.closing(browser.new_context(**given)))
            context.add_init_script(
                "document.addEventListener('securitypolicyviolation', (e) => console.error(e.violatedDirective))"
            )
            screens.append(Screen(context.new_page(), address))
            return screens[-1]

        yield open_
    for screen in screens:
        assert not screen.elsewhere
        # Chromium writes a line for each answer that is an error; the page tells the person.
        assert not [text for text in screen.complaints if "Failed to load resource" not in text]


@pytest.fixture
def screen(open_screen) -> Screen:
    """The page on a desktop in light colours."""
    return open_screen()
