"""One sign-in for all pages: a key once, then a signed cookie; and what others cannot do with it."""

import logging
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pneumo.serving.access import authentication, sessions
from pneumo.serving.access.api_keys import add_key, read_keys, revoke_key
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from tests.support.waiting import until

SITE = "https://xray.example"
OWN = {"Origin": SITE}
PAGE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def key(folder) -> str:
    return add_key(folder / "keys.yaml", "ward-3")[1]


@pytest.fixture(scope="module")
def app(bundle, folder, key):
    settings = Settings(threads=1, auth="on", keys=folder / "keys.yaml", log_url=f"sqlite:///{folder / 'log.sqlite3'}")
    return create_app(bundle, settings.model_copy(update={"log_spool": folder / "spool"}))


@pytest.fixture(scope="module")
def running(app):
    with TestClient(app, base_url=SITE, raise_server_exceptions=False) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield


@pytest.fixture
def browser(app, running) -> TestClient:
    """A browser without a session."""
    return TestClient(app, base_url=SITE, raise_server_exceptions=False, follow_redirects=False)


def sign_in(browser: TestClient, key: str, **headers: str):
    return browser.post("/sign-in", data={"key": key}, headers=OWN | headers)


def test_a_key_once_then_every_page_and_request(browser, key, png):
    assert browser.get("/v1/model").status_code == 401
    answer = sign_in(browser, key)
    assert (answer.status_code, answer.content) == (204, b"")
    assert browser.get("/v1/model").status_code == 200
    assert browser.get("/drift", headers=PAGE).status_code == 200
    assert browser.post("/v1/predict", files={"file": png}, headers=OWN).status_code == 200
    assert (
        browser.post("/v1/explain", files={"file": png}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    )


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites_and_ends(browser, key):
    cookie = sign_in(browser, key).headers["set-cookie"]
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert attributes == {"httponly", "secure", "samesite=strict", "path=/", f"max-age={sessions.LIFETIME_S}"}
    assert key not in cookie
    assert not set(key.split("_")[2:]) & set(cookie.replace("=", ".").split("."))


def test_without_tls_the_cookie_is_sent_all_the_same(app, key, running):
    plain = TestClient(app, base_url="http://10.0.0.5:8000")
    cookie = plain.post("/sign-in", data={"key": key}, headers={"Origin": "http://10.0.0.5:8000"}).headers["set-cookie"]
    assert "secure" not in cookie.lower()
    assert plain.get("/v1/model").status_code == 200
    behind = plain.post("/sign-in", data={"key": key}, headers={"Origin": "https://10.0.0.5:8000"})
    assert "secure" in behind.headers["set-cookie"].lower()  # a proxy took TLS off


def test_a_form_leads_back_to_the_page(browser, key):
    away = browser.get("/drift?version=tiny:1", headers=PAGE)
    assert (away.status_code, away.headers["location"]) == (303, "sign-in?next=drift%3Fversion%3Dtiny%3A1")
    form = browser.get("/sign-in?next=drift%3Fversion%3Dtiny%3A1", headers=PAGE)
    assert 'name="next" value="drift?version=tiny:1"' in form.text
    data = {"key": f" {key} ", "next": "drift?version=tiny:1"}
    back = browser.post("/sign-in", data=data, headers=OWN | PAGE)
    assert (back.status_code, back.headers["location"]) == (303, "./drift?version=tiny:1")
    assert "Sign out" in browser.get("/drift?version=tiny:1", headers=PAGE).text
    assert browser.get("/sign-in?next=drift", headers=PAGE).headers["location"] == "./drift"


@pytest.mark.parametrize(
    "back",
    [
        *(
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/drift",
            "javascript:alert(1)",
        ),
        *(
            "drift/../../evil",
            "..//evil.example",
            "drift\r\nSet-Cookie: a=b",
            "drift#x",
            "http:evil.example",
            "./drift",
        ),
        *("drift@evil.example", "%2f%2fevil.example", "\t//evil.example", "docs/", "?\nx"),
    ],
)
def test_a_sign_in_leads_to_no_other_site(browser, key, back):
    answer = browser.post("/sign-in", data={"key": key, "next": back}, headers=OWN | PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    page = TestClient(browser.app, base_url=SITE).get("/sign-in", params={"next": f'">{back}<script>'})
    assert f'">{back}<script>' not in page.text


def test_no_redirect_takes_the_host_of_a_request(browser, key):
    for path in ("/drift", "/drift/reports/1", "/v1/predict/", "/v2/", "/drift/", "/docs/", "/static", "/sign-in/"):
        answer = browser.get(path, headers=PAGE | {"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
        assert "evil" not in answer.headers.get("location", "") + answer.text, path
        assert "://" not in answer.headers.get("location", ""), path
    assert browser.get("/drift/reports/1", headers=PAGE).headers["location"].startswith("../../sign-in?next=")


def test_a_wrong_key_is_told_and_starts_no_session(browser, key):
    wrong = key[:-64] + "0" * 64
    answer = sign_in(browser, wrong)
    assert answer.status_code == 401
    assert "unknown API key" in answer.json()["detail"]
    page = sign_in(browser, wrong, Accept="text/html")
    assert (page.status_code, page.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert "Unknown API key" in page.text
    assert "set-cookie" not in page.headers | answer.headers
    assert wrong not in page.text + answer.text


def test_guesses_make_an_address_wait_at_the_sign_in_too(app, running, key):
    guesser = TestClient(app, base_url=SITE, client=("203.0.113.7", 1))
    statuses = [sign_in(guesser, "pneumo_guess").status_code for _ in range(22)]
    assert statuses[:20] == [401] * 20
    assert statuses[20:] == [429] * 2


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://xray.example"},
        {"Origin": "https://xray.example:8443"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://evil.xray.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_a_cookie_changes_nothing_for_a_page_of_another_site(browser, key, png, headers):
    sign_in(browser, key)
    for path in ("/v1/predict", "/v1/explain", "/v1/feedback", "/v2/models/tiny/infer", "/sign-out"):
        answer = browser.post(path, files={"file": png}, headers=headers)
        assert answer.status_code == 403, path
        assert "set-cookie" not in answer.headers
    assert sign_in(TestClient(browser.app, base_url=SITE), key, Origin="https://evil.example").status_code == 403
    assert browser.post("/v1/predict", files={"file": png}, headers=headers | {"X-API-Key": key}).status_code == 200


def test_a_cookie_reads_nothing_for_a_page_of_another_site(browser, key):
    sign_in(browser, key)
    assert browser.get("/v1/model", headers={"Origin": "https://evil.example"}).status_code == 403
    assert (
        browser.get("/drift", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}).status_code == 403
    )


def test_a_link_of_another_site_loads_the_page_once_more_so_that_the_cookie_comes(browser):
    linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    answer = browser.get("/drift", headers=PAGE | linked)
    assert (answer.status_code, 'http-equiv="refresh" content="0"' in answer.text) == (401, True)
    assert browser.get("/drift", headers=PAGE | linked | {"Sec-Fetch-Site": "same-origin"}).status_code == 303


def test_programs_are_not_led_to_the_sign_in(browser):
    assert browser.get("/drift").headers["www-authenticate"].startswith("Basic ")
    script = browser.get("/drift", headers={"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"})
    assert script.headers["www-authenticate"].startswith("Bearer ")  # no window of the browser's own


def forged(cookie: str) -> list[str]:
    public, expires, signature = cookie.split(".")
    later = str(int(expires) + 3600)
    return [
        *("", "x", "..", f"{public}.{expires}", f"{public}.{expires}.", f"{public}.{expires}.{'0' * 64}"),
        *(f"{public}.{later}.{signature}", f"{'0' * 16}.{expires}.{signature}", f"{public}.{expires}.{signature[:-1]}"),
        *(
            f"{public}.{expires}.{signature.upper()}",
            f"{public}.+{expires}.{signature}",
            f"{public}.{expires}.{signature}.",
        ),
        *(f" {public}.{expires}.{signature}é", f"{public}.٣.{signature}", "a" * 8000),
    ]


def test_no_forged_or_changed_cookie_is_a_session(browser, key):
    sign_in(browser, key)
    cookie = browser.cookies[sessions.COOKIE]
    other = TestClient(browser.app, base_url=SITE)
    for each in forged(cookie):
        headers = {b"Cookie": f"{sessions.COOKIE}={each}".encode()}
        assert other.get("/v1/model", headers=headers).status_code == 401, each
    assert other.get("/v1/model", headers={"Cookie": f"a=b; {sessions.COOKIE}={cookie}; c"}).status_code == 200


@pytest.fixture
def wait(monkeypatch):
    """`wait(seconds)` lets the clock by which requests are judged run ahead of the time."""

    def ahead(seconds: float) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz) + timedelta(seconds=seconds)

        monkeypatch.setattr(authentication, "datetime", Clock)

    return ahead


def test_a_session_ends_after_its_time(browser, key, wait):
    sign_in(browser, key)
    cookie = {"Cookie": f"{sessions.COOKIE}={browser.cookies[sessions.COOKIE]}"}
    wait(sessions.LIFETIME_S - 600)
    assert browser.get("/v1/model", headers=cookie).status_code == 200
    wait(sessions.LIFETIME_S)
    assert browser.get("/v1/model", headers=cookie).status_code == 401


def test_a_removed_or_expired_key_ends_its_sessions_and_no_others(bundle, tmp_path, key, png, wait):
    path = tmp_path / "keys.yaml"
    _, first = add_key(path, "first")
    _, second = add_key(path, "second")
    _, short = add_key(path, "short", lifetime=timedelta(hours=1))
    workers = [create_app(bundle, Settings(threads=1, auth="on", keys=path)) for _ in range(2)]
    with TestClient(workers[0], base_url=SITE) as one, TestClient(workers[1], base_url=SITE) as other:
        until(lambda: one.get("/readyz").status_code == other.get("/readyz").status_code == 200)
        cookies = []
        for each in (first, second, short):
            assert sign_in(one, each).status_code == 204
            cookies.append({"Cookie": f"{sessions.COOKIE}={one.cookies[sessions.COOKIE]}"})
            one.cookies.clear()
        for cookie in cookies:  # another worker accepts what this one gave
            assert other.get("/v1/model", headers=cookie).status_code == 200
        revoke_key(path, "first")
        until(lambda: other.get("/v1/model", headers=cookies[0]).status_code == 401)
        assert other.get("/v1/model", headers=cookies[1]).status_code == 200
        wait(3600)
        assert other.get("/v1/model", headers=cookies[1]).status_code == 200
        assert other.get("/v1/model", headers=cookies[2]).status_code == 401
        add_key(path, "first")  # another key of the same name is another key
        time.sleep(1.1)
        assert other.get("/v1/model", headers=cookies[0]).status_code == 401


def test_signing_out_removes_the_cookie(browser, key):
    sign_in(browser, key)
    answer = browser.post("/sign-out", headers=OWN | PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    assert not browser.cookies
    assert browser.get("/v1/model").status_code == 401


def test_pages_show_the_way_in_and_out(browser, key):
    assert 'href="sign-in"' in browser.get("/").text
    sign_in(browser, key)
    assert 'action="sign-out"' in browser.get("/").text
    assert 'action="sign-out"' in browser.get("/drift", headers=PAGE).text


def test_logs_name_the_key_and_hold_nothing_of_it(browser, key, caplog):
    with caplog.at_level(logging.DEBUG):
        sign_in(browser, key)
        cookie = browser.cookies[sessions.COOKIE]
        browser.get("/v1/model")
    ours = [record for record in caplog.records if record.name.startswith("pneumo")]
    assert [record.request_fields.get("key") for record in ours] == ["ward-3", "ward-3"]
    for secret in (key, key.split("_")[2], cookie, cookie.split(".")[2]):
        assert not [record for record in ours if secret in record.getMessage() + str(record.__dict__)]


def test_a_large_form_is_refused(browser):
    assert browser.post("/sign-in", data={"key": "x" * 5000}, headers=OWN).status_code == 413


def test_a_service_without_keys_asks_for_none(bundle, started):
    with started(create_app(bundle, Settings(threads=1))) as client:
        client.follow_redirects = False
        assert client.get("/sign-in?next=docs").headers["location"] == "./docs"
        answer = client.post("/sign-in", data={"key": "x"}, headers={"Sec-Fetch-Site": "same-origin"})
        assert (answer.status_code, "set-cookie" in answer.headers) == (204, False)
        assert "sign-" not in client.get("/").text.replace("sign-in", "sign-", 0).partition("key-dialog")[0]


def test_the_key_file_holds_what_signs_and_no_key(folder, key):
    assert key not in (folder / "keys.yaml").read_text()
    assert (folder / "keys.yaml").stat().st_mode & 0o077 == 0
    assert read_keys(folder / "keys.yaml").keys
