"""The service on Ray: fast tests of what is built, a slow one with two replicas on a local Ray."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
import yaml
from fastapi.testclient import TestClient

from pneumo.serving.client import Client, ServiceError
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.inference.service import State
from pneumo.serving.model.bundle import BundleError
from pneumo.serving.model.predictor import Predictor
from tests.support.paths import ROOT
from tests.support.waiting import until

serve = pytest.importorskip("ray.serve")
ray_app = pytest.importorskip("pneumo.serving.ray_app")


def test_bounds_come_from_the_environment():
    assert ray_app.Scale.from_environment({}) == ray_app.Scale(min_replicas=1, max_replicas=4)
    found = ray_app.Scale.from_environment({"PNEUMO_RAY_MIN_REPLICAS": "2", "PNEUMO_RAY_MAX_REPLICAS": "9"})
    assert (found.min_replicas, found.max_replicas) == (2, 9)


@pytest.mark.parametrize("given", [{"MAX": "0"}, {"MAX": "many"}, {"MIN": "5"}])
def test_bounds_that_cannot_be_are_refused(given):
    with pytest.raises(InputError, match="PNEUMO_RAY_"):
        ray_app.Scale.from_environment({f"PNEUMO_RAY_{name}_REPLICAS": value for name, value in given.items()})


@pytest.mark.parametrize("args", [{"port": "many"}, {"modle": "champion"}])
def test_arguments_that_are_no_settings_are_refused(args):
    with pytest.raises(InputError, match=next(iter(args))):
        ray_app.app(args)


def test_a_replica_reserves_the_cores_that_it_uses(monkeypatch):
    monkeypatch.setenv("PNEUMO_THREADS", "3")
    assert ray_app.app({})._bound_deployment.ray_actor_options["num_cpus"] == 3
    assert ray_app.app({"threads": "2"})._bound_deployment.ray_actor_options["num_cpus"] == 2
    monkeypatch.delenv("PNEUMO_THREADS")
    assert ray_app.app({})._bound_deployment.ray_actor_options["num_cpus"] == 1


def test_a_replica_has_started_once_it_takes_requests(bundle, png):
    with TestClient(ray_app._build(Settings(model=str(bundle.folder), threads=1))) as client:
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/predict", files={"file": png}).status_code == 200


def test_a_replica_that_cannot_load_its_model_does_not_start(bundle, monkeypatch):
    def broken(*_args: object, **_named: object) -> None:
        raise BundleError("does not run")

    monkeypatch.setattr(Predictor, "__init__", broken)
    application = ray_app._build(Settings(model=str(bundle.folder), threads=1))
    with pytest.raises(BundleError, match="does not run"), TestClient(application):
        pass


def test_a_replica_is_healthy_until_its_service_failed():
    replica = ray_app.Replica()
    replica.app = SimpleNamespace(state=SimpleNamespace(service=SimpleNamespace(state=State.READY, error=None)))
    replica.check_health()
    replica.app.state.service = SimpleNamespace(state=State.FAILED, error=BundleError("gone"))
    with pytest.raises(RuntimeError, match="gone"):
        replica.check_health()


class OnRay:
    """The service as `serve run` runs it."""

    def __init__(self, url: str, process: psutil.Process) -> None:
        self.url = url
        self._process = process

    def replicas(self) -> list[psutil.Process]:
        return [
            child
            for child in self._process.children(recursive=True)
            if child.is_running() and "ServeReplica:pneumo" in " ".join(child.cmdline())
        ]

    def counted(self) -> dict[str, float]:
        """Predictions counted by each replica, by the time at which its process started."""
        found = {}
        with httpx.Client() as http:
            for _ in range(30):
                lines = http.get(f"{self.url}/metrics").text.splitlines()
                values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
                predicted = values['pneumo_images_total{lane="champion",result="predicted"}']
                found[values["process_start_time_seconds"]] = float(predicted)
        return found

    def wait_for_replicas(self, *, besides: Iterable[str] = (), timeout: float = 120) -> dict[str, float]:
        """Wait until two replicas answer, one of them at least none of those."""
        found: dict[str, float] = {}

        def came() -> bool:
            found.clear()
            found.update(self.counted())
            return len(found) == 2 and found.keys() != set(besides)

        until(came, timeout)
        return found


@pytest.fixture(scope="module")
def on_ray(bundle, tmp_path_factory) -> Iterator[OnRay]:
    folder = tmp_path_factory.mktemp("ray")
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    config = folder / "serve.yaml"
    applications = [{"name": "pneumo", "import_path": "pneumo.serving.ray_app:app"}]
    content = {"http_options": {"host": "127.0.0.1", "port": port}, "applications": applications}
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    environment = os.environ | {
        "PNEUMO_MODEL": str(bundle.folder),
        "PNEUMO_RAY_MIN_REPLICAS": "2",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    command = [str(Path(sys.executable).with_name("serve")), "run", "--address", "local", str(config)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    found = psutil.Process(process.pid)
    try:
        running = OnRay(f"http://127.0.0.1:{port}", found)
        with Client(running.url) as client:
            client.wait_until_ready(240)
        yield running
    finally:
        children = found.children(recursive=True) if process.poll() is None else []
        process.terminate()
        _, left = psutil.wait_procs([found, *children], timeout=20)
        for each in left:
            each.kill()


@pytest.mark.lengthy
@pytest.mark.slow
def test_two_replicas_answer_and_one_that_is_killed_comes_back(on_ray, bundle, pngs):
    at_once = 4
    running = on_ray.wait_for_replicas()
    expected = [Predictor(bundle, threads=1).predict_bytes(data).probability for data in pngs]
    failures: list[str] = []
    wrong: list[float] = []
    answered = 0
    told = threading.Event()

    def ask() -> None:
        nonlocal answered
        with Client(on_ray.url, retries=0) as client:
            while not told.is_set():
                for data, probability in zip(pngs, expected, strict=True):
                    try:
                        (found,) = client.predict(data)
                    except ServiceError as error:
                        failures.append(str(error))
                    else:
                        answered += 1
                        if found.probability != pytest.approx(probability, abs=1e-6):
                            wrong.append(found.probability)

    threads = [threading.Thread(target=ask) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: answered > 100)
        before = answered, len(failures)
        counted = on_ray.counted()
        on_ray.replicas()[0].kill()
        again = on_ray.wait_for_replicas(besides=running)
        late = answered
        until(lambda: answered > late + 20)
    finally:
        told.set()
        for thread in threads:
            thread.join()

    assert not wrong
    assert before[0] > 0
    assert before[1] == 0
    assert counted.keys() == running.keys()
    assert all(predicted > 0 for predicted in counted.values())
    assert len(failures) <= at_once, failures
    assert answered > before[0]
    assert len(again.keys() - running.keys()) == 1
