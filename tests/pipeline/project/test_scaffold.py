"""A project outside this repository, as a new user creates one."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pneumo.pipeline.project import scaffold
from pneumo.pipeline.project.demo import serve_once
from pneumo.pipeline.project.scaffold import find_starter
from tests.conftest import TINY
from tests.support.paths import CONFIGS, ROOT


def read_status(folder: Path) -> list[str]:
    command = ["git", "status", "--porcelain", "-uall"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_project_holds_configs_and_gitignore_and_its_commands_work(pneumo, tmp_path, monkeypatch):
    project = tmp_path / "my-project"
    made = pneumo("init", project, "--json")
    assert made.code == 0, made.err
    document = json.loads(made.out)
    assert document["git"] is (shutil.which("git") is not None)
    assert document["dvc"]
    assert sorted(path.name for path in (project / "ludwig_configs").glob("*.yaml")) == document["configs"]
    assert {path.name for path in CONFIGS.glob("*.json")} == {"schema.json", "gate.schema.json"}
    same = {f"ludwig_configs/{path.name}": path for path in CONFIGS.iterdir()}
    same |= {name: ROOT / name for name in ("dvc.yaml", "params.yaml", ".dvcignore", "docs/index.md", "docs/page.png")}
    for name, path in same.items():
        assert (project / name).read_bytes() == path.read_bytes(), name
        assert not (project / name).is_symlink()
    for path in (project / "README.md", *project.glob("*.yaml"), *(project / "ludwig_configs").glob("*.yaml")):
        for page in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
            assert (project / page).is_file(), (path.name, page)

    monkeypatch.chdir(project)
    assert "# my-project" in Path("README.md").read_text()
    assert pneumo("config", "validate", *sorted(Path("ludwig_configs").glob("*.yaml"))).code == 0
    assert pneumo("data", "phantom", "raw", "--images", "60", "--size", "64").code == 0
    imported = pneumo("data", "import", "raw", "--size", "64", "--out", "data")
    assert imported.code == 0, imported.err
    assert pneumo("data", "check", "data").code == 0
    assert pneumo("runs", "list").code == 0
    assert pneumo("models", "list").code == 0
    findings = {each["name"]: each for each in json.loads(pneumo("doctor", "--json").out)["findings"]}
    assert (findings["configs"]["state"], findings["data set"]["state"]) == ("ok", "ok")
    assert findings["DVC remote"]["told"] == "local: ../storage"
    status = read_status(project)
    assert "?? raw/.gitignore" in status
    assert not [line for line in status if line.endswith(".png") and "docs/" not in line]
    stages = subprocess.run([sys.executable, "-m", "dvc", "stage", "list"], check=True, capture_output=True, text=True)
    assert " ".join(line.split()[0] for line in stages.stdout.splitlines()) == "import check train evaluate export"


def test_every_command_of_its_readme_is_one(pneumo):
    import shlex
    from typing import Any

    from typer.main import get_command

    from pneumo.pipeline.cli import app

    (block,) = [part for part in scaffold.read_template("readme").split("```") if part.startswith("bash")]
    lines = [shlex.split(line, comments=True) for line in block.splitlines()[1:] if line]
    assert len(lines) == 7
    for words in lines:
        command: Any = get_command(app)
        for word in words[1:]:
            if not hasattr(command, "commands"):
                break
            command = command.commands[word]


@pytest.mark.slow
@pytest.mark.lengthy
def test_the_whole_loop_works_in_a_project(pneumo, tmp_path, monkeypatch):
    project = tmp_path / "my-project"
    assert pneumo("init", project).code == 0
    monkeypatch.chdir(project)
    assert pneumo("data", "phantom", "raw", "--images", "160", "--size", "64").code == 0
    assert pneumo("data", "import", "raw", "--size", "64", "--out", "data").code == 0
    overrides = [part for each in TINY for part in ("-o", each)]
    assert pneumo("train", "ludwig_configs/smoke.yaml", *overrides).code == 0
    promoted = pneumo("promote", "latest", "--json")
    assert promoted.code == 0, promoted.err
    assert json.loads(promoted.out)["gate"]["passed"]
    image = next((project / "data" / "images").rglob("*.png"))
    assert serve_once(Path("models"), image)["predictions"]
    assert subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "data"], check=False).returncode == 0
    pushed = pneumo("data", "push")
    assert pushed.code == 0, pushed.err
    assert any((project / "storage").rglob("*"))


@pytest.mark.parametrize(("folder", "enter"), [(".", ""), ("my study", "cd 'my study' && ")])
def test_in_a_repository_nothing_is_replaced_or_staged(pneumo, tmp_path, monkeypatch, folder, enter):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet", "."], check=True)
    mine = {"README.md": "mine", "docs/index.md": "mine", ".gitignore": "*.log\n/data/", "params.yaml": "mine: 1"}
    for name, text in mine.items():
        (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    subprocess.run(["git", "add", "."], check=True)
    index = subprocess.run(["git", "ls-files", "--stage"], check=True, capture_output=True).stdout

    outcome = pneumo("init", folder)

    assert outcome.code == 0, outcome.err
    assert f"next: {enter}pneumo doctor, then follow PNEUMO.md" in outcome.err
    assert "left as they are: params.yaml" in outcome.err
    project = tmp_path / folder
    assert {name: (project / name).read_text() for name in mine if name != ".gitignore"} == {
        name: text for name, text in mine.items() if name != ".gitignore"
    }
    lines = (project / ".gitignore").read_text().splitlines()
    assert lines[:2] == ["*.log", "/data/"]
    assert lines.count("/data/") == lines.count("/runs/") == 1
    assert "pneumo-docs/registry.md" in (project / "ludwig_configs" / "gate.yaml").read_text()
    assert (project / "pneumo-docs" / "registry.md").is_file()
    assert not (tmp_path / "docs" / "registry.md").exists()
    assert subprocess.run(["git", "ls-files", "--stage"], check=True, capture_output=True).stdout == index

    again = pneumo("init", folder)
    assert (again.code, "is a project already" in again.err) == (2, True)


def test_a_file_is_no_place_for_a_project(pneumo, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    outcome = pneumo("init", tmp_path / "mine.txt")
    assert (outcome.code, "is a file" in outcome.err) == (2, True)


def test_without_git_and_dvc_the_project_is_made_all_the_same_and_that_is_said(pneumo, tmp_path, monkeypatch):
    monkeypatch.setattr("pneumo.pipeline.project.scaffold.shutil.which", lambda _: None)
    monkeypatch.setattr("pneumo.pipeline.project.scaffold.importlib.util.find_spec", lambda _: None)
    outcome = pneumo("init", tmp_path / "bare")
    assert outcome.code == 0
    assert "git is not installed" in outcome.err
    assert "DVC is not installed" in outcome.err
    assert "no_scm = true" in (tmp_path / "bare" / ".dvc" / "config").read_text()


def test_a_missing_config_is_replaced_by_the_installed_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_starter(Path("ludwig_configs/smoke.yaml")).read_bytes() == (CONFIGS / "smoke.yaml").read_bytes()
    assert find_starter(Path("mine/smoke.yaml")) == Path("mine/smoke.yaml")
    (tmp_path / "ludwig_configs").mkdir()
    (tmp_path / "ludwig_configs" / "smoke.yaml").write_text("own")
    assert find_starter(Path("ludwig_configs/smoke.yaml")) == Path("ludwig_configs/smoke.yaml")
