"""`.github/` and `.pre-commit-config.yaml`: schemas, zizmor, and that what they run exists and does what it says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner
from typer.main import get_command

from pneumo.pipeline.cli import app
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.runs.run import Run
from tests.support.paths import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
BIN = Path(sys.executable).parent
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.github-actions": ACTIONS,
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
    "vendor.github-issue-forms": [GITHUB / "ISSUE_TEMPLATE" / "bug.yml", GITHUB / "ISSUE_TEMPLATE" / "feature.yml"],
}


def loaded(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def jobs() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{path.stem}/{name}", job) for path in WORKFLOWS for name, job in loaded(path)["jobs"].items()]


def scripts() -> list[str]:
    """Every line that a workflow or action hands to a shell."""
    steps = [step for _, job in jobs() for step in job["steps"]]
    steps += [step for path in ACTIONS for step in loaded(path)["runs"]["steps"]]
    whole = "\n".join(step["run"] for step in steps if "run" in step).replace("\\\n", " ")
    return [line.strip() for line in whole.splitlines()]


def run(*words: str | Path, cwd: Path = ROOT, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_schemas_know_every_key(schema: str) -> None:
    done = CliRunner().invoke(check_jsonschema, ["--builtin-schema", schema, *map(str, SCHEMAS[schema])])
    assert done.exit_code == 0, done.output


def test_the_schemas_would_find_a_key_that_is_misspelt(tmp_path: Path) -> None:
    text = (GITHUB / "workflows" / "docs.yml").read_text(encoding="utf-8")
    (tmp_path / "docs.yml").write_text(text.replace("runs-on:", "runs_on:"))
    done = CliRunner().invoke(
        check_jsonschema, ["--builtin-schema", "vendor.github-workflows", str(tmp_path / "docs.yml")]
    )
    assert done.exit_code == 1


def test_zizmor_finds_nothing() -> None:
    done = run(BIN / "zizmor", "--offline", "--quiet", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_would_find_an_injection_and_an_action_without_a_commit(tmp_path: Path) -> None:
    text = (GITHUB / "workflows" / "docs.yml").read_text(encoding="utf-8")
    text = text.replace("run: make docs", "run: echo ${{ github.event.pull_request.title }}")
    text = re.sub(r"actions/checkout@\S+ # \S+", "actions/checkout@v6", text)
    (tmp_path / ".github" / "workflows").mkdir(parents=True)
    (tmp_path / ".github" / "workflows" / "docs.yml").write_text(text)
    shutil.copy(GITHUB / "zizmor.yml", tmp_path / ".github" / "zizmor.yml")
    done = run(BIN / "zizmor", "--offline", "--quiet", "--format", "json", ".", cwd=tmp_path)
    found = {each["ident"] for each in json.loads(done.stdout)}
    assert {"template-injection", "unpinned-uses"} <= found


def test_an_action_is_the_same_commit_everywhere() -> None:
    commits: dict[str, set[tuple[str, str]]] = {}
    for path in (*WORKFLOWS, *ACTIONS):
        for name, commit, version in re.findall(r"uses: ([^@\s./]\S*)@(\S+)(.*)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[0-9a-f]{40}", commit), name
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", version), name
            commits.setdefault(name, set()).add((commit, version))
    assert len(commits) > 8
    assert all(len(found) == 1 for found in commits.values()), commits


def test_every_job_names_its_rights_and_only_writers_write() -> None:
    for path in WORKFLOWS:
        assert loaded(path)["permissions"] == {}, path
        assert "concurrency" in loaded(path), path
    writes = {
        name: sorted(right for right, level in job["permissions"].items() if level == "write") for name, job in jobs()
    }
    assert {name: rights for name, rights in writes.items() if rights} == {
        "data/comment": ["pull-requests"],
        "data/measure": ["id-token"],
        "dependencies/propose": ["actions", "contents", "pull-requests"],
        "deploy/build": ["id-token"],
        "deploy/deploy": ["id-token"],
        "deploy/gate": ["id-token"],
        "docs/publish": ["id-token", "pages"],
        "drift/check": ["id-token"],
        "images/publish": ["packages"],
        "release/github": ["contents"],
        "release/pypi": ["id-token"],
    }


def test_only_the_approved_environment_deploys() -> None:
    deploy = loaded(GITHUB / "workflows" / "deploy.yml")["jobs"]
    assert deploy["deploy"]["environment"]["name"] == "production"
    assert deploy["deploy"]["needs"] == "build"
    assert deploy["build"]["needs"] == "gate"
    accounts = {
        name: step["with"]["service_account"].split("@")[0]
        for name, job in deploy.items()
        for step in job["steps"]
        if "service_account" in step.get("with", {})
    }
    assert accounts == {"gate": "pneumo-ci", "build": "pneumo-build", "deploy": "pneumo-deploy"}
    text = (ROOT / "deploy" / "gcp" / "accounts.tf").read_text(encoding="utf-8")
    assert all(re.search(rf"^    {account} +=", text, re.MULTILINE) for account in accounts.values())


def test_commands_are_those_of_the_command_line_and_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    seen = 0
    for line in scripts():
        words = (
            shlex.split(line.split(" > ")[0], comments=True) if line.startswith((".venv/bin/pneumo", "make ")) else []
        )
        if words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:.*## ", makefile, flags=re.MULTILINE), line
        elif words:
            command: Any = get_command(app)
            rest = words[1:]
            while hasattr(command, "commands"):
                assert rest[0] in command.commands, line
                command, rest = command.commands[rest[0]], rest[1:]
            command.make_context("pneumo", list(rest))  # parses every option
        seen += bool(words)
    assert seen >= 10


def test_shell_scripts_are_well_formed_and_named_files_exist() -> None:
    for name, job in jobs():
        for step in job["steps"]:
            if "run" in step:
                done = run("bash", "-n", "-c", step["run"])
                assert done.returncode == 0, (name, done.stderr)
    for line in scripts():
        for script in re.findall(r"\.github/scripts/\S+", line):
            assert (ROOT / script).is_file(), script


def test_what_starts_a_workflow_is_there() -> None:
    triggers = {path.stem: loaded(path)[True] for path in WORKFLOWS}  # YAML reads `on` as true
    assert triggers["deploy"]["push"]["paths"] == ["models/registry.yaml"]
    assert triggers["data"]["pull_request"]["paths"] == ["data.dvc"]
    assert run("git", "check-ignore", "--quiet", "models/registry.yaml").returncode == 1, "it can be committed"
    assert run("git", "check-ignore", "--quiet", "models/a/1/model.onnx").returncode == 0
    assert "pull_request_target" not in str(triggers)


def test_the_report_on_a_data_set_says_what_was_found(
    trained: Run, dataset: Dataset, pneumo: Callable[..., Any], tmp_path: Path
) -> None:
    checked = pneumo("data", "check", dataset.folder, "--json")
    (tmp_path / "check.json").write_text(checked.out)
    script = GITHUB / "scripts" / "data_report.py"
    done = run(sys.executable, script, tmp_path / "check.json", trained.metrics)
    assert done.returncode == 0, done.stderr
    assert f"{len(dataset.rows)} images" in done.stdout
    assert "| split | NORMAL | PNEUMONIA | patients |" in done.stdout
    auroc = json.loads(trained.metrics.read_text())["splits"]["test"]["metrics"]["auroc"]["value"]
    assert f"| test | {auroc:.3f} (" in done.stdout
    assert "not a medical device" in done.stdout


def test_the_report_says_where_nothing_came_and_quotes_names(tmp_path: Path) -> None:
    finding = {"severity": "defect", "summary": "1 unreadable: `@all <b>.png", "kind": "unreadable"}
    check = {"passed": False, "images": 1, "counts": {"train": {"A": 1}}, "patients": {}, "findings": [finding]}
    (tmp_path / "check.json").write_text(json.dumps(check))
    done = run(sys.executable, GITHUB / "scripts" / "data_report.py", tmp_path / "check.json", tmp_path / "none.json")
    assert "The audit found defects" in done.stdout
    assert "- defect: `1 unreadable: '@all <b>.png`" in done.stdout
    assert "The smoke training did not end" in done.stdout


@pytest.mark.parametrize(
    ("name", "size", "refused"), [("a.py", 100, False), ("film.dcm", 100, True), ("long.csv", 1_000_001, True)]
)
def test_large_and_private_files_are_refused(tmp_path: Path, name: str, size: int, refused: bool) -> None:
    (tmp_path / name).write_bytes(b"x" * size)
    done = run("bash", GITHUB / "scripts" / "large_files.sh", tmp_path / name)
    assert (done.returncode == 1) is refused
    assert (name in done.stderr) is refused


def test_hooks_run_what_is_installed_and_download_nothing() -> None:
    (local,) = loaded(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    tracked = [name for name in run("git", "ls-files").stdout.splitlines() if (ROOT / name).is_file()]
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        program = shlex.split(hook["entry"])[0]
        assert (BIN / Path(program).name).is_file() if program.startswith(".venv/bin/") else shutil.which(program)
        for pattern in (hook.get("files"), hook.get("exclude")):
            assert pattern is None or any(re.search(pattern, name) for name in tracked), pattern
    (exclude,) = (hook["exclude"] for hook in local["hooks"] if hook["id"] == "large-files")
    names = [name for name in tracked if not re.search(exclude, name)]
    done = run("bash", GITHUB / "scripts" / "large_files.sh", *names)
    assert done.returncode == 0, done.stderr


def step_of(workflow: str, job: str, name: str) -> str:
    steps = loaded(GITHUB / "workflows" / f"{workflow}.yml")["jobs"][job]["steps"]
    (found,) = (step["run"] for step in steps if step.get("name", "").startswith(name))
    return str(found)


def stand_in(folder: Path, text: str) -> dict[str, str]:
    """An environment in which `gcloud` is a script of ours."""
    (folder / "bin").mkdir()
    (folder / "bin" / "gcloud").write_text("#!/usr/bin/env bash\n" + text)
    (folder / "bin" / "gcloud").chmod(0o755)
    told = {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary")}
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PROJECT": "ward", "REGION": "europe-west4", **told}


def test_the_revision_that_is_deployed_has_its_project_and_the_image_that_was_built(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    env = stand_in(tmp_path, 'echo "$@" >> asked\n[[ $* == *describe* ]] && echo https://pneumo.example\ntrue\n')
    env |= {"SERVE": "sha256:1", "DRIFT": "sha256:2"}
    done = run("bash", "-ec", step_of("deploy", "deploy", "A new revision"), cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    service = loaded(tmp_path / "service.yaml")
    assert not re.search(r"PROJECT|REGION|TAG", json.dumps(service))
    pod = service["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "pneumo-serve@ward.iam.gserviceaccount.com"
    assert pod["containers"][0]["image"] == "europe-west4-docker.pkg.dev/ward/pneumo/serve@sha256:1"
    assert "europe-west4-docker.pkg.dev/ward/pneumo/drift@sha256:2" in (tmp_path / "asked").read_text()
    assert (tmp_path / "output").read_text() == "url=https://pneumo.example\n"


@pytest.mark.parametrize(
    ("execution", "succeeded", "code", "told"),
    [
        ("pneumo-drift-x", "1", "", ""),  # Google leaves out a code of zero
        ("pneumo-drift-x", "1", "0", ""),
        ("pneumo-drift-x", "", "1", "The images have drifted"),
        ("pneumo-drift-x", "", "3", "failed with exit 3"),
        ("pneumo-drift-x", "", "", "failed with exit unknown"),  # its machine was lost, or it was cancelled
        ("", "1", "0", "not started"),
    ],
)
def test_the_night_is_green_only_after_a_check_that_found_no_drift(
    tmp_path: Path, execution: str, succeeded: str, code: str, told: str
) -> None:
    text = f"""
case "$*" in
  *"jobs execute pneumo-drift "*--async*) echo {execution} ;;
  *"describe pneumo-drift-x"*completionTime*) [ -e waited ] && echo 2026-11-29T03:41:00Z; touch waited ;;
  *"describe pneumo-drift-x"*succeededCount*) echo {succeeded} ;;
  *"tasks list"*"--execution pneumo-drift-x"*) echo {code} ;;
  *) exit 9 ;;
esac
"""
    step = step_of("drift", "check", "Run the job").replace("sleep 10", "sleep 0.1")
    done = run("bash", "-ec", step, env=stand_in(tmp_path, text), cwd=tmp_path)
    assert (done.returncode == 0) is (not told), done.stdout + done.stderr
    assert told in done.stdout


def test_a_night_whose_job_cannot_be_started_is_red(tmp_path: Path) -> None:
    env = stand_in(tmp_path, '[[ "$*" == *execute* ]] && exit 1\necho 1\n')
    assert run("bash", "-ec", step_of("drift", "check", "Run the job"), env=env).returncode != 0


@pytest.mark.slow
@pytest.mark.lengthy
def test_the_gate_of_a_merged_promotion_judges_again(exported: Path, dataset: Dataset, tmp_path: Path) -> None:
    pneumo = BIN / "pneumo"
    shutil.copytree(exported, tmp_path / "bundle")
    shutil.copytree(dataset.folder, tmp_path / "data")
    shutil.copytree(ROOT / "ludwig_configs", tmp_path / "ludwig_configs")

    def git(*words: str) -> None:
        assert run("git", "-c", "user.name=a", "-c", "user.email=a@b", *words, cwd=tmp_path).returncode == 0

    def gate(commit: str = "HEAD^") -> "subprocess.CompletedProcess[str]":
        return run(
            "bash", GITHUB / "scripts" / "gate.sh", commit, cwd=tmp_path, env={**os.environ, "PNEUMO": str(pneumo)}
        )

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "before")
    promoted = run(pneumo, "promote", "./bundle", "--data", "data", cwd=tmp_path)
    assert promoted.returncode == 0, promoted.stderr
    git("add", "models/registry.yaml")
    git("commit", "--quiet", "--message", "promote")

    first = gate()
    assert first.returncode == 0, first.stderr
    assert "there was no registry before" in first.stdout

    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert gate().returncode == 1, "without the data nothing can be judged"
    shutil.rmtree(tmp_path / "models")
    forced = run(pneumo, "promote", "./bundle", "--force", "the ward waits", cwd=tmp_path)
    assert forced.returncode == 0, forced.stderr
    git("commit", "--quiet", "--all", "--message", "force")
    told = gate("HEAD^^")
    assert told.returncode == 0, told.stderr
    assert "::warning::The gate refuses this model. It was forced, because: the ward waits" in told.stdout

    (model,) = (tmp_path / "models").rglob("model.onnx")
    model.write_bytes(model.read_bytes()[:-1])
    assert gate("HEAD^^").returncode != 0, "a bundle that was changed is no model"


def release_notes(folder: Path, tag: str) -> "subprocess.CompletedProcess[str]":
    return run(sys.executable, GITHUB / "scripts" / "release_notes.py", tag, cwd=folder)


def test_a_release_prints_its_part_of_the_changelog(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0\n\n### Fixed\n\n- This.\n\n## 1.1.0\n\n- That.\n")

    done = release_notes(tmp_path, "v1.2.0")

    assert (done.returncode, done.stdout) == (0, "### Fixed\n\n- This.\n")


@pytest.mark.parametrize(
    ("tag", "heading", "message"),
    [
        ("v1.2.1", "## 1.2.0", "tag v1.2.1: pyproject.toml says version 1.2.0"),
        ("v1.2.0", "## Unreleased", "CHANGELOG.md: no lines under a heading '## 1.2.0'"),
        ("v1.2.0", "## 1.2.0\n\n## 1.1.0", "CHANGELOG.md: no lines under a heading '## 1.2.0'"),
    ],
)
def test_a_release_that_does_not_agree_with_itself_is_refused(
    tmp_path: Path, tag: str, heading: str, message: str
) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")

    done = release_notes(tmp_path, tag)

    assert (done.returncode, done.stderr.strip()) == (1, message)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(("script", "expected"), [("exit 127", ".uv/bin/uv"), ("exit 0", "{shim}")])
def test_make_uses_the_uv_of_the_path_only_if_it_starts(tmp_path: Path, script: str, expected: str) -> None:
    shim = tmp_path / "uv"
    shim.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    shim.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    said = subprocess.run(
        ["make", "--dry-run", "--print-data-base", "help"],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert f"UV := {expected.format(shim=shim)}" in said.splitlines()
