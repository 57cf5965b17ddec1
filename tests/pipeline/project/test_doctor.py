import importlib.metadata
import json
import os
import subprocess
import sys
from collections import namedtuple

from pneumo.pipeline.project import doctor
from pneumo.pipeline.project.doctor import examine_environment
from tests.support.paths import ROOT


def by_name(found):
    return {each.name: each for each in found}


def test_this_machine_is_ready_and_the_command_says_so(pneumo):
    outcome = pneumo("doctor")
    assert outcome.code == 0, outcome.err
    assert "ready" in outcome.err
    assert f"ludwig {importlib.metadata.version('ludwig')}" in outcome.out
    document = json.loads(pneumo("doctor", "--json").out)
    assert document["ready"]
    assert list(document["findings"][0]) == ["area", "name", "state", "told", "mend", "needed"]
    assert {each["area"] for each in document["findings"]} == {"packages", "machine", "cluster", "tracking", "project"}


def test_a_missing_package_of_the_basic_loop_exits_3_with_the_fix(pneumo, monkeypatch):
    version = importlib.metadata.version

    def without(name):
        if name == "ludwig":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.15.0" if name == "torch" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    outcome = pneumo("doctor")
    assert outcome.code == 3
    assert "extra train" in outcome.err
    for text in ("no ludwig", "torch 2.15.0, not ==2.11.*", "pip install '.[train]'"):
        assert text in outcome.out


def test_what_is_optional_is_off_not_missing(monkeypatch):
    monkeypatch.setattr(doctor, "_find_problem", lambda each: "no evidently" if each.name == "evidently" else None)
    found = by_name(examine_environment())["extra drift"]
    assert (found.state, found.needed, found.fix) == (
        "off",
        False,
        "run `pip install '.[drift]'` in a checkout of pneumo",
    )


def test_a_full_disk_is_needed_space(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("pneumo.pipeline.project.doctor.shutil.disk_usage", lambda _: usage(10**12, 10**12, 10**8))
    found = by_name(examine_environment(tmp_path))["free disk"]
    assert (found.state, found.needed) == ("missing", True)
    assert "free some space" in found.fix


def test_a_bucket_as_remote_needs_credentials(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(
        "[core]\n    remote = team\n['remote \"team\"']\n    url = gs://team/data\n"
    )
    environment = {"HOME": str(tmp_path)}
    found = by_name(examine_environment(tmp_path, environment))["DVC remote"]
    assert (found.state, found.told) == ("missing", "team: gs://team/data, no credentials")
    (tmp_path / "key.json").write_text("{}")
    environment["GOOGLE_APPLICATION_CREDENTIALS"] = str(tmp_path / "key.json")
    assert by_name(examine_environment(tmp_path, environment))["DVC remote"].state == "ok"


def test_the_state_of_tracking_and_cluster_is_read_from_the_environment(tmp_path):
    bare = by_name(examine_environment(tmp_path, {"HOME": str(tmp_path)}))
    assert (bare["W&B"].state, bare["DVC remote"].state, bare["registry"].state) == ("off", "off", "off")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    full = by_name(examine_environment(tmp_path, {"HOME": str(tmp_path), "RAY_ADDRESS": "10.0.0.1:6379"}))
    assert full["W&B"].state == "ok"
    assert "10.0.0.1:6379" in full["Ray"].told


def test_nothing_heavy_is_imported():
    program = (
        "import sys; from pneumo.pipeline.project.doctor import examine_environment; examine_environment(); "
        "print(*(name for name in ('torch', 'ludwig', 'ray', 'dvc', 'wandb', 'numpy') if name in sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert done.stdout.split() == []


def test_completion_answers_for_the_shell():
    environment = os.environ | {"_PNEUMO_COMPLETE": "complete_bash", "COMP_WORDS": "pneumo doc", "COMP_CWORD": "1"}
    program = "import sys; sys.argv = ['pneumo']; from pneumo.pipeline.cli import app; app(prog_name='pneumo')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.stdout.split() == ["doctor"]
