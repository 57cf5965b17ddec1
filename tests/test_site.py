"""The site of the documentation: what is generated for it is complete, and it needs nothing from elsewhere."""

import functools
import http.server
import re
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.main import get_command

import pneumo
from pneumo.pipeline.cli import app
from pneumo.serving.contracts.problems import KINDS
from pneumo.serving.contracts.settings import Settings
from tests.support.paths import ROOT

REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def generated() -> Any:
    """Return a page of `docs/reference/` after the hook filled it."""
    before = sys.path.copy()
    sys.path.insert(0, str(ROOT / "docs" / "hooks"))
    try:
        hook = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "hooks" / "reference.py")))
    finally:
        sys.path[:] = before
    return lambda page: hook.on_page_markdown((REFERENCE / page).read_text(encoding="utf-8"))


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    below = getattr(command, "commands", {})
    if not below:
        yield name, command
    for word, each in below.items():
        yield from leaves(each, f"{name} {word}")


def test_every_command_and_option_is_in_the_reference(generated: Any) -> None:
    sections = re.split(r"^#+ `(.+)`$", generated("cli.md"), flags=re.MULTILINE)
    told = dict(zip(sections[1::2], sections[2::2], strict=True))

    commands = dict(leaves(get_command(app), "pneumo"))
    assert len(commands) > 20
    for name, command in commands.items():
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert f"{parameter.opts[0]}" in told[name], (name, parameter.opts)


def test_defaults_and_limits_are_in_the_reference(generated: Any) -> None:
    lines = generated("cli.md").splitlines()

    assert "| `--size <int>` | `224` | Side of the prepared square images, in pixels. |" in lines
    assert "| `--images <int range>` | `400` | Number of images. (x>=1) |" in lines
    split = "| `--split <train|validation|test>` | test, if there is one | "
    assert split + "Split to show, and to show first in the report. |" in lines


def test_exit_codes_are_those_of_the_errors(generated: Any) -> None:
    codes = re.findall(r"^\| (\d+) \|", generated("cli.md"), flags=re.MULTILINE)

    assert codes[:5] == ["0", "1", "2", "3", "130"]


def test_every_route_and_kind_of_problem_is_in_the_reference(generated: Any) -> None:
    text = generated("http.md")

    for route in ("POST /v1/predict", "POST /v1/explain", "POST /v1/feedback", "GET /v1/drift", "GET /metrics"):
        assert f"### `{route}`" in text
    for kind, (status, _) in KINDS.items():
        assert f"| `urn:pneumo:problem:{kind}` | {status} |" in text
    assert "| `certainty` | `certain` or `uncertain` | `certain` if the prediction set is the label alone. |" in text
    for name in re.findall(r"\]\(#([a-z]+)\)", text):
        assert re.search(rf"^#+ {name}$", text, flags=re.MULTILINE | re.IGNORECASE), name


def test_every_setting_is_in_the_reference(generated: Any) -> None:
    text = generated("settings.md")

    for name in Settings.model_fields:
        assert re.search(rf"^\| `PNEUMO_{name.upper()}` \| [^|]*\| \S[^|]+ \|$", text, flags=re.MULTILINE), name
    assert "| `PNEUMO_PORT` | `8000` |" in text


def test_every_page_is_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"[\w/-]+\.md", yaml.safe_dump(yaml.safe_load(config)["nav"]))

    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(there)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, but elsewhere."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(out)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.mark.slow
def test_a_built_page_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text)
        loaded = [tag for tag in tags if re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag)]
        assert not [tag for tag in loaded if 'rel="canonical"' not in tag], page
        assert "not a medical device" in text
        assert "<!-- generated:" not in text


@pytest.mark.slow
def test_the_python_reference_has_signatures_and_errors(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text(encoding="utf-8")

    names = (name for name in pneumo.__all__ if not name.startswith("_"))
    for name in (*names, "Client.predict", "pipeline.training.resume"):
        assert f'id="pneumo.{name}"' in text
    assert "ServiceError" in text
    assert "profile" in text


@pytest.mark.slow
@pytest.mark.browser
def test_the_site_works_in_a_browser_without_a_network(site: Path, browser: Any) -> None:
    handler = functools.partial(QuietHandler, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        phone = browser.new_page(viewport={"width": 390, "height": 800})
        elsewhere: list[str] = []
        complaints: list[str] = []
        own = (f"{address}/", "data:", "blob:")
        phone.on("request", lambda request: None if request.url.startswith(own) else elsewhere.append(request.url))
        phone.on("pageerror", lambda error: complaints.append(str(error)))
        for page in sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html")):
            phone.goto(f"{address}/{page}")
            wide = phone.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, f"{page} is {wide} pixels wide on a phone"
        desk = browser.new_page(viewport={"width": 1280, "height": 900})
        desk.goto(f"{address}/index.html")
        desk.locator("input.md-search__input").press_sequentially("conformal")  # it listens to keys
        desk.wait_for_selector(".md-search-result__item a[href*='conformal.html']", state="attached")
        phone.close()
        desk.close()
        assert not elsewhere
        assert not complaints
    finally:
        server.shutdown()
        server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Writes no line a request."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""
