"""Check that the commands, options, make targets, links, files and config in the documents exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from typer.main import get_command

from pneumo.pipeline import config
from pneumo.pipeline.cli import app
from pneumo.pipeline.config.document import parse_document
from tests.support.paths import ROOT

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
METRIC = re.compile(r"(train|validation|test)/[a-z_]+")
"""Names of metrics, which have a slash like paths."""
MADE_BY_COMMANDS: tuple[str, ...] = (
    "data",
    "real",
    "runs",
    "models",
    "demo",
    "bundle",
    "deploy",
    ".venv",
    "v1",
    "ID",
    "images",
    "drift-report",
    "sweeps",
    "crossvals",
    "cases",
    "site",
    "tensorboard",
)


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}(?: [^\n]*)?\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(path: Path) -> list[list[str]]:
    text = path.read_text(encoding="utf-8")
    shown = [line for block in blocks(path, "bash") for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`((?:pneumo|make) [^`]+)`", text)
    parts = [part for line in (*shown, *inline) for part in simple_commands(line)]
    return [part for part in parts if part[0] in ("pneumo", "make")]


def simple_commands(line: str) -> list[list[str]]:
    """The words of each command of a line of shell, which `|`, `&&` and the like keep apart."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def test_commands_in_the_docs_exist_with_their_options() -> None:
    whole: Any = get_command(app)
    for words in (words for path in DOCS for words in commands(path) if words[0] == "pneumo"):
        command, rest = whole, words[1:]
        while hasattr(command, "commands") and rest and not rest[0].startswith("-") and not rest[0].isupper():
            assert rest[0] in command.commands, words
            command, rest = command.commands[rest[0]], rest[1:]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        for word in rest:
            if word.startswith("-"):
                assert word.split("=")[0] in options, words


def test_no_comment_on_a_command_is_cut_off_on_a_desktop() -> None:
    shown = [block for path in DOCS for kind in ("bash", "yaml") for block in blocks(path, kind)]
    lines = [line for block in shown for line in block.splitlines() if " # " in line]
    assert [line for line in lines if len(line) > 98] == []  # columns of the site at 1440 pixels


def test_make_targets_in_the_docs_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in (words for path in DOCS for words in commands(path) if words[0] == "make"):
        assert re.search(rf"^{re.escape(words[1])}:.*## ", makefile, flags=re.MULTILINE), words


def test_links_and_files_in_the_docs_exist() -> None:
    for path in DOCS:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
            assert (path.parent / target).exists(), f"{path}: {target}"
        for name in re.findall(r"`([\w./-]+/[\w./-]*)`", text):
            if METRIC.fullmatch(name):
                continue
            if name.split("/")[0] not in MADE_BY_COMMANDS and not name.startswith("/"):
                assert (ROOT / name).exists() or name in ("application/problem+json",), f"{path}: {name}"


def test_the_config_on_the_first_page_is_valid() -> None:
    (text,) = blocks(ROOT / "docs" / "index.md", "yaml")

    assert config.build_experiment(parse_document(text, "index.md"), "shown").positive == "PNEUMONIA"


def test_the_readme_is_short_and_its_commands_are_run_with_those_of_the_first_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first, own = blocks(ROOT / "README.md", "bash")
    (shown,) = blocks(ROOT / "docs" / "index.md", "bash")

    assert len(readme.split()) <= 500
    assert first.startswith("git clone ")
    assert len(own.splitlines()) == 5
    played = [simple_commands(line)[0] for line in shown.splitlines()]
    for (words,) in map(simple_commands, own.splitlines()):
        assert any(words == others[: len(words)] for others in played), words
    assert readme.index("![") < readme.index("not a medical device") < readme.index("git clone")
    assert "`make test`" in readme
    assert "- run: make test\n" in (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")


def test_what_a_page_puts_into_a_config_makes_a_valid_one() -> None:
    base = yaml.safe_load((ROOT / "ludwig_configs" / "efficientnet_lite0.yaml").read_text(encoding="utf-8"))
    for path, text in ((page, text) for page in DOCS for text in blocks(page, "yaml")):
        shown = yaml.safe_load(text)
        if shown.keys() <= base.keys() | {"backend", "decisions", "hyperopt"}:
            config.build_experiment(parse_document(yaml.safe_dump(base | shown, sort_keys=False), path.name), "shown")


def test_the_commands_in_the_diagram_exist() -> None:
    words = re.findall(r'class="label"[^>]*>([^<]*)<', (ROOT / "docs" / "pipeline.svg").read_text(encoding="utf-8"))
    shown = " ".join(words).split("pneumo ")[1:]
    command: Any = get_command(app)

    assert len(shown) >= 8
    for text in shown:
        names = text.split()
        found = command.commands[names[0].rstrip(",")]
        assert not hasattr(found, "commands") or names[1] in found.commands, text


def test_every_make_target_is_listed_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)

    listed = re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE)

    assert sorted(phony.split()) == sorted(listed)
    assert {"setup", "demo", "test", "test-all", "lint", "format", "bench", "docs", "serve", "clean"} <= set(listed)


def test_the_readme_and_the_foot_of_every_page_say_that_this_is_no_medical_device() -> None:
    assert "not a medical device" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search("^copyright: .*not a medical device", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)


def test_the_lock_and_the_docs_name_no_registry_host() -> None:
    for path in (ROOT / "requirements.lock", ROOT / "Makefile", ROOT / "pyproject.toml", *DOCS):
        assert "pypi" + ".org" not in path.read_text(encoding="utf-8"), path
    assert "--hash=sha256:" in (ROOT / "requirements.lock").read_text(encoding="utf-8")
