"""`deploy/gcp/vertex`: jobs that Vertex AI takes as they are, with commands, accounts and limits that exist."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.main import get_command

from pneumo.pipeline.cli import app
from pneumo.pipeline.sweep.sweep_settings import parse_seconds
from tests.support.paths import ROOT
from tests.support.ray_configs import TEXT, WHOLE, closed, every
from tests.support.waiting import until

JOBS = sorted((ROOT / "deploy" / "gcp" / "vertex").glob("*.yaml"))
IMAGE = "REGION-docker.pkg.dev/PROJECT/pneumo/train:TAG"


CUSTOM_JOB = closed(
    "workerPoolSpecs",
    serviceAccount=TEXT,
    scheduling=closed(
        timeout={"type": "string", "pattern": r"^\d+s$"},
        strategy={"enum": ["STANDARD", "SPOT", "FLEX_START"]},
        restartJobOnWorkerRestart={"type": "boolean"},
        disableRetries={"type": "boolean"},
        maxWaitDuration=TEXT,
    ),
    workerPoolSpecs=every(
        closed(
            "machineSpec replicaCount containerSpec",
            machineSpec=closed("machineType", machineType=TEXT, acceleratorType=TEXT, acceleratorCount=WHOLE),
            diskSpec=closed(bootDiskType={"enum": ["pd-ssd", "pd-standard"]}, bootDiskSizeGb=WHOLE),
            replicaCount={"type": "string", "pattern": r"^\d+$"},  # a 64-bit number, which JSON writes as text
            containerSpec=closed("imageUri", imageUri=TEXT, command=every(TEXT), args=every(TEXT)),
        )
    ),
)
"""The fields of Vertex AI's `CustomJobSpec` (REST reference, v1) of which those that matter here."""

by_name = pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)


def job(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def script(path: Path) -> str:
    (pool,) = job(path)["workerPoolSpecs"]
    assert pool["containerSpec"]["command"] == ["bash", "-euc"]
    (text,) = pool["containerSpec"]["args"]
    return str(text)


@by_name
def test_the_job_has_the_fields_that_vertex_knows(path: Path) -> None:
    jsonschema.validate(job(path), CUSTOM_JOB)
    wrong = job(path) | {"timeout": "1s"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, CUSTOM_JOB)


@by_name
def test_image_and_account_are_those_that_terraform_makes(path: Path) -> None:
    accounts = (ROOT / "deploy" / "gcp" / "accounts.tf").read_text(encoding="utf-8")
    assert job(path)["workerPoolSpecs"][0]["containerSpec"]["imageUri"] == IMAGE
    account = job(path)["serviceAccount"].removesuffix("@PROJECT.iam.gserviceaccount.com")
    assert re.search(rf"^    {account} +=", accounts, flags=re.MULTILINE)
    assert account in re.findall(r"writes_data +=.*", accounts)[0]


@by_name
def test_commands_are_those_of_the_command_line(path: Path) -> None:
    lines = [line for line in map(str.strip, script(path).splitlines()) if line.startswith("pneumo ")]
    assert lines
    for line in lines:
        command: Any = get_command(app)
        words = shlex.split(line)[1:]
        command.commands[words[0]].make_context("pneumo", words[1:])
    for config in re.findall(r"ludwig_configs/\S+", script(path)):
        assert (ROOT / config).is_file()


def test_a_sweeps_deadline_lies_beyond_its_time_budget() -> None:
    path = next(each for each in JOBS if each.stem == "sweep")
    budget = re.findall(r"--time-budget (\S+)", script(path))[0]
    assert parse_seconds(budget) < int(job(path)["scheduling"]["timeout"][:-1])


def in_folders(path: Path, folder: Path, program: str) -> tuple[list[str], dict[str, Any]]:
    """The job's own script, with folders for buckets and a program that notes what it was asked for."""
    (folder / "PROJECT-pneumo" / "data" / "images").mkdir(parents=True)
    (folder / "PROJECT-pneumo" / "data" / "images" / "a.png").write_bytes(b"film")
    (folder / "PROJECT-pneumo" / "unfinished").mkdir()
    (folder / "bin").mkdir()
    (folder / "bin" / "pneumo").write_text(program)
    (folder / "bin" / "pneumo").chmod(0o755)
    local = script(path).replace('filesystem("gs")', 'filesystem("file")')
    local = re.sub(r"(?<![/\w])PROJECT-pneumo/", f"{folder}/PROJECT-pneumo/", local)
    assert local != script(path)
    path_of_programs = f"{folder / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
    return ["bash", "-euc", local], {"env": {"PATH": path_of_programs, "CLOUD_ML_JOB_ID": "7"}, "text": True}


NOTES = """#!/bin/bash
cat data/images/a.png > /dev/null
mkdir -p runs sweeps
echo "$@" | tee -a runs/asked >> sweeps/asked
"""


@by_name
def test_the_script_brings_data_runs_and_takes_the_result_away(path: Path, tmp_path: Path) -> None:
    command, options = in_folders(path, tmp_path, NOTES)
    (tmp_path / "work").mkdir()
    done = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, timeout=120, **options)
    assert done.returncode == 0, done.stderr
    (asked,) = (tmp_path / "PROJECT-pneumo").glob("*/asked")
    assert asked.read_text().startswith(path.stem)
    assert not any((tmp_path / "PROJECT-pneumo" / "unfinished").iterdir())


@by_name
def test_a_job_whose_machine_is_taken_away_continues_on_another(path: Path, tmp_path: Path) -> None:
    stays = 'if [[ "$*" != *--resume* && $1 != e* ]]; then touch started; sleep 60; fi\n'
    command, options = in_folders(path, tmp_path, NOTES + stays)
    (tmp_path / "first").mkdir()
    with subprocess.Popen(command, cwd=tmp_path / "first", **options) as job:
        until((tmp_path / "first" / "started").exists)
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=60) != 0
    (saved,) = (tmp_path / "PROJECT-pneumo" / "unfinished").iterdir()
    assert saved.name == "7.tar"

    (tmp_path / "second").mkdir()
    done = subprocess.run(command, cwd=tmp_path / "second", capture_output=True, timeout=120, **options)
    assert done.returncode == 0, done.stderr
    (asked,) = (tmp_path / "PROJECT-pneumo").glob("*/asked")
    first, second, *_ = asked.read_text().splitlines()
    assert first.startswith(path.stem)
    assert "--resume" not in first
    assert second.startswith(f"{path.stem} --resume latest")
    assert not saved.exists()


def test_a_program_that_fails_fails_the_job(tmp_path: Path) -> None:
    path = next(each for each in JOBS if each.stem == "train")
    command, options = in_folders(path, tmp_path, NOTES + "[ $1 != evaluate ]\n")
    (tmp_path / "work").mkdir()
    done = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, timeout=120, **options)
    assert done.returncode == 1
    assert not (tmp_path / "PROJECT-pneumo" / "runs").exists()
    assert "export" not in (tmp_path / "work" / "runs" / "asked").read_text()
