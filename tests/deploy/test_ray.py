"""`deploy/ray/`: the cluster of Ray's launcher against Ray's own schema, the KubeRay job against its CRD's fields."""

import itertools
import re
import shlex
from typing import Any

import jsonschema
import pytest
import yaml
from typer.main import get_command

from pneumo.pipeline.cli import app
from tests.support.paths import ROOT
from tests.support.ray_configs import TEXT, TRUTH, WHOLE, closed, every

GCP, KUBERAY = ROOT / "deploy" / "ray" / "gcp.yaml", ROOT / "deploy" / "ray" / "kuberay.yaml"
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITIES = {"type": "object", "additionalProperties": {"anyOf": [TEXT, WHOLE]}}


RESOURCES = closed(requests=QUANTITIES, limits=QUANTITIES)
CONTAINER = closed(
    "name image resources",
    name=TEXT,
    image=TEXT,
    command=every(TEXT),
    args=every(TEXT),
    env=every(closed("name", name=TEXT, value=TEXT)),
    ports=every(closed("containerPort", containerPort=WHOLE, name={"type": "string", "maxLength": 15})),
    resources=RESOURCES,
    volumeMounts=every(closed("name mountPath", name=TEXT, mountPath=TEXT, readOnly=TRUTH, subPath=TEXT)),
)
VOLUME = closed(
    "name",
    name=TEXT,
    emptyDir=closed(medium={"enum": ["", "Memory"]}, sizeLimit=TEXT),
    csi=closed("driver", driver=TEXT, readOnly=TRUTH, volumeAttributes=TEXTS),
    persistentVolumeClaim=closed("claimName", claimName=TEXT, readOnly=TRUTH),
)
POD = closed(
    "spec",
    metadata=closed(annotations=TEXTS, labels=TEXTS),
    spec=closed(
        "containers",
        containers=every(CONTAINER),
        volumes=every(VOLUME),
        serviceAccountName=TEXT,
        nodeSelector=TEXTS,
        tolerations=every(
            closed(
                "key operator",
                key=TEXT,
                operator={"enum": ["Equal", "Exists"]},
                value=TEXT,
                effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
            )
        ),
        terminationGracePeriodSeconds=WHOLE,
    ),
)
RAY_JOB = closed(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=closed("name", name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS),
    spec=closed(
        "entrypoint rayClusterSpec",
        activeDeadlineSeconds=WHOLE,
        backoffLimit=WHOLE,
        clusterSelector=TEXTS,
        entrypoint=TEXT,
        entrypointNumCpus={"type": "number"},
        entrypointNumGpus={"type": "number"},
        entrypointResources=TEXT,
        jobId=TEXT,
        metadata=TEXTS,
        runtimeEnvYAML=TEXT,
        shutdownAfterJobFinishes=TRUTH,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        suspend=TRUTH,
        ttlSecondsAfterFinished=WHOLE,
        rayClusterSpec=closed(
            "headGroupSpec",
            autoscalerOptions=closed(
                idleTimeoutSeconds=WHOLE,
                upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
                resources=RESOURCES,
            ),
            enableInTreeAutoscaling=TRUTH,
            headGroupSpec=closed("rayStartParams template", rayStartParams=TEXTS, template=POD, serviceType=TEXT),
            rayVersion=TEXT,
            suspend=TRUTH,
            workerGroupSpecs=every(
                closed(
                    "groupName rayStartParams template minReplicas maxReplicas",
                    groupName=TEXT,
                    idleTimeoutSeconds=WHOLE,
                    replicas=WHOLE,
                    minReplicas=WHOLE,
                    maxReplicas=WHOLE,
                    numOfHosts=WHOLE,
                    rayStartParams=TEXTS,
                    template=POD,
                )
            ),
        ),
    ),
)
"""The fields of KubeRay's `RayJob` (ray.io/v1) and of the pods in it, of which those that matter here."""


def launcher() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(GCP.read_text(encoding="utf-8"))
    return loaded


def objects() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(KUBERAY.read_text(encoding="utf-8")))


def job() -> dict[str, Any]:
    (found,) = (each for each in objects() if each["kind"] == "RayJob")
    return found


def pods() -> list[dict[str, Any]]:
    cluster = job()["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def locked_ray() -> str:
    (version,) = re.findall(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    return str(version)


def test_the_launcher_takes_the_cluster_as_it_is() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(launcher())

    validate_config(prepared)
    assert prepared["head_node_type"] == "head"


def test_the_launchers_schema_refuses_what_is_misspelt() -> None:
    import ray.autoscaler._private.util as util

    wrong = util.prepare_config(launcher() | {"max_worker": 8})

    with pytest.raises(jsonschema.ValidationError):
        util.validate_config(wrong)


def test_workers_are_preemptible_and_scale_and_the_head_is_neither() -> None:
    nodes = launcher()["available_node_types"]
    head = nodes.pop("head")

    assert "scheduling" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    for node in nodes.values():
        assert {"preemptible": True} in node["node_config"]["scheduling"]
        assert node["min_workers"] < node["max_workers"]
    assert nodes["gpu_worker"]["resources"]["GPU"] == 1
    assert {"onHostMaintenance": "TERMINATE"} in nodes["gpu_worker"]["node_config"]["scheduling"]
    assert sum(node["max_workers"] for node in nodes.values()) <= launcher()["max_workers"]


def test_every_machine_runs_the_ray_of_the_lock() -> None:
    images = set(re.findall(r"rayproject/ray:(\S+?)[-}\s]", GCP.read_text(encoding="utf-8")))

    assert images == {locked_ray()}
    assert job()["spec"]["rayClusterSpec"]["rayVersion"] == locked_ray()
    assert all("requirements.lock" in command or "--no-deps" in command for command in launcher()["setup_commands"])


def test_what_is_large_or_private_stays_here() -> None:
    excluded = set(launcher()["rsync_exclude"])

    assert {".git", ".venv", "data", "runs", "sweeps", "models"} <= excluded


def test_the_kuberay_job_has_the_fields_that_the_operator_knows() -> None:
    jsonschema.validate(job(), RAY_JOB)


def test_the_kuberay_schema_refuses_what_is_misspelt() -> None:
    wrong = job()
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 3

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, RAY_JOB)


def test_every_mount_of_the_job_has_its_volume_and_every_claim_its_object() -> None:
    claims = {each["metadata"]["name"] for each in objects() if each["kind"] == "PersistentVolumeClaim"}

    asked: set[str] = set()
    for pod in pods():
        volumes = pod["volumes"]
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in volumes}
            assert "/dev/shm" in {mount["mountPath"] for mount in container["volumeMounts"]}
        asked |= {each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each}
    assert asked == claims


def test_workers_of_the_job_run_on_spot_machines_and_the_head_does_not() -> None:
    head, *workers = pods()

    assert "nodeSelector" not in head
    for pod in workers:
        assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
        assert "cloud.google.com/gke-spot" in {toleration["key"] for toleration in pod["tolerations"]}


def commands() -> list[list[str]]:
    """Every `pneumo sweep` that is shown or run under `deploy/ray/`."""
    shown = re.findall(r"'(pneumo sweep [^']+)'", GCP.read_text(encoding="utf-8"))
    inline = re.findall(r"`(pneumo sweep [^`]+)`", KUBERAY.read_text(encoding="utf-8").replace("\n# ", " "))
    return [shlex.split(text) for text in (*shown, *inline, job()["spec"]["entrypoint"])]


def test_commands_are_those_of_the_command_line() -> None:
    found = commands()
    assert len(found) >= 3

    for words in found:
        command: Any = get_command(app)
        rest = words[1:]
        while hasattr(command, "commands"):
            assert rest[0] in command.commands, words
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(words[1], list(rest))  # parses and converts every option


def test_the_jobs_deadline_lies_beyond_its_time_budget_and_its_results_outlive_it() -> None:
    from pneumo.pipeline.sweep.sweep_settings import parse_seconds

    words = shlex.split(job()["spec"]["entrypoint"])
    asked = dict(itertools.pairwise(words))

    assert parse_seconds(asked["--time-budget"]) < job()["spec"]["activeDeadlineSeconds"]
    assert asked["--storage"].startswith("gs://")
    assert asked["--address"] == "auto"
    (sweeps,) = (mount for mount in pods()[0]["containers"][0]["volumeMounts"] if mount["name"] == "sweeps")
    assert asked["--sweeps-dir"] == sweeps["mountPath"]


def test_no_secret_stands_in_the_files() -> None:
    for path in (GCP, KUBERAY):
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"private_key|BEGIN [A-Z ]*KEY|password|api[_-]?key|secretKeyRef|token:", text, re.IGNORECASE
        )
        assert "PROJECT" in text
