"""`deploy/gcp`: Terraform plans it against Google's schema without an account, and the plan is what `deploy/` says."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from pneumo.pipeline.cli import app
from tests.support import terraform_provider as provider
from tests.support.paths import ROOT

GCP = ROOT / "deploy" / "gcp"
ANSWERS = {"project": "pneumo-example", "github": "ann/pneumo", "email": "ann@example.org"}
MEASURED_MB = 411
"""What a check with Evidently's page takes at its peak (docs/deploy.md)."""


needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")

Terraform = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    """Runs Terraform in a copy of `deploy/gcp`, or in another folder."""
    copy = tmp_path_factory.mktemp("terraform") / "deploy"
    shutil.copytree(ROOT / "deploy", copy, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    offline = {"TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    with provider.provider() as there:

        def run(*words: str, folder: Path = copy / "gcp") -> "subprocess.CompletedProcess[str]":
            env = {**os.environ, **offline, **there}
            return subprocess.run(
                ["terraform", *words], cwd=folder, env=env, capture_output=True, text=True, timeout=120
            )

        done = run("init", "-no-color", "-input=false")
        assert done.returncode == 0, done.stderr
        yield run


@pytest.fixture(scope="module")
def plan(terraform: Terraform) -> dict[str, list[dict[str, Any]]]:
    """The planned resources by type."""
    answers = [f"-var={name}={value}" for name, value in ANSWERS.items()]
    done = terraform("plan", "-no-color", "-input=false", "-out=plan", *answers)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(terraform("show", "-json", "plan").stdout)["planned_values"]["root_module"]["resources"]:
        found.setdefault(each["type"], []).append({"index": each.get("index"), **each["values"]})
    return found


def only(found: list[dict[str, Any]]) -> dict[str, Any]:
    (one,) = found
    return one


@needs_terraform
def test_the_files_are_formatted(terraform: Terraform) -> None:
    done = terraform("fmt", "-check", "-diff", "-recursive", folder=GCP)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_terraform
@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        ("uniform_bucket_level_access = true", "uniform_bucket_access = true", "Unsupported argument"),
        ('  format        = "DOCKER"\n', "", "Missing required argument"),
        ("google_storage_bucket.models.name", "google_storage_bucket.model.name", "Reference to undeclared resource"),
        ("max_retries     = 0", 'max_retries     = "none"', "Incorrect attribute value type"),
    ],
)
def test_what_google_does_not_know_is_refused(
    terraform: Terraform, tmp_path: Path, written: str, instead: str, told: str
) -> None:
    for path in GCP.glob("*.tf"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8").replace(written, instead), encoding="utf-8")
    assert any((tmp_path / path.name).read_text() != path.read_text() for path in GCP.glob("*.tf"))
    assert terraform("init", "-no-color", folder=tmp_path).returncode == 0
    done = terraform("validate", "-no-color", folder=tmp_path)
    assert done.returncode == 1
    assert told in done.stderr


@needs_terraform
def test_the_service_is_the_one_of_the_cloud_run_file(plan: dict[str, list[dict[str, Any]]]) -> None:
    file = yaml.safe_load((ROOT / "deploy" / "cloudrun" / "service.yaml").read_text(encoding="utf-8"))
    pod = file["spec"]["template"]["spec"]
    planned = only(plan["google_cloud_run_v2_service"])["template"][0]
    assert planned["max_instance_request_concurrency"] == pod["containerConcurrency"]
    assert planned["timeout"] == f"{pod['timeoutSeconds']}s"
    by_name = {each["name"]: each for each in planned["containers"]}
    assert by_name.keys() == {each["name"] for each in pod["containers"]}
    (wanted,) = (each for each in pod["containers"] if each["name"] == "serve")
    serve = by_name["serve"]
    assert serve["image"] == "europe-west4-docker.pkg.dev/pneumo-example/pneumo/serve:first"
    assert serve["command"] == wanted["command"]
    assert serve["resources"][0]["limits"] == wanted["resources"]["limits"]
    assert serve["startup_probe"][0]["http_get"][0]["path"] == wanted["startupProbe"]["httpGet"]["path"]
    plain = {each["name"]: each["value"] for each in serve["env"] if not each.get("value_source")}
    assert plain == {each["name"]: each["value"] for each in wanted["env"] if "value" in each}
    (secret,) = (each for each in serve["env"] if each.get("value_source"))
    assert secret["value_source"][0]["secret_key_ref"][0]["secret"] == "pneumo-log-url"
    assert {each["mount_path"] for each in serve["volume_mounts"]} == {"/models", "/keys"}
    gcs = next(each["gcs"][0] for each in planned["volumes"] if each["name"] == "models")
    assert gcs == {"bucket": "pneumo-example-pneumo-models", "read_only": True}


@needs_terraform
def test_the_drift_job_has_the_memory_that_a_check_takes(plan: dict[str, list[dict[str, Any]]]) -> None:
    (container,) = only(plan["google_cloud_run_v2_job"])["template"][0]["template"][0]["containers"]
    limits = container["resources"][0]["limits"]
    assert limits["memory"] == "1Gi"
    assert 2 * MEASURED_MB * 1e6 < 2**30
    (script,) = container["args"]
    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0
    commands = re.findall(r"pneumo (drift [^&|]+?) *(?:&&|\|\|)", script)
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command)
        group: Any = get_command(app)
        options = group.commands["drift"].commands[words[1]].make_context("drift", words[2:]).params
        assert str(options["models_dir"]) == container["volume_mounts"][0]["mount_path"]
    assert container["image"].endswith("/pneumo/drift:first")


@needs_terraform
def test_nobody_has_rights_on_the_project_but_to_write_metrics(plan: dict[str, list[dict[str, Any]]]) -> None:
    assert only(plan["google_project_iam_member"])["role"] == "roles/monitoring.metricWriter"
    roles = {each["role"] for name, found in plan.items() if name.endswith("_iam_member") for each in found}
    assert not {role for role in roles if re.search(r"admin|owner|editor$", role, re.IGNORECASE)}
    assert (
        only(
            [
                each
                for each in plan["google_storage_bucket_iam_member"]
                if each["index"] is None and "models" in each["bucket"]
            ]
        )["role"]
        == "roles/storage.objectUser"
    )
    assert not any("private_key" in name or name == "google_service_account_key" for name in plan)
    for bucket in plan["google_storage_bucket"]:
        assert bucket["public_access_prevention"] == "enforced"


@needs_terraform
def test_only_the_approved_environment_deploys(terraform: Terraform, plan: dict[str, list[dict[str, Any]]]) -> None:
    (pool_provider,) = plan["google_iam_workload_identity_pool_provider"]
    assert pool_provider["attribute_condition"] == "assertion.repository == 'ann/pneumo'"
    lent = [each["index"] for each in plan["google_service_account_iam_member"] if "Identity" in each["role"]]
    assert sorted(lent) == ["pneumo-build", "pneumo-ci", "pneumo-deploy"]
    text = (GCP / "github.tf").read_text(encoding="utf-8")
    assert re.search(r"pneumo-deploy = .*:environment:production\"", text)
    assert re.search(r"pneumo-build  = .*:ref:refs/heads/main\"", text)
    done = terraform("plan", "-no-color", "-input=false", "-var=project=pneumo-example")
    assert done.returncode == 0, done.stderr
    assert "google_iam_workload_identity_pool" not in done.stdout, "without a repository nobody outside is trusted"


@needs_terraform
@pytest.mark.parametrize(("name", "value"), [("project", "Pneumo"), ("github", "https://github.com/ann/pneumo")])
def test_answers_that_cannot_be_are_refused(terraform: Terraform, name: str, value: str) -> None:
    answers = {**ANSWERS, name: value}
    done = terraform("plan", "-no-color", "-input=false", *(f"-var={key}={each}" for key, each in answers.items()))
    assert done.returncode == 1
    assert "Invalid value for variable" in done.stderr


@needs_terraform
def test_every_alert_is_planned_and_told(plan: dict[str, list[dict[str, Any]]]) -> None:
    policies = {each["display_name"]: each for each in plan["google_monitoring_alert_policy"]}
    files = [json.loads(path.read_text(encoding="utf-8")) for path in (GCP / "alerts").glob("*.json")]
    assert policies.keys() == {each["displayName"] for each in files} | {"PneumoDriftJobFailed"}
    for file in files:
        (condition,) = policies[file["displayName"]]["conditions"]
        (promql,) = condition["condition_prometheus_query_language"]
        wanted = file["conditions"][0]["conditionPrometheusQueryLanguage"]
        assert (promql["query"], promql["duration"]) == (wanted["query"], wanted["duration"])
    assert only(plan["google_monitoring_notification_channel"])["labels"] == {"email_address": "ann@example.org"}


def test_the_schema_is_of_every_resource_and_of_the_locked_provider() -> None:
    schema = json.loads((ROOT / "tests" / "support" / "google_schema.json").read_text(encoding="utf-8"))
    text = "".join(path.read_text(encoding="utf-8") for path in GCP.glob("*.tf"))
    assert set(re.findall(r'^resource "(\w+)"', text, flags=re.MULTILINE)) == set(schema["resources"])
    (wanted,) = re.findall(r'version = "~> ([\d.]+)"', text)
    assert schema["provider"].startswith(f"{wanted}.")


def test_the_files_are_hcl() -> None:
    """Where Terraform is missing; CI has it."""
    hcl2 = pytest.importorskip("hcl2", reason="python-hcl2 is not installed")
    for path in GCP.glob("*.tf"):
        with path.open(encoding="utf-8") as file:
            assert hcl2.load(file), path.name


def test_no_secret_stands_in_the_files() -> None:
    for path in GCP.glob("*.tf"):
        assert not re.search(r"secret_data|private_key|password|BEGIN [A-Z ]*KEY", path.read_text(encoding="utf-8")), (
            path
        )
