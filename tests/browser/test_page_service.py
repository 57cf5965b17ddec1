"""What the page does when the service is busy, broken, locked, away or not ready."""

import re
from datetime import datetime, timedelta
from urllib.parse import parse_qs

import httpx
import pytest

from pneumo.serving.access.api_keys import add_key
from pneumo.serving.inference.service import State
from pneumo.serving.pages import upload_page

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)").expect
pytestmark = pytest.mark.browser

NOON = datetime(2026, 11, 24, 12)

PREDICT = "**/v1/predict*"


def test_two_images_are_sent_at_a_time(screen):
    under_way, most = set(), []

    def slow(route):
        under_way.add(route)
        most.append(len(under_way))
        if len(under_way) == 2:
            for each in tuple(under_way):
                under_way.discard(each)
                each.continue_()

    screen.page.route(PREDICT, slow)
    screen.choose(*(f"{number}.png" for number in range(6)))
    screen.settled(6)
    assert max(most) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_when_it_says(screen, problem, status):
    asked = []

    def busy_once(route):
        asked.append(1)
        if len(asked) > 1:
            route.continue_()
        else:
            route.fulfill(**problem(status, "Over capacity", "more is asked than can be done", retry_after=3))

    screen.page.route(PREDICT, busy_once)
    screen.page.clock.install(time=NOON)
    screen.page.clock.pause_at(NOON + timedelta(seconds=1))
    screen.choose("a.png")
    expect(screen.locate(".step")).to_have_text(re.compile(r"The service is busy: retrying in 3\Ws"))
    screen.page.clock.run_for(2_000)
    expect(screen.locate(".step")).to_have_text(re.compile(r"The service is busy: retrying in 1\Ws"))
    assert len(asked) == 1
    screen.page.clock.run_for(1_500)
    screen.settled(1)
    expect(screen.locate(".label-text")).to_be_visible()
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "title", "fix"),
    [
        (400, "The image cannot be read", "Export the image again"),
        (413, "Too large", "Save the image smaller"),
        (415, "Not an image", "Choose another file"),
    ],
)
def test_an_error_says_what_is_wrong_and_what_to_do(screen, status, title, fix):
    screen.refuse(PREDICT, status, title, "the reason for it")
    screen.choose("a.png")
    screen.settled(1)
    trouble = screen.locate(".trouble")
    expect(trouble.locator(".title")).to_have_text(title)
    expect(trouble.locator(".detail")).to_have_text("The reason for it.")
    expect(trouble.locator(".fix")).to_contain_text(fix)
    expect(trouble.locator(".again")).to_be_hidden()
    expect(screen.locate("#live")).to_have_text(f"a.png: {title}.")


def test_what_failed_can_be_tried_again(screen):
    screen.refuse(PREDICT, 500, "Internal Server Error", "the service failed")
    screen.choose("a.png")
    screen.settled(1)
    trouble = screen.locate(".trouble")
    expect(trouble.locator(".title")).to_have_text("The service failed")
    expect(trouble.locator(".fix")).to_contain_text("request id r7")
    screen.page.unroute(PREDICT)
    screen.locate(".again").click()
    expect(screen.locate(".label-text")).to_be_visible()
    expect(screen.locate(".trouble")).to_have_count(0)


def test_without_a_connection_images_wait_for_it(screen):
    screen.choose("a.png")
    screen.settled(1)
    screen.page.context.set_offline(True)
    screen.choose("b.png")
    expect(screen.locate(".row").filter(has_text="b.png").locator(".answer-text")).to_have_text(
        "Offline: waiting for the connection"
    )
    screen.page.context.set_offline(False)
    screen.settled(2)


def test_a_service_that_does_not_answer_is_told_and_can_be_tried_again(screen):
    screen.choose("a.png")
    screen.settled(1)
    screen.page.route(PREDICT, lambda route: route.abort())
    screen.choose("b.png")
    screen.open("b.png")
    expect(screen.locate(".step")).to_have_text(re.compile(r"The service does not answer: retrying in \d\Ws"))
    expect(screen.locate(".trouble .title")).to_have_text("The service does not answer")
    expect(screen.locate(".trouble .again")).to_be_visible()


@pytest.fixture
def presented(screen, problem) -> list[str]:
    """The keys that are presented to a service that wants `pneumo_right`."""
    presented = []

    def sign_in(route):
        presented.append(parse_qs(route.request.post_data)["key"][0])
        if presented[-1] == "pneumo_right":
            route.fulfill(status=204)
        else:
            route.fulfill(**problem(401, "Unauthorized", "this API key is not known here"))

    def gate(route):
        if "pneumo_right" in presented:
            route.continue_()
        else:
            route.fulfill(**problem(401, "Unauthorized", "this needs an API key"))

    screen.page.route("**/v1/**", gate)
    screen.page.route("**/sign-in", sign_in)
    return presented


def test_a_key_is_asked_for_once_and_kept_by_no_script(screen, presented):
    screen.choose("a.png", "b.png")
    expect(screen.locate("#key-dialog")).to_be_visible()
    expect(screen.locate("#key")).to_be_focused()
    expect(screen.locate("#key-reason")).to_have_text("")
    screen.page.keyboard.type("pneumo_wrong")
    screen.page.keyboard.press("Enter")
    expect(screen.locate("#key-reason")).to_have_text("This API key is not known here.")
    screen.page.keyboard.type("pneumo_right")
    screen.page.keyboard.press("Enter")
    screen.settled(2)
    expect(screen.locate(".row[data-state=error]")).to_have_count(0)
    assert presented == ["pneumo_wrong", "pneumo_right"]
    assert screen.page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [0, 0, ""]
    assert screen.locate("#key").input_value() == ""


def test_a_key_of_the_key_file_opens_the_service(open_screen, bundle, serve_bundle, tmp_path):
    _, key = add_key(tmp_path / "keys.yaml", "ward")
    with serve_bundle(bundle, auth="on", keys=tmp_path / "keys.yaml") as locked:
        screen = open_screen(locked.address)
        screen.choose("a.png")
        expect(screen.locate("#key-dialog")).to_be_visible()
        screen.page.keyboard.type(key)
        screen.page.keyboard.press("Enter")
        screen.settled(1)
        screen.locate(".show-heat").click()
        expect(screen.locate(".film-heat")).to_be_visible()
        expect(screen.page.get_by_role("button", name="Sign out")).to_be_visible()
        (cookie,) = screen.page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert screen.page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [0, 0, ""]
        screen.page.reload()
        screen.choose("b.png")
        screen.settled(1)
        expect(screen.locate("#key-dialog")).to_be_hidden()
        screen.page.get_by_role("button", name="Sign out").click()
        expect(screen.page.get_by_role("link", name="Sign in")).to_be_visible()
        screen.choose("c.png")
        expect(screen.locate("#key-dialog")).to_be_visible()
        screen.page.close()


@pytest.mark.usefixtures("presented")
def test_who_has_no_key_is_asked_once_for_all_images(screen):
    screen.choose(*(f"{number}.png" for number in range(4)))
    expect(screen.locate("#key-dialog")).to_be_visible()
    screen.page.keyboard.press("Escape")
    rows = screen.settled(4)
    expect(screen.locate("#key-dialog")).to_be_hidden()
    expect(rows.nth(3).locator(".flag")).to_have_text("This service requires an API key")
    screen.open("0.png")
    screen.locate(".again").click()
    expect(screen.locate("#key-dialog")).to_be_visible()
    screen.page.keyboard.type("pneumo_right")
    screen.page.keyboard.press("Enter")
    expect(screen.locate(".label-text")).to_be_visible()


def test_images_wait_for_a_model_that_is_being_loaded(screen, site, problem):
    loading = True
    without = upload_page.render_upload_page(None, State.LOADING, max_bytes=1_000_000)

    def root(route):
        if loading:
            route.fulfill(body=without, content_type="text/html; charset=utf-8")
        else:
            route.continue_()

    def not_ready(route):
        if loading:
            kind = "urn:pneumo:problem:not-ready"
            route.fulfill(**problem(503, "Not ready", "the service is loading", kind=kind, retry_after=1))
        else:
            route.continue_()

    screen.page.route(f"{site.address}/", root)
    screen.page.route("**/v1/**", not_ready)
    screen.page.route(
        "**/readyz",
        lambda route: route.fulfill(status=503, json={"status": "loading"}) if loading else route.continue_(),
    )
    screen.page.reload()
    expect(screen.locate("#model")).to_contain_text("The model is loading")
    screen.choose("a.png")
    expect(screen.locate(".step")).to_contain_text("The model is loading: retrying in")
    loading = False
    screen.settled(1)
    expect(screen.locate("#model")).to_contain_text("tiny")
    expect(screen.locate("#model")).to_have_attribute("data-version", "1")


def test_a_model_promoted_meanwhile_is_named_where_it_answered(screen, site):
    screen.choose("old.png")
    screen.settled(1)
    screen.answer_with(model={"name": "tiny", "version": "2", "positive_class": "PNEUMONIA"})
    html = (
        httpx.get(site.address).text.replace('data-version="1"', 'data-version="2"').replace("version 1", "version 2")
    )
    screen.page.route(
        f"{site.address}/", lambda route: route.fulfill(body=html, content_type="text/html; charset=utf-8")
    )
    screen.choose("new.png")
    expect(screen.locate("#model")).to_contain_text("version 2")
    screen.settled(2)
    expect(screen.locate(".foot")).to_contain_text("by tiny 1")
    screen.open("new.png")
    expect(screen.locate(".foot")).to_contain_text("Analysed in")
    expect(screen.locate(".foot")).not_to_contain_text("by tiny")
