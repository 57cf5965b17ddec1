"""What a web page can make a browser send to a service without keys: refused unless the page is the service's own."""

import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pneumo.serving.access.api_keys import add_key
from pneumo.serving.access.proxies import PrefixMiddleware
from pneumo.serving.access.security import PROBES, HeadersMiddleware, build_middleware
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.settings import Settings
from tests.support.request_ids import Identity

LOOPBACK, OPEN = Settings(), Settings(host="0.0.0.0", auth="off")


async def answer(_request):
    return PlainTextResponse("answered")


def ask(
    given: Settings, method: str = "GET", path: str = "/v1/model", address: str = "127.0.0.1", **headers: Any
) -> int:
    """The status of a request that arrives at an address of this machine."""
    app = Starlette(
        routes=[Route("/{path:path}", answer, methods=["GET", "POST", "OPTIONS"])],
        middleware=[
            Middleware(PrefixMiddleware, root_path=given.root_path),
            Middleware(HeadersMiddleware),
            Middleware(Identity),
            *build_middleware(given),
        ],
    )
    given_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    client = TestClient(app, base_url=f"http://{address}:8000", client=("127.0.0.1", 1))
    return client.request(method, path, headers=given_headers).status_code


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "127.0.0.1",
        "localhost",
        "LOCALHOST:9",
        "localhost.:8000",
        "[::1]:8000",
        "127.8.8.8",
        "a.localhost",
    ],
)
def test_a_local_name_opens_a_local_service(host):
    assert ask(LOOPBACK, host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io"),
        *("intranet", "pneumo.local", "10.0.0.5", "[fe80::1]", "0.0.0.0", "127.1", "2130706433", "0x7f.1"),
        *("evil@localhost", "localhost:80@evil.example", "localhost/evil", "localhost,evil", "[::1", "::1", "", "*"),
        *("localhost:8000:9", "localhost:", "evil.example#.localhost"),
    ],
)
def test_a_rebound_name_reads_nothing_of_a_local_service(host):
    assert ask(LOOPBACK, host=host) == 421


@pytest.mark.parametrize("path", ["/drift", "/", "/openapi.json", "/metrics", "/nothing"])
def test_a_rebound_name_opens_no_path(path):
    assert ask(LOOPBACK, host="evil.example", path=path) == 421


def test_of_two_host_headers_both_count():
    app = Starlette(routes=[Route("/", answer)], middleware=[Middleware(Identity), *build_middleware(LOOPBACK)])
    for hosts in (["localhost", "evil.example"], ["evil.example", "localhost"]):
        headers = [("host", host) for host in hosts]
        assert TestClient(app, base_url="http://localhost").get("/", headers=headers).status_code == 421


@pytest.mark.parametrize("path", sorted(PROBES))
def test_probes_answer_under_any_name(path):
    for served in (LOOPBACK, OPEN, LOOPBACK.model_copy(update={"hosts": ("a.example",)})):
        assert ask(served, host="10.244.0.7:8080", path=path) == 200
        assert ask(served, host="balancer.example", path=path, Sec_Fetch_Site="cross-site") == 200


@pytest.mark.parametrize(
    "host",
    [
        *("10.244.0.7:8080", "203.0.113.9", "[2001:db8::1]:80", "localhost:8080", "pneumo:8080", "xray.local"),
        *("pneumo.default.svc.cluster.local", "vm.c.project.internal", "nas.home.arpa", socket.gethostname()),
    ],
)
def test_a_service_that_others_may_reach_without_keys_answers_to_addresses_and_private_names(host):
    assert ask(OPEN, host=host, address="10.244.0.7") == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "local", "10.0.0.5.nip.io", "xlocal.evil.example"]
)
def test_a_rebound_name_reads_nothing_of_a_service_without_keys_that_others_may_reach(host):
    expected = 200 if host == "local" else 421  # a name without a dot is no public one
    assert ask(OPEN, host=host, address="10.0.0.5") == expected


def test_named_hosts_are_answered_and_only_they():
    named = LOOPBACK.model_copy(update={"hosts": ("xray.example", "*.ward.example")})
    assert ask(named, host="xray.example:8443") == ask(named, host="a.b.ward.example") == 200
    assert (
        ask(named, host="ward.example")
        == ask(named, host="xxray.example")
        == ask(named, host="evilward.example")
        == 421
    )
    assert ask(LOOPBACK.model_copy(update={"hosts": ("*",)}), host="evil.example") == 200
    assert ask(Settings(public_url="https://xray.example/pneumo"), host="xray.example") == 200


def test_a_service_with_keys_answers_to_any_name_unless_some_are_named(tmp_path):
    key = add_key(tmp_path / "keys.yaml", "ward")[1]
    keyed = Settings(auth="on", keys=tmp_path / "keys.yaml")
    assert ask(keyed, host="xray.example", X_API_Key=key) == 200
    named = keyed.model_copy(update={"hosts": ("xray.example",)})
    assert ask(named, host="xray.example", X_API_Key=key) == 200
    assert ask(named, host="evil.example", X_API_Key=key) == 421


def test_a_rebound_name_reads_no_metrics_of_a_service_with_keys(tmp_path):
    add_key(tmp_path / "keys.yaml", "ward")
    keyed = Settings(auth="on", keys=tmp_path / "keys.yaml")
    assert ask(keyed, path="/metrics", host="localhost:8000") == 200
    assert ask(keyed, path="/metrics", host="evil.example:8000") == 401


@pytest.mark.parametrize("hosts", ["https://a.example", "a.example:80", "a.example/x", "a b", "", "*.", "a.*", "a,,b"])
def test_hosts_are_names(hosts):
    with pytest.raises(InputError, match=r"PNEUMO_HOSTS.*must be names"):
        Settings.from_environment({"PNEUMO_HOSTS": hosts or ","})


def test_hosts_come_from_the_environment():
    assert Settings.from_environment({"PNEUMO_HOSTS": "A.example, *.b.example"}).hosts == ("a.example", "*.b.example")


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:8001"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://localhost:8000"},
    {"Origin": "http://127.0.0.1:8000.evil.example"},
    {"Origin": ""},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
    {"Sec_Fetch_Site": "cross-site", "Origin": "https://evil.example", "Sec_Fetch_Mode": "cors"},
    {"Sec_Fetch_Site": "cross-site", "Origin": "null", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    {"Sec_Fetch_Site": "none, same-origin"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("served", [LOOPBACK, OPEN])
def test_a_page_of_another_site_posts_nothing(served, headers):
    assert ask(served, "POST", "/v1/predict", **headers) == 403


@pytest.mark.parametrize("path", ["/v1/feedback", "/v2/models/x/infer"])
def test_a_page_of_another_site_posts_to_no_path(path):
    assert ask(LOOPBACK, "POST", path, **FOREIGN[0]) == 403


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_page_of_another_site_loads_nothing(headers):
    assert ask(LOOPBACK, path="/v1/model", **headers) == 403


def test_a_link_of_another_site_opens_a_page_and_posts_no_form():
    opened = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert ask(LOOPBACK, path="/drift", **opened) == 200
    assert ask(LOOPBACK, "POST", "/v1/predict", **opened) == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:8000"},
        {"Origin": "http://127.0.0.1:8000", "Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "https://127.0.0.1:8000"},
        {"Origin": "https://xray.example", "Sec_Fetch_Site": "same-origin"},
    ],
)
def test_own_pages_and_programs_post(headers):
    assert ask(LOOPBACK, "POST", "/v1/predict", **headers) == 200


def test_pages_of_named_origins_post():
    named = LOOPBACK.model_copy(update={"cors_origins": ("https://ward.example",)})
    headers = {"Origin": "https://ward.example", "Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors"}
    assert ask(named, "POST", "/v1/predict", **headers) == 200
    assert ask(named, "POST", "/v1/predict", **headers | {"Origin": "https://evil.example"}) == 403


def test_a_proxy_may_rewrite_the_host_if_the_public_address_is_set():
    public = Settings(public_url="https://xray.example/pneumo")
    assert ask(public, "POST", "/v1/predict", Origin="https://xray.example") == 200
    assert ask(public, "POST", "/v1/predict", Origin="http://xray.example") == 403


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> TestClient:
    """A service that needs keys, behind any proxy."""
    keys = tmp_path_factory.mktemp("keys") / "keys.yaml"
    add_key(keys, "ward")
    secret = [Route(each, answer) for each in ("/v1/predict", "/drift", "/v1/model", "/metrics")]
    access = build_middleware(Settings(auth="on", keys=keys))
    app = Starlette(routes=secret, middleware=[Middleware(PrefixMiddleware), Middleware(Identity), *access])
    return TestClient(app, base_url="http://localhost", follow_redirects=False)


@settings(max_examples=15)
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30),
    st.sampled_from(["/v1/predict", "/drift", "/v1/model", "/metrics"]),
)
def test_no_prefix_opens_what_needs_a_key(guarded, prefix, path):
    """Access control sees the path that the router sees, whatever a client says that a proxy cut off."""
    for forwarded in (prefix, path, path.rpartition("/")[0], "/healthz", "/static"):
        for asked in (path, f"{forwarded}{path}", f"{forwarded}/healthz{path}"):
            url = asked if asked.startswith("/") else path
            assert guarded.get(url, headers={"X-Forwarded-Prefix": forwarded}).text != "answered"
