"""A running service follows the registry: reload, canary, shadow, and files that change under it."""

import asyncio
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumo.pipeline.release import registry
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.inference.model_slots import ModelSlots
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import Predictor
from pneumo.serving.model.registry import resolve
from tests.support.bundles import make_bundle
from tests.support.waiting import until


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A registry whose champion is tiny:1; tiny:2 and tiny:3 lie beside it as bundles."""
    for version in ("1", "2", "3"):
        make_bundle(tmp_path / version, seed=int(version), version=version)
    registry.promote(tmp_path / "1", root=tmp_path / "models")
    return tmp_path / "models"


def app_of(models: Path, **changes: Any):
    settings = Settings(models_dir=models, threads=1, reload_s=0.05, **changes)
    return create_app(Bundle.open(resolve("champion", models)), settings)


def networks_since(before: set[threading.Thread]) -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "network"} - before


def metric(client, line: str) -> float:
    text = client.app.state.service.metrics.exposition()[0].decode()
    return sum(float(found.rsplit(" ", 1)[1]) for found in text.splitlines() if found.startswith(line))


def test_a_promotion_under_load_changes_the_version_and_fails_no_request(models, png, started):
    before = set(threading.enumerate())
    with started(app_of(models)) as client:
        answers: list[tuple[int, str]] = []
        stop = threading.Event()

        def answers_with(version: str) -> bool:
            return any(each[1] == version for each in answers)

        def load():
            while not stop.is_set():
                response = client.post("/v1/predict", files={"file": png})
                answers.append((response.status_code, response.json().get("model", {}).get("version")))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for version in ("2", "3"):
                until(lambda: len(answers) > 20)
                registry.promote(models.parent / version, root=models)
                until(partial(answers_with, version))
            registry.rollback(root=models)
            count = len(answers)
            until(lambda: any(each[1] == "2" for each in answers[count + 10 :]))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert {status for status, _ in answers} == {200}
        assert {version for _, version in answers} == {"1", "2", "3"}
        assert client.get("/v1/model").json()["version"] == "2"
        assert metric(client, 'pneumo_reloads_total{result="ok"}') == 3
        until(lambda: len(networks_since(before)) == 1)


def test_a_service_that_ends_while_it_loads_a_model_lets_it_end_too(models, monkeypatch):
    before = set(threading.enumerate())
    loading, ended, original = threading.Event(), threading.Event(), Predictor.__init__

    def slow(self, *arguments, **options):
        loading.set()
        assert ended.wait(20)
        original(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "__init__", slow)
    app = app_of(models)

    async def end_early() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.to_thread(loading.wait, 20)
        ended.set()

    asyncio.run(end_early())  # waits for the thread that loads
    until(lambda: not networks_since(before))
    assert not app.state.service.slots.loaded


def test_a_promotion_that_cannot_be_served_leaves_the_old_version(models, png, started, caplog, monkeypatch):
    looks, refresh = [], ModelSlots.refresh

    def watched_refresh(slots: ModelSlots) -> None:
        refresh(slots)
        looks.append(1)

    monkeypatch.setattr(ModelSlots, "refresh", watched_refresh)
    with started(app_of(models)) as client:
        version = registry.promote(models.parent / "2", alias="later", root=models)
        (models / version.bundle / "model.onnx").write_bytes(b"cut off")
        text = (models / "registry.yaml").read_text()
        changed = text.replace("champion: tiny:1", "champion: tiny:2")
        partial = models / "registry.yaml.partial"  # the service must never read half of it
        partial.write_text(changed.replace("champion:\n  - tiny:1", "champion:\n  - tiny:2"))
        partial.replace(models / "registry.yaml")
        until(lambda: metric(client, 'pneumo_reloads_total{result="failed"}') == 1)
        answer = client.post("/v1/predict", files={"file": png}).json()
        assert answer["model"]["version"] == "1"
        assert any("champion stays tiny:1" in record.getMessage() for record in caplog.records)
        looked = len(looks)
        until(lambda: len(looks) >= looked + 3)
        assert metric(client, 'pneumo_reloads_total{result="failed"}') == 1  # not again and again


def test_a_model_file_that_changes_under_the_service_is_noticed_and_not_used(models, png, started, caplog):
    with started(app_of(models)) as client:
        before = client.post("/v1/predict", files={"file": png}).json()["predictions"][0]["probability"]
        assert metric(client, 'pneumo_bundle_changed{lane="champion"}') == 0
        folder = resolve("champion", models)
        (folder / "model.onnx").write_bytes((models.parent / "2" / "model.onnx").read_bytes())
        until(lambda: metric(client, 'pneumo_bundle_changed{lane="champion"}') == 1)
        answer = client.post("/v1/predict", files={"file": png}).json()
        assert answer["predictions"][0]["probability"] == pytest.approx(before, abs=1e-9)
        assert any("changed since the bundle was sealed" in record.getMessage() for record in caplog.records)


def test_a_challenger_answers_its_share_and_the_same_request_the_same_way(models, png, started):
    registry.promote(models.parent / "2", alias="challenger", root=models)
    with started(app_of(models, challenger=0.25)) as client:
        seen: Counter[Any] = Counter()
        for number in range(120):
            headers = {"x-request-id": f"request-{number}"}
            first, second = (
                client.post("/v1/predict", content=png, headers={**headers, "content-type": "image/png"}).json()
                for _ in range(2)
            )
            assert first["model"]["version"] == second["model"]["version"]
            seen[first["model"]["version"]] += 1
        assert set(seen) == {"1", "2"}
        assert 16 <= seen["2"] <= 44
        assert metric(client, 'pneumo_images_total{lane="challenger",result="predicted"}') == 2 * seen["2"]


def test_a_challenger_can_come_and_go_while_the_service_runs(models, png, started):
    with started(app_of(models, challenger=1.0)) as client:

        def version():
            return client.post("/v1/predict", files={"file": png}).json()["model"]["version"]

        assert version() == "1"
        registry.promote(models.parent / "3", alias="challenger", root=models)
        until(lambda: version() == "3")
        registry_file = models / "registry.yaml"
        document = yaml.safe_load(registry_file.read_text())
        del document["aliases"]["challenger"], document["history"]["challenger"]
        registry_file.write_text(yaml.safe_dump(document))
        until(lambda: version() == "1")


@pytest.mark.parametrize("workers", [1, available_cores()])  # the last decode in the network's thread
def test_a_shadow_sees_what_the_champion_answers_and_is_only_compared(models, pngs, started, workers):
    registry.promote(models.parent / "2", alias="challenger", root=models)
    with started(app_of(models, shadow=True, workers=workers)) as client:
        for png in pngs:
            assert client.post("/v1/predict", files={"file": png}).json()["model"]["version"] == "1"
        until(lambda: metric(client, "pneumo_shadow_probability_difference_count") == len(pngs))
        assert metric(client, 'pneumo_images_total{lane="shadow",result="predicted"}') == len(pngs)
        assert metric(client, "pneumo_shadow_probability_difference_sum") > 0.01


def test_a_shadow_that_breaks_harms_nobody(models, png, started):
    registry.promote(models.parent / "2", alias="challenger", root=models)
    with started(app_of(models, shadow=True)) as client:

        def broken(batch):
            raise RuntimeError("broken")

        client.app.state.service.slots.shadow.predictor.run = broken
        assert client.post("/v1/predict", files={"file": png}).status_code == 200
        until(lambda: metric(client, 'pneumo_images_total{lane="shadow",result="failed"}') == 1)


def test_a_shadow_whose_queue_is_full_is_skipped_and_delays_nobody(models, png, started):
    registry.promote(models.parent / "2", alias="challenger", root=models)
    with started(app_of(models, shadow=True)) as client:
        room = threading.Semaphore(0)
        client.app.state.service.slots.shadow.batcher._room = room
        late = threading.Timer(5, room.release)  # ends a wait for room, which must not happen
        late.start()
        assert client.post("/v1/predict", files={"file": png}).status_code == 200
        until(lambda: metric(client, 'pneumo_images_total{lane="shadow",result="failed"}') == 1, timeout=20)
        late.cancel()
        assert metric(client, 'pneumo_images_total{lane="shadow",result="predicted"}') == 0
