"""`deploy/cloudrun` and `deploy/kubernetes`: schemas, and that they agree with the service that they start."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from fastapi.testclient import TestClient

from pneumo.serving.access.api_keys import add_key
from pneumo.serving.contracts.settings import PREFIX, Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.inference.service import DECODERS
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.process.server import GRACE_S
from tests.support.bundles import make_bundle
from tests.support.paths import ROOT

CLOUD_RUN = ROOT / "deploy" / "cloudrun" / "service.yaml"
KUBERNETES = ROOT / "deploy" / "kubernetes"
DOCKER = "REGION-docker.pkg.dev/PROJECT/pneumo/serve"
RESIDENT = 400_000_000
"""Bytes that a process takes at most without requests, which benchmarks hold it to."""
DRIFT_CHECK = 411_000_000
"""Bytes of a check with Evidently's page, in a process beside the service (docs/deploy.md)."""
FILM = 60_000_000
"""Bytes that decoding a full-size film takes."""
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def one(path: Path) -> dict[str, Any]:
    (found,) = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def cloud_run() -> dict[str, Any]:
    spec: dict[str, Any] = one(CLOUD_RUN)["spec"]["template"]["spec"]
    return spec


def deployment() -> dict[str, Any]:
    spec: dict[str, Any] = one(KUBERNETES / "deployment.yaml")["spec"]["template"]["spec"]
    return spec


on_both = pytest.mark.parametrize("pod", [cloud_run, deployment], ids=["cloudrun", "kubernetes"])


def container(pod: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    (found,) = (each for each in pod()["containers"] if each["name"] == "serve")
    assert isinstance(found, dict)
    return found


def environment(pod: Callable[[], dict[str, Any]]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(pod)["env"] if "value" in each}


def settings_of(pod: Callable[[], dict[str, Any]]) -> Settings:
    return Settings.from_environment(environment(pod))


def quantity(text: str) -> float:
    return float(text[:-2]) * UNITS[text[-2:]] if text[-2:] in UNITS else float(text)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made: Bundle = make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return made


@pytest.mark.parametrize("path", sorted(KUBERNETES.glob("*.yaml")), ids=lambda path: path.stem)
def test_kubernetes_knows_every_field(path: Path) -> None:
    if path.stem == "kustomization":
        by_hand = {path.name, "fill.yaml"}
        assert set(one(path)["resources"]) | by_hand == {other.name for other in KUBERNETES.glob("*.yaml")}
        return
    kubernetes_validate.validate(one(path), kubernetes_validate.latest_version(), strict=True)


def test_cloud_run_knows_every_field() -> None:
    """Its revisions are pods with fields of their own."""
    service = one(CLOUD_RUN)
    assert (service["apiVersion"], service["kind"]) == ("serving.knative.dev/v1", "Service")
    spec = cloud_run()
    own = {"containerConcurrency": spec.pop("containerConcurrency"), "timeoutSeconds": spec.pop("timeoutSeconds")}
    assert all(isinstance(value, int) for value in own.values())
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    for annotations in (service["metadata"]["annotations"], service["spec"]["template"]["metadata"]["annotations"]):
        assert all(isinstance(value, str) for value in annotations.values())


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_puts_the_files_together() -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    found = {each["kind"]: each for each in yaml.safe_load_all(built)}
    assert found.keys() == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "PersistentVolumeClaim",
    }
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in found["Deployment"]["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == [found["PersistentVolumeClaim"]["metadata"]["name"]]
    assert {each["metadata"]["namespace"] for each in found.values()} == {"pneumo"}
    (serve,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert serve["image"] == f"{DOCKER}:TAG"


@on_both
def test_every_variable_is_a_setting_and_every_value_is_one(pod: Callable[[], dict[str, Any]]) -> None:
    names = {each["name"] for each in container(pod)["env"]}
    assert names <= {PREFIX + name.upper() for name in Settings.model_fields}
    settings_of(pod)


@on_both
def test_probes_reach_a_service_that_asks_for_keys(
    pod: Callable[[], dict[str, Any]], bundle: Bundle, tmp_path: Path
) -> None:
    add_key(tmp_path / "keys.yaml", "ward-3")
    settings = settings_of(pod).model_copy(update={"keys": tmp_path / "keys.yaml", "threads": 1, "reload_s": 0})
    serve = container(pod)
    (port,) = serve["ports"]
    assert port["containerPort"] == settings.port
    with TestClient(create_app(bundle, settings)) as client:
        while client.get("/readyz").status_code != 200:
            pass
        assert client.get("/v1/model").status_code == 401
        for probe, path in (("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/healthz")):
            get = serve[f"{probe}Probe"]["httpGet"]
            assert get["path"] == path
            assert get["port"] in (port["containerPort"], port.get("name"))
            assert client.get(get["path"]).status_code == 200


def test_prometheus_needs_no_key_where_the_annotations_send_it(bundle: Bundle, tmp_path: Path) -> None:
    add_key(tmp_path / "keys.yaml", "ward-3")
    settings = settings_of(deployment).model_copy(update={"keys": tmp_path / "keys.yaml", "threads": 1, "reload_s": 0})
    annotations = one(KUBERNETES / "deployment.yaml")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(settings.port)
    with TestClient(create_app(bundle, settings)) as client:
        assert client.get(annotations["prometheus.io/path"]).status_code == 200


@on_both
def test_threads_are_the_cores_that_there_are(pod: Callable[[], dict[str, Any]]) -> None:
    settings, limits = settings_of(pod), container(pod)["resources"]["limits"]
    assert settings.threads == quantity(limits["cpu"])
    assert settings.workers == 1


@on_both
def test_memory_holds_the_model_the_bodies_and_the_films(pod: Callable[[], dict[str, Any]]) -> None:
    settings, limits = settings_of(pod), container(pod)["resources"]["limits"]
    check = DRIFT_CHECK if settings.checks_drift() else 0
    assert quantity(limits["memory"]) >= RESIDENT + settings.max_pending_bytes + DECODERS * FILM + check


@on_both
def test_every_mount_has_its_volume_and_every_path_its_mount(pod: Callable[[], dict[str, Any]]) -> None:
    serve, settings = container(pod), settings_of(pod)
    mounts = {mount["mountPath"]: mount["name"] for mount in serve["volumeMounts"]}
    assert set(mounts.values()) == {volume["name"] for volume in pod()["volumes"]}
    assert str(settings.models_dir) in mounts
    assert str(settings.keys.parent) in mounts
    if pod is deployment:  # Cloud Run's own file system can be written to
        assert any(settings.log_spool.is_relative_to(path) for path in mounts)


def test_cloud_runs_collector_starts_after_the_service_and_gets_no_secret() -> None:
    (collector,) = (each for each in cloud_run()["containers"] if each["name"] != "serve")
    assert collector.keys() == {"name", "image"}
    annotations = one(CLOUD_RUN)["spec"]["template"]["metadata"]["annotations"]
    assert json.loads(annotations["run.googleapis.com/container-dependencies"]) == {collector["name"]: ["serve"]}
    (port,) = container(cloud_run)["ports"]
    assert port["containerPort"] == 8080, "where the collector looks for /metrics"


def test_pods_end_after_the_service_has() -> None:
    assert deployment()["terminationGracePeriodSeconds"] >= settings_of(deployment).drain_s + GRACE_S
    readiness = container(deployment)["readinessProbe"]
    assert settings_of(deployment).drain_s >= readiness["periodSeconds"] * readiness["failureThreshold"]


def test_cloud_run_kills_after_the_service_has_ended() -> None:
    assert settings_of(cloud_run).drain_s + GRACE_S <= 10


def test_cloud_run_waits_as_long_as_the_service_may_take() -> None:
    assert cloud_run()["timeoutSeconds"] >= 2 * settings_of(cloud_run).timeout_s


def test_pods_may_do_nothing_that_they_need_not() -> None:
    pod, serve = deployment(), container(deployment)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] >= 10_000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert serve["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def test_every_selector_means_the_pods() -> None:
    labels = one(KUBERNETES / "deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        one(KUBERNETES / "deployment.yaml")["spec"]["selector"]["matchLabels"],
        one(KUBERNETES / "service.yaml")["spec"]["selector"],
        one(KUBERNETES / "pdb.yaml")["spec"]["selector"]["matchLabels"],
        one(KUBERNETES / "networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in deployment()["topologySpreadConstraints"]),
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert (
        one(KUBERNETES / "hpa.yaml")["spec"]["scaleTargetRef"]["name"]
        == one(KUBERNETES / "deployment.yaml")["metadata"]["name"]
    )


def test_a_node_can_be_drained_while_one_pod_answers() -> None:
    fewest = one(KUBERNETES / "hpa.yaml")["spec"]["minReplicas"]
    assert fewest > one(KUBERNETES / "pdb.yaml")["spec"]["maxUnavailable"] > 0
    assert "replicas" not in one(KUBERNETES / "deployment.yaml")["spec"]


@on_both
def test_no_secret_stands_in_the_files(pod: Callable[[], dict[str, Any]]) -> None:
    (url,) = (each for each in container(pod)["env"] if each["name"] == "PNEUMO_LOG_URL")
    assert "secretKeyRef" in url["valueFrom"]
    (keys,) = (volume for volume in pod()["volumes"] if volume["name"] == "keys")
    assert "secret" in keys
    assert not re.search(r"pneumo_[0-9a-f]{16}_|BEGIN [A-Z ]*KEY|sha256", json.dumps(pod()))


@on_both
def test_the_image_is_a_placeholder_and_the_command_exists(pod: Callable[[], dict[str, Any]]) -> None:
    serve = container(pod)
    assert serve["image"].removesuffix(":TAG") == DOCKER
    assert serve["command"] == ["pneumo", "serve"]
