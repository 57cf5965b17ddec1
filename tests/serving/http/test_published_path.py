"""The service at a path of a proxy, which cuts the path off or leaves it; and HEAD for every GET."""

import re

import pytest
from fastapi.testclient import TestClient

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app

LINK = re.compile(r"(?:src|href|action)=[\"']([^\"'#]+)")


@pytest.fixture(scope="module")
def client(bundle, started, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    settings = Settings(threads=1, log_url=f"sqlite:///{folder / 'log.sqlite3'}", log_spool=folder / "spool")
    with started(create_app(bundle, settings)) as client:
        client.follow_redirects = False
        yield client


@pytest.fixture(scope="module")
def published(bundle, started, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    settings = Settings(threads=1, root_path="/a/xray", log_url=f"sqlite:///{folder / 'log.sqlite3'}")
    with started(create_app(bundle, settings.model_copy(update={"log_spool": folder / "spool"}))) as client:
        client.follow_redirects = False
        yield client


def follow(client: TestClient, page: str, text: str, prefix: str, **headers: str) -> int:
    """Follow each link of a page as a browser does; a proxy cuts the prefix off."""
    links = {str(client.base_url.join(page).join(link)) for link in LINK.findall(text)}
    for link in links:
        path = link.removeprefix(str(client.base_url).rstrip("/"))
        assert path.startswith(f"{prefix}/"), (page, link)
        answer = client.get(path.removeprefix(prefix), headers=headers)
        assert answer.status_code in (200, 303), (page, link, answer.status_code)
    return len(links)


@pytest.mark.parametrize("page", ["/", "/drift", "/docs"])
def test_links_work_at_the_path_that_a_proxy_names(client, page):
    headers = {"X-Forwarded-Prefix": "/a/xray"}
    text = client.get(page, headers=headers).text
    assert follow(client, f"/a/xray{page}", text, "/a/xray", **headers) > 2


@pytest.mark.parametrize("page", ["/", "/drift"])
def test_links_are_relative_where_no_proxy_names_a_path(client, page):
    assert follow(client, f"/a/xray{page}", client.get(page).text, "/a/xray") > 2


def test_links_work_on_a_page_whose_address_lacks_the_last_slash(client):
    text = client.get("/", headers={"X-Forwarded-Prefix": "/xray/"}).text
    assert 'src="/xray/static/app.js"' in text
    assert follow(client, "/xray", text, "/xray") > 4


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("page", ["/", "/drift", "/docs", "/v1/model", "/v2", "/static/app.js", "/healthz"])
def test_a_set_path_may_be_cut_off_or_not(published, page, cut):
    answer = published.get(page if cut else f"/a/xray{page}")
    assert answer.status_code == 200
    if page in ("/", "/docs"):
        assert follow(published, f"/a/xray{page}", answer.text, "/a/xray") > 2


def test_the_path_alone_leads_to_the_page(published):
    answer = published.get("/a/xray", headers={"Host": "testserver"})
    assert (answer.status_code, answer.headers["location"]) == (308, "/a/xray/")
    assert published.get("/a/xrays").status_code == 404


def test_the_openapi_document_names_the_path(client, published):
    assert published.get("/openapi.json").json()["servers"] == [{"url": "/a/xray"}]
    for prefix in ("/one", "/two"):
        document = client.get("/openapi.json", headers={"X-Forwarded-Prefix": prefix}).json()
        assert document["servers"] == [{"url": prefix}]
    assert "servers" not in client.get("/openapi.json").json()


@pytest.mark.parametrize(
    "prefix",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil",
        '/"><script>',
        "evil",
        "/a b",
        "/a//b",
        "/" + "a/" * 20,
        "/é",
    ],
)
@pytest.mark.parametrize("page", ["/", "/docs", "/openapi.json"])
def test_a_prefix_that_is_no_path_is_ignored(client, page, prefix):
    headers = {"X-Forwarded-Prefix": prefix.encode(), "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil"}
    assert client.get(page, headers=headers).text == client.get(page).text


@pytest.mark.parametrize("path", ["xray", "/a//b", "//evil.example", "https://evil.example", "/a b", "/a?b"])
def test_a_set_path_is_a_path(path):
    with pytest.raises(InputError, match="PNEUMO_ROOT_PATH"):
        Settings.from_environment({"PNEUMO_ROOT_PATH": path})


def test_head_answers_like_get_on_every_route(client):
    document = client.get("/openapi.json").json()
    paths = {path for path, operations in document["paths"].items() if "get" in operations}
    pages = {"/", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/drift", "/favicon.ico", "/static/app.js"}
    own = pages | {
        "/static-offline-docs/swagger-ui.css",
        "/static/vendor/plotly.min.js",
        "/drift/reports/1",
        "/sign-in",
    }
    assert len(paths) > 8
    for path in paths | own:
        url = path.format(name="tiny", version="1")
        head, got = client.head(url), client.get(url)
        assert (head.status_code, head.content) == (got.status_code, b""), url
        ignored = {"x-request-id", "date", "content-length" if path == "/metrics" else ""}
        assert {*head.headers.items()} - {*got.headers.items()} <= {
            (n, v) for n, v in head.headers.items() if n in ignored
        }


def test_head_of_what_takes_posts_alone_is_refused_as_get_is(client):
    for path in ("/v1/predict", "/v2/models/tiny/infer"):
        assert (client.head(path).status_code, client.head(path).headers["allow"]) == (405, "POST")
    assert client.post("/healthz").headers["allow"] == "GET, HEAD"


def test_the_log_names_the_route_of_a_head_request(client, caplog):
    with caplog.at_level("INFO", logger="pneumo.request"):
        client.head("/v2/models/tiny")
    assert "HEAD /v2/models/{name} 200" in caplog.text
