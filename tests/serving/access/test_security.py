import base64
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pneumo.serving.access.addresses import is_loopback
from pneumo.serving.access.api_keys import add_key, revoke_key
from pneumo.serving.access.authentication import WRONG_KEYS, needs_keys
from pneumo.serving.access.security import OPEN, HeadersMiddleware, build_middleware
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.setting_types import Rate
from pneumo.serving.contracts.settings import Settings
from tests.support.request_ids import Identity

CLIENT = ("203.0.113.7", 50000)
NEEDS_A_KEY = (
    "/v1/predict",
    "/v1/model",
    "/v2/models/x/infer",
    "/drift",
    "/drift/reports/1",
    "/anything",
    "/healthz/x",
    "/docs/",
    "/Docs",
    "/static",
)


async def who(request):
    return JSONResponse({"who": getattr(request.state, "key_name", None)}, headers={"X-Request-ID": "request-1"})


async def own_policy(_request):
    return HTMLResponse("report", headers={"Content-Security-Policy": "sandbox"})


def make_app(settings: Settings) -> Starlette:
    routes = [Route("/drift/reports/1", own_policy), Route("/{path:path}", who, methods=["GET", "POST"])]
    return Starlette(
        routes=routes, middleware=[Middleware(HeadersMiddleware), Middleware(Identity), *build_middleware(settings)]
    )


def make_client(settings: Settings, peer: tuple[str, int] = CLIENT, scheme: str = "http") -> TestClient:
    return TestClient(make_app(settings), base_url=f"{scheme}://testserver", client=peer)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(password: str, user: str = "anyone") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def wrong(key: str) -> str:
    """A key with the id of another and a secret of its own."""
    return key[:-64] + "0" * 64


def refused(response: Any, status: int, kind: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:pneumo:problem:{kind}"
    assert problem["request_id"] == response.headers["x-request-id"] == "request-1"
    return problem["detail"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


@pytest.fixture
def key(path: Path) -> str:
    return add_key(path, "ward-3")[1]


@pytest.fixture
def guarded(path: Path, key: str) -> Settings:
    return Settings(host="0.0.0.0", keys=path)


@pytest.fixture
def client(guarded: Settings) -> TestClient:
    return make_client(guarded)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "::ffff:127.0.0.1"])
def test_this_machine_alone_asks_without_a_key(host):
    assert is_loopback(host)
    assert not needs_keys(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.5", "fe80::1", "ward.example", "localhost.evil.example"])
def test_others_need_a_key_unless_the_user_says_otherwise(host):
    assert needs_keys(Settings(host=host))
    assert not needs_keys(Settings(host=host, auth="off"))
    assert needs_keys(Settings(host="127.0.0.1", auth="on"))


@pytest.mark.parametrize(
    ("settings", "place"), [({"host": "0.0.0.0"}, "--host 0.0.0.0"), ({"auth": "on"}, "PNEUMO_AUTH=on")]
)
def test_a_service_that_needs_keys_does_not_start_without_one(path, settings, place):
    with pytest.raises(InputError, match=rf"{place}: .*keys\.yaml holds none.*`pneumo keys add NAME`.*--no-auth"):
        build_middleware(Settings(keys=path, **settings))
    add_key(path, "old", lifetime=timedelta(days=1), now=datetime.now(UTC) - timedelta(days=2))
    with pytest.raises(InputError, match="none that is valid"):
        build_middleware(Settings(keys=path, **settings))


def test_a_service_does_not_start_with_a_damaged_key_file(path):
    path.write_text("keys: [")
    with pytest.raises(InputError, match="not valid YAML"):
        build_middleware(Settings(host="0.0.0.0", keys=path))


def test_a_service_without_keys_does_not_look_for_a_key_file(path):
    path.write_text("keys: [")
    assert make_client(Settings(keys=path), ("127.0.0.1", 1)).get("/v1/model").status_code == 200


def test_a_key_lets_in_and_tells_whose_it_is(client, key):
    for headers in (bearer(key), {"Authorization": f"bearer  {key} "}, {"X-API-Key": key}, basic(key)):
        response = client.get("/v1/model", headers=headers)
        assert (response.status_code, response.json()) == (200, {"who": "ward-3"})


def test_our_own_header_goes_before_one_that_a_gateway_in_front_uses(client, key):
    assert client.get("/v1/model", headers={"X-API-Key": key} | bearer("of.the.gateway")).status_code == 200
    assert client.get("/v1/model", headers={"X-API-Key": "x"} | bearer(key)).status_code == 401


@pytest.mark.parametrize("route", NEEDS_A_KEY)
def test_everything_about_images_needs_a_key(client, key, route):
    response = client.get(route, follow_redirects=False)
    if route.startswith("/v2"):
        assert (response.status_code, response.json().keys()) == (401, {"error"})
    else:
        assert "Authorization: Bearer KEY" in refused(response, 401, "unauthorized")
    assert client.get(route, headers=bearer(key)).status_code == 200


@pytest.mark.parametrize("route", [*sorted(OPEN), "/static/page.js", "/static-offline-docs/swagger-ui.css"])
def test_probes_the_page_and_docs_need_no_key(client, route):
    assert client.get(route).json() == {"who": None}


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic"},
        {"Authorization": "Basic %%%"},
        {"Authorization": "Basic é".encode("latin-1")},
        {"Authorization": "Digest x"},
        {"X-API-Key": "é".encode("latin-1")},
        {"X-API-Key": "x" * 8000},
        basic(""),
    ],
)
def test_what_is_no_key_is_refused_whatever_it_is(client, headers):
    refused(client.get("/v1/model", headers=headers), 401, "unauthorized")


def test_a_client_is_told_how_to_ask(client, key):
    asked = client.get("/v1/model").headers["www-authenticate"]
    assert asked == 'Bearer realm="pneumo"'
    asked = client.get("/v1/model", headers=bearer(wrong(key))).headers["www-authenticate"]
    assert asked == 'Bearer realm="pneumo", error="invalid_token"'


def test_a_browser_that_opens_the_dashboard_asks_for_the_key_as_a_password(client, key):
    for route in ("/drift", "/drift/reports/1"):
        assert client.get(route).headers["www-authenticate"].startswith("Basic ")
        assert client.get(route, headers=basic(key)).status_code == 200
    assert client.get("/driftwood").headers["www-authenticate"].startswith("Bearer ")


def test_a_password_changes_nothing_because_browsers_send_it_for_other_sites_too(client, key):
    refused(client.post("/v1/feedback", headers=basic(key)), 401, "unauthorized")
    assert client.post("/v1/feedback", headers=bearer(key)).status_code == 200


def test_an_expired_key_is_refused_and_says_so(path, guarded):
    key = add_key(path, "old", lifetime=timedelta(days=1), now=datetime.now(UTC) - timedelta(days=2))[1]
    detail = refused(make_client(guarded).get("/v1/model", headers=bearer(key)), 401, "unauthorized")
    assert "expired" in detail


def test_a_wrong_secret_of_an_expired_key_does_not_hear_that_it_expired(path, guarded):
    key = add_key(path, "old", lifetime=timedelta(days=1), now=datetime.now(UTC) - timedelta(days=2))[1]
    assert "expired" not in refused(
        make_client(guarded).get("/v1/model", headers=bearer(wrong(key))), 401, "unauthorized"
    )


def test_a_revoked_key_is_refused_by_the_running_service(path, client, key, monkeypatch):
    assert client.get("/v1/model", headers=bearer(key)).status_code == 200
    add_key(path, "other")
    revoke_key(path, "ward-3")
    monkeypatch.setattr("pneumo.serving.access.api_keys._CHECK_S", 0)
    refused(client.get("/v1/model", headers=bearer(key)), 401, "unauthorized")


def test_no_part_of_a_key_reaches_a_log_or_an_answer(client, key, caplog):
    with caplog.at_level(logging.DEBUG):
        answers = [
            client.get("/v1/model", headers=headers).text
            for headers in (bearer(key), bearer(wrong(key)), {"X-API-Key": key[:-1]}, basic("p" * 40))
        ]
    said = caplog.text + "".join(answers)
    for part in (*key.split("_")[1:], "0" * 64, "p" * 40, base64.b64encode(b"anyone:" + b"p" * 40).decode()):
        assert part not in said
    assert "request request-1: wrong key from 203.0.113.7" in caplog.text


def test_wrong_keys_make_an_address_wait(client, key):
    for _ in range(WRONG_KEYS.count):
        refused(client.get("/v1/model", headers=bearer(wrong(key))), 401, "unauthorized")
    response = client.get("/v1/model", headers=bearer(wrong(key)))
    refused(response, 429, "too-many-requests")
    assert 1 <= int(response.headers["retry-after"]) <= WRONG_KEYS.seconds
    # Not even the right one is looked at then: a guess that is refused tells nothing.
    refused(client.get("/v1/model", headers=bearer(key)), 429, "too-many-requests")


def test_a_guesser_locks_out_no_other_address(guarded, key):
    app = make_app(guarded)
    guesser, other = TestClient(app, client=CLIENT), TestClient(app, client=("203.0.113.8", 1))
    for _ in range(WRONG_KEYS.count + 1):
        response = guesser.get("/v1/model", headers=bearer(wrong(key)))
    assert response.status_code == 429
    assert other.get("/v1/model", headers=bearer(key)).status_code == 200


def test_a_client_with_a_mistyped_key_locks_out_no_other_key_behind_the_same_proxy(path, guarded, key):
    other = add_key(path, "ward-4")[1]
    client = make_client(guarded)
    for presented in (wrong(key), "mistyped"):
        for _ in range(WRONG_KEYS.count + 1):
            response = client.get("/v1/model", headers=bearer(presented))
        assert response.status_code == 429
    assert client.get("/v1/model", headers=bearer(other)).status_code == 200


def test_an_ipv6_guesser_is_known_by_its_network(guarded, key):
    app = make_app(guarded)
    for number in range(WRONG_KEYS.count + 1):
        guesser = TestClient(app, client=(f"2001:db8::{number:x}", 1))
        response = guesser.get("/v1/model", headers=bearer(wrong(key)))
    assert response.status_code == 429
    assert TestClient(app, client=("2001:db8:0:1::1", 1)).get("/v1/model", headers=bearer(key)).status_code == 200


def test_a_request_without_a_key_is_no_guess(client, key):
    for _ in range(WRONG_KEYS.count * 2):
        assert client.get("/v1/model").status_code == 401
    assert client.get("/v1/model", headers=bearer(key)).status_code == 200


def test_each_key_has_a_rate_of_its_own_from_wherever_it_comes(path, key):
    other = add_key(path, "ward-4")[1]
    app = make_app(Settings(host="0.0.0.0", keys=path, rate=Rate.parse("3/hour")))
    clients = [TestClient(app, client=(f"203.0.113.{number}", 1)) for number in range(2)]
    remaining = []
    for number in range(3):
        response = clients[number % 2].get("/v1/model", headers=bearer(key))
        assert response.status_code == 200
        assert response.headers["ratelimit-policy"] == '"default";q=3;w=3600'
        remaining.append(response.headers["ratelimit"])
    assert remaining == ['"default";r=2;t=1200', '"default";r=1;t=2400', '"default";r=0;t=3600']
    response = clients[0].get("/v1/model", headers=bearer(key))
    assert "more than 3 requests in 3600 s" in refused(response, 429, "too-many-requests")
    assert response.headers["retry-after"] == "1200"
    assert response.headers["ratelimit"] == '"default";r=0;t=3600'
    assert clients[0].get("/v1/model", headers=bearer(other)).status_code == 200
    assert clients[0].get("/healthz").status_code == 200


def test_without_keys_each_address_has_a_rate_of_its_own():
    app = make_app(Settings(host="0.0.0.0", auth="off", rate=Rate.parse("1/hour")))
    first, second = (TestClient(app, client=(f"203.0.113.{number}", 1)) for number in range(2))
    assert [first.get("/v1/model").status_code for _ in range(2)] == [200, 429]
    assert second.get("/v1/model").status_code == 200


def test_this_machine_is_not_limited():
    client = make_client(Settings(rate=Rate.parse("1/hour")), ("127.0.0.1", 1))
    for _ in range(3):
        response = client.get("/v1/model")
        assert response.status_code == 200
        assert "ratelimit" not in response.headers


def test_metrics_answer_this_machine_or_a_key(guarded, key):
    app = make_app(guarded)
    remote, here = TestClient(app, client=CLIENT), TestClient(app, client=("127.0.0.1", 1))
    assert here.get("/metrics").status_code == 200
    assert remote.get("/metrics").status_code == 401
    assert remote.get("/metrics", headers=bearer(key)).status_code == 200
    public = make_client(guarded.model_copy(update={"metrics_public": True}))
    assert public.get("/metrics").status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_metrics_do_not_answer_what_a_proxy_on_this_machine_passes_on(guarded, header):
    here = make_client(guarded, ("127.0.0.1", 1))
    assert here.get("/metrics", headers={header: "x"}).status_code == 401


def scope_of(route: str, headers: Sequence[tuple[bytes, bytes]] = (), **more: object) -> dict:
    return {"type": "http", "method": "POST", "path": route, "query_string": b"", "headers": list(headers), **more}


def statuses(app: Starlette, scope: dict) -> list[int]:
    """What an application answers to a request of which nothing can be read."""
    found = []

    async def receive():
        pytest.fail("the body was read")

    async def send(message):
        if message["type"] == "http.response.start":
            found.append(message["status"])

    anyio.run(app, scope, receive, send)
    return found


def test_a_request_is_refused_before_its_body_is_read(guarded, key):
    limited = make_app(guarded.model_copy(update={"rate": None}))
    assert statuses(limited, scope_of("/v1/predict")) == [401]
    assert statuses(limited, scope_of("/v1/predict", [(b"x-api-key", wrong(key).encode())])) == [401]


@pytest.mark.parametrize(
    ("length", "closes"), [({}, False), ({"Content-Length": "70000"}, False), ({"Content-Length": "20000000"}, True)]
)
def test_a_connection_with_much_unread_on_it_is_closed(client, length, closes):
    response = client.post("/v1/predict", headers=length)
    assert response.status_code == 401
    assert (response.headers.get("connection") == "close") is closes


def test_a_body_of_unknown_length_closes_the_connection(client):
    response = client.post("/v1/predict", content=iter([b"x"]))
    assert (response.status_code, response.headers["connection"]) == (401, "close")


@pytest.mark.parametrize(
    ("server", "expected"),
    [(("10.1.2.3", 8000), 401), (("127.0.0.1", 8000), 200), (("::1", 8000), 200), (("/run/pneumo", None), 200)],
)
def test_a_service_meant_for_this_machine_refuses_others_where_it_was_bound_elsewhere_all_the_same(server, expected):
    assert statuses(make_app(Settings()), scope_of("/v1/predict", server=server)) == [expected]
    assert statuses(make_app(Settings(auth="off")), scope_of("/v1/predict", server=server)) == [200]


def test_a_request_without_an_address_is_let_in_by_key_alone(guarded, key):
    app = make_app(guarded)
    assert statuses(app, scope_of("/v1/predict")) == [401]
    assert statuses(app, scope_of("/metrics")) == [401]
    assert statuses(app, scope_of("/v1/predict", [(b"x-api-key", key.encode())])) == [200]


def test_pages_of_other_origins_may_not_ask_by_default(client, key):
    response = client.get("/v1/model", headers=bearer(key) | {"Origin": "https://ward.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]
    asked = {"Origin": "https://ward.example", "Access-Control-Request-Method": "POST"}
    assert client.options("/v1/predict", headers=asked).status_code == 401


@pytest.fixture
def shared(guarded: Settings) -> TestClient:
    return make_client(guarded.model_copy(update={"cors_origins": ("https://ward.example",)}))


def test_a_page_of_a_named_origin_may_ask_with_a_key_and_reads_refusals(shared, key):
    origin = {"Origin": "https://ward.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key, content-type"}
    assert shared.options("/v1/predict", headers=origin | asked).status_code == 200
    for headers, status in ((origin | bearer(key), 200), (origin, 401)):
        response = shared.post("/v1/predict", headers=headers)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == "https://ward.example"
        assert "Retry-After" in response.headers["access-control-expose-headers"]


def test_a_page_of_another_origin_may_not_ask(shared, key):
    response = shared.get("/v1/model", headers=bearer(key) | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("origins", [("*",), ("https://ward.example",)])
def test_browsers_are_never_allowed_to_send_credentials_by_themselves(guarded, key, origins):
    client = make_client(guarded.model_copy(update={"cors_origins": origins}))
    origin = {"Origin": "https://ward.example", "Cookie": "a=b", "Access-Control-Request-Method": "POST"}
    for response in (
        client.options("/v1/model", headers=origin),
        client.get("/v1/model", headers=origin | bearer(key)),
    ):
        assert response.status_code == 200
        assert "access-control-allow-origin" in response.headers
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("route", ["/", "/v1/model", "/docs", "/nothing"])
@pytest.mark.parametrize("with_key", [True, False])
def test_every_answer_has_the_security_headers(client, key, route, with_key):
    found = client.get(route, headers=bearer(key) if with_key else {}).headers
    assert found["x-content-type-options"] == "nosniff"
    assert found["referrer-policy"] == "same-origin"
    assert found["x-frame-options"] == "SAMEORIGIN"
    assert found["cross-origin-opener-policy"] == found["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in found["permissions-policy"]
    assert "strict-transport-security" not in found
    policy = dict(part.strip().partition(" ")[::2] for part in found["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["object-src"] == policy["base-uri"] == "'none'"
    assert policy["frame-ancestors"] == "'self'"
    assert ("'unsafe-inline'" in found["content-security-policy"]) is (route == "/docs")
    assert "unsafe-eval" not in found["content-security-policy"]


@pytest.mark.parametrize(
    ("route", "kept"), [("/v1/model", False), ("/v2", False), ("/v2/models", False), ("/drift", False), ("/", True)]
)
def test_answers_about_images_are_kept_by_no_cache(client, key, route, kept):
    for headers in (bearer(key), {}):
        assert (client.get(route, headers=headers).headers.get("cache-control") is None) is kept


def test_an_answer_with_a_policy_of_its_own_keeps_it(client, key):
    found = client.get("/drift/reports/1", headers=bearer(key)).headers
    assert found.get_list("content-security-policy") == ["sandbox"]


def test_browsers_are_held_to_https_only_where_it_is_spoken(guarded):
    assert make_client(guarded, scheme="https").get("/").headers["strict-transport-security"].startswith("max-age=")


def test_what_is_not_http_passes(guarded):
    with make_client(guarded) as client:  # the lifespan
        assert client.get("/healthz").status_code == 200


def test_the_guard_lets_a_request_with_a_key_through_before_its_body_is_read(path, key):
    answered = []

    async def app(_scope, _receive, send):
        answered.append(1)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b""})

    settings = Settings(host="0.0.0.0", keys=path, rate=Rate.parse("1000000/second"))
    guarded: Any = app
    for middleware in reversed([Middleware(HeadersMiddleware), *build_middleware(settings)]):
        guarded = middleware.cls(guarded, *middleware.args, **middleware.kwargs)
    headers = [(b"host", b"x"), (b"user-agent", b"y" * 40), (b"accept", b"*/*"), (b"x-api-key", key.encode())]

    async def receive():
        pytest.fail("the body was read")

    async def send(_message):
        return None

    anyio.run(guarded, scope_of("/v1/predict", headers, client=CLIENT, scheme="http"), receive, send)
    assert answered == [1]


@pytest.fixture
def server(guarded: Settings) -> Iterator[str]:
    """A real server, for what is on the wire."""
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(make_app(guarded), log_level="error", access_log=False))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    running.should_exit = True
    thread.join(20)
    listener.close()


def test_a_stranger_with_a_large_film_reads_why_it_is_refused(server):
    for _ in range(5):
        response = httpx.post(f"{server}/v1/predict", content=bytes(20_000_000), timeout=20)
        refused(response, 401, "unauthorized")


def test_a_stranger_gets_the_answer_while_the_film_is_still_to_come(server):
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):  # until the server closes
            answer += piece
    assert answer.startswith(b"HTTP/1.1 401")


def test_a_connection_is_used_again_after_a_refusal(server, key):
    with httpx.Client(base_url=server, timeout=20) as client:
        assert client.post("/v1/predict", content=bytes(100_000)).status_code == 401
        assert client.post("/v1/predict", content=bytes(100_000), headers=bearer(key)).status_code == 200
