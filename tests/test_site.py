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
from pneumo.pipeline.config import build_experiment, json_schema
from pneumo.pipeline.config.document import parse_document
from pneumo.pipeline.sweep.space import read_space
from pneumo.pipeline.sweep.sweep_settings import read_settings
from pneumo.serving.contracts.problems import KINDS
from pneumo.serving.contracts.settings import Settings
from tests.support.accessibility import WIDTHS, find_violations
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
            if parameter.param_type_name == "option" and parameter.name != "help" and not parameter.hidden:
                assert f"{parameter.opts[0]}" in told[name], (name, parameter.opts)


def test_defaults_and_limits_are_in_the_reference(generated: Any) -> None:
    lines = generated("cli.md").splitlines()

    assert "| `--size <int>` | `224` | Side of the prepared square images, in pixels. |" in lines
    assert "| `--images <int range>` | `400` | Number of images. (x>=1) |" in lines
    split = "| `--split <train|validation|test>` | test, if there is one, or all images with --data | "
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
    assert "`certain` if the prediction set is the label alone and the image is in distribution. |" in text
    for name in re.findall(r"\]\(#([a-z]+)\)", text):
        assert re.search(rf"^#+ {name}$", text, flags=re.MULTILINE | re.IGNORECASE), name


def test_every_setting_is_in_the_reference(generated: Any) -> None:
    text = generated("settings.md")

    for name in Settings.model_fields:
        assert re.search(rf"^\| `PNEUMO_{name.upper()}` \| [^|]*\| \S[^|]+ \|$", text, flags=re.MULTILINE), name
    assert "| `PNEUMO_PORT` | `8000` |" in text


def test_every_kind_and_key_of_a_config_is_in_the_reference(generated: Any) -> None:
    text = generated("config.md")

    options = list(json_schema.list_options(json_schema.describe_schema()))
    assert len(options) > 900
    replaced = ("Refused: ", "Becomes ")
    refused = {option.words[-1] for option in options if option.schema["description"].startswith(replaced)}
    for option in options:
        if option.is_kind:
            assert re.search(rf"^(### |\| )`{option.words[-1]}`( \| |$)", text, flags=re.MULTILINE), option.path
        elif option.schema["description"] != "Set by Ludwig." and not refused & set(option.kinds):
            assert re.search(rf"^\| `{option.names[-1]}` \|.*\| \S.* \|$", text, flags=re.MULTILINE), option.path
    for policy in ("max accuracy", "sensitivity >= 0.95", "cost FN:FP = 5:1"):
        assert f"| `{policy}` | " in text
    assert "| `dropout` | number | `0.2` | at least 0, at most 0.95 | Share of pooled" in text


def examples(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each example of a page and the heading of its section."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        shown = re.findall(r"^```yaml\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
        instead = re.findall(r"`(\w+: \{.*\})` \|$", section, flags=re.MULTILINE)
        yield from ((section.splitlines()[0], yaml.safe_load(block)) for block in (*shown, *instead))


def test_every_example_of_a_kind_makes_a_valid_config(generated: Any) -> None:
    count = 0
    for heading, example in examples(generated("config.md")):
        image = {"name": "image", "type": "image", "encoder": {"type": "backbone"}}
        image["preprocessing"] = {"mode": "eager", "height": 64, "width": 64, "num_channels": 3}
        label: dict[str, Any] = {"name": "label", "type": "category" if "of `category`" in heading else "binary"}
        if label["type"] == "binary":
            label["preprocessing"] = {"fallback_true_label": "PNEUMONIA"}
        executor = {"num_samples": 4}
        space = {"trainer.learning_rate": {"space": "loguniform", "lower": 0.001, "upper": 0.01}}
        hyperopt = {"parameters": space, "executor": executor, "search_alg": {"type": "variant_generator"}}
        trainer, split = {"epochs": 4, "batch_size": 16}, {"split": {"type": "fixed", "column": "split"}}
        whole: dict[str, Any] = {"input_features": [image], "output_features": [label], "hyperopt": hyperopt}
        whole |= {"trainer": trainer, "preprocessing": split}
        ((key, value),) = example.items()
        places = dict.fromkeys(("encoder", "augmentation"), image) | dict.fromkeys(("loss", "decoder"), label)
        places |= {"optimizer": trainer, "split": split, "scheduler": executor, "search_alg": hyperopt}
        if "space" in value:
            hyperopt["parameters"] = {key: value}
        else:
            places.get(key, whole)[key] = value
        document = build_experiment(parse_document(yaml.safe_dump(whole, sort_keys=False), heading), "shown").document
        if "space" in value or key in ("scheduler", "search_alg"):
            read_settings(read_space(document, "shown"))
        count += 1
    assert count > 90


def test_every_augmentation_has_a_picture(generated: Any) -> None:
    shown = re.findall(r"^### `(\w+)`$", generated("config.md").split("## Encoders")[0], flags=re.MULTILINE)
    pictures = {path.stem: path.stat().st_size for path in (REFERENCE / "augmentations").iterdir()}

    assert set(pictures) == {name for name in shown if name.startswith(("radiograph_", "random_", "auto_"))}
    assert set(pictures) == set(re.findall(r"\(augmentations/(\w+)\.webp\)", generated("config.md")))
    assert sum(pictures.values()) < 100_000


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
        for page in ("index.html", "reference/settings.html"):
            for width in WIDTHS:  # loaded at each: the theme measures its parts when it is loaded
                desk.set_viewport_size({"width": width, "height": 900})
                desk.goto(f"{address}/{page}")
                assert desk.evaluate("document.documentElement.scrollWidth") <= width
                assert not find_violations(desk)
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
