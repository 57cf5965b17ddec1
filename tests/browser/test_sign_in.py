"""One sign-in for all pages, and what pages of other sites can do, in a real browser."""

import contextlib
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from pneumo.serving.access.api_keys import add_key
from tests.support.servers import served

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)").expect
pytestmark = pytest.mark.browser


@contextlib.contextmanager
def other_site(html: str) -> Iterator[str]:
    """The address of a page on another site: `localhost`, where the service is `127.0.0.1`."""

    async def page(_request):
        return HTMLResponse(html)

    with served(Starlette(routes=[Route("/", page)])) as address:
        yield address.replace("127.0.0.1", "localhost")


@pytest.fixture
def locked(bundle, serve_bundle, tmp_path):
    """A service that needs a key, and the key."""
    _, key = add_key(tmp_path / "keys.yaml", "ward")
    log = {"log_url": f"sqlite:///{tmp_path / 'log.sqlite3'}", "log_spool": tmp_path / "spool"}
    with serve_bundle(bundle, auth="on", keys=tmp_path / "keys.yaml", **log) as site:
        yield site.address, key


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


def test_one_sign_in_opens_every_page(page, locked):
    address, key = locked
    page.goto(f"{address}/drift?version=tiny:1")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(f"{key[:-4]}0000")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Unknown API key")
    page.keyboard.type(key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Drift", exact=True)).to_be_visible()
    assert page.url == f"{address}/drift?version=tiny:1"
    page.get_by_role("link", name="Classifier").click()
    page.locator("#sample").click()
    expect(page.locator(".label-text")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    page.goto(f"{address}/drift")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_link_of_another_site_opens_the_page_of_who_is_signed_in(page, locked):
    address, key = locked
    with other_site(f'<a href="{address}/drift">Drift</a>') as link:
        page.goto(link)
        page.get_by_role("link").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.keyboard.type(key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Drift", exact=True)).to_be_visible()
        page.goto(link)
        page.get_by_role("link").click()
        expect(page.get_by_role("heading", name="Drift", exact=True)).to_be_visible()


ATTACK = """<script>
const image = new Uint8Array([1]);
const tries = ["/v1/predict", "/v1/explain", "/v1/feedback", "/v2/models/tiny/infer", "/sign-out"].map((path) =>
  fetch("ADDRESS" + path, {method: "POST", mode: "no-cors", credentials: "include", body: new Blob([image])}));
tries.push(fetch("ADDRESS/v1/model").then((answer) => answer.text()).then((text) => { document.title = text; }));
Promise.allSettled(tries).then(() => document.getElementById("form").submit());
</script><form id="form" method="post" enctype="multipart/form-data" action="ADDRESS/v1/predict">
<input name="file" value="x"></form>"""


def test_a_page_of_another_site_posts_and_reads_nothing(page, site):
    sent = []
    page.on("request", lambda request: sent.append(request.url.removeprefix(site.address)))
    before = len(site.bodies)
    with other_site(ATTACK.replace("ADDRESS", site.address)) as link:
        page.goto(link)
        expect(page.locator("body")).to_contain_text("a page of another site sent this request")
        assert page.title() == ""
    assert {"/v1/predict", "/v1/explain", "/v1/feedback", "/v2/models/tiny/infer", "/sign-out"} <= {*sent}
    assert len(site.bodies) == before  # nothing of them was even read


def test_a_name_that_is_rebound_to_this_machine_reads_nothing(browser, site):
    port = urlsplit(site.address).port
    arguments = ["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1"]
    rebound = browser.browser_type.launch(executable_path=shutil.which("chromium"), args=arguments)
    with contextlib.closing(rebound):
        page = rebound.new_page()
        for path in ("/", "/v1/model", "/drift"):
            assert page.goto(f"http://evil.example:{port}{path}").status == 421
        script = "fetch('/v1/predict', {method: 'POST', body: 'x'}).then((answer) => answer.status)"
        assert page.evaluate(script) == 421


def test_the_pages_work_behind_a_proxy_that_publishes_them_elsewhere(page, bundle, serve_bundle, tmp_path):
    log = {"log_url": f"sqlite:///{tmp_path / 'log.sqlite3'}", "log_spool": tmp_path / "spool"}
    with serve_bundle(bundle, root_path="/a/xray", **log) as site:
        failed = []
        page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
        page.goto(f"{site.address}/a/xray")
        assert page.url == f"{site.address}/a/xray/"
        page.locator("#sample").click()
        expect(page.locator(".label-text")).to_be_visible()
        page.get_by_role("link", name="Drift").click()
        expect(page.get_by_role("heading", name="Drift", exact=True)).to_be_visible()
        page.get_by_role("link", name="API docs").click()
        expect(page.get_by_text("/v1/predict").first).to_be_visible()
        assert not failed


def test_the_sign_in_fits_the_screen(page, locked):
    address, _ = locked
    page.goto(f"{address}/sign-in")
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
