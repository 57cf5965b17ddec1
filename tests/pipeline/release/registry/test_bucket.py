"""A registry in a bucket of a Google Cloud Storage emulator on this machine."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pneumo.pipeline.release.registry import bucket as bucket_module
from pneumo.pipeline.release.registry import promote, rollback
from pneumo.pipeline.release.registry.bucket import BucketStore
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.inference import model_slots
from pneumo.serving.model import remote_registry
from pneumo.serving.model.bundle import Bundle, BundleError
from pneumo.serving.model.registry import read_registry, resolve
from tests.support.bundles import make_bundle
from tests.support.waiting import until

ROOT = "gs://pneumo/team/models"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The emulator's storage. It ignores preconditions, so that they are added as Google documents them."""
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects
    from gcp_storage_emulator.server import create_server

    upload = objects._media_upload

    def upload_if(request: Any, response: Any, storage: Any) -> None:
        wanted = request.query.get("ifGenerationMatch")
        try:
            found = storage.get_file_obj(request.params["bucket_name"], request.query["name"][0])["generation"]
        except NotFound:
            found = "0"
        if wanted and wanted[0] != str(found):
            response.status = HTTPStatus.PRECONDITION_FAILED
            return
        upload(request, response, storage)

    monkeypatch.setattr(objects, "_media_upload", upload_if)
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="pneumo")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server._api._httpd.socket.getsockname()[1]}")
    monkeypatch.setenv(remote_registry.CACHE, str(tmp_path / "cache"))
    yield server._storage
    server.stop()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return [make_bundle(folder / str(number), seed=number, version=str(number)).folder for number in (1, 2, 3)]


def test_promote_list_resolve_and_rollback_work_as_in_a_folder(storage, bundles, tmp_path):
    assert read_registry(ROOT).versions == []
    promote(bundles[0], root=ROOT)
    promote(bundles[1], root=ROOT)
    registry = read_registry(ROOT)
    assert registry.aliases == {"champion": "tiny:2"}
    assert [each.before for each in registry.promotions] == [None, "tiny:1"]
    found = resolve("champion", ROOT)
    assert found.is_relative_to(tmp_path / "cache")
    assert Bundle.open(found).digest == Bundle.open(bundles[1]).digest
    assert rollback(root=ROOT).id == "tiny:1"
    assert Bundle.open(resolve("champion", ROOT)).digest == Bundle.open(bundles[0]).digest
    with pytest.raises(InputError, match="there is no previous one"):
        rollback(root=ROOT)


def test_a_bucket_that_is_missing_is_no_empty_registry(storage):
    with pytest.raises(InputError, match="gs://nowhere/models: no such bucket"):
        read_registry("gs://nowhere/models")


def test_a_bundle_is_downloaded_once(storage, bundles, monkeypatch):
    promote(bundles[0], root=ROOT)
    first = resolve("champion", ROOT)
    monkeypatch.setattr(remote_registry, "_download", None)
    assert resolve("tiny:1", ROOT) == first


def test_a_damaged_file_in_the_cache_is_fetched_again(storage, bundles):
    promote(bundles[0], root=ROOT)
    folder = resolve("champion", ROOT)
    (folder / "model.onnx").write_bytes(b"x")
    assert Bundle.open(resolve("champion", ROOT)).digest == Bundle.open(bundles[0]).digest


@pytest.mark.parametrize(("file", "why"), [("model.onnx", "SHA-256 differs"), ("bundle.json", "not the bundle")])
def test_a_file_that_changed_in_the_bucket_is_refused_and_promoting_again_repairs_it(storage, bundles, file, why):
    promote(bundles[0], root=ROOT)
    files, path = remote_registry.open_files(ROOT)
    files.pipe_file(f"{path}/tiny/1/{file}", b"{}")
    with pytest.raises(BundleError, match=why):
        resolve("champion", ROOT)
    promote(bundles[0], root=ROOT)
    resolve("champion", ROOT)
    files.rm(f"{path}/tiny/1/{file}")
    with pytest.raises(BundleError, match=r"missing|not the bundle"):
        remote_registry._download(ROOT, "tiny/1", Bundle.open(bundles[0]).digest, resolve("champion", ROOT).parent)


def test_what_another_wrote_meanwhile_is_kept(storage, bundles, monkeypatch):
    promote(bundles[0], root=ROOT)
    calls: list[int] = []

    def read_late(address: str) -> Any:
        found = read_registry(address)
        if not calls:
            calls.append(1)
            promote(bundles[1], alias="challenger", root=ROOT)  # between reading and writing
        return found

    monkeypatch.setattr(bucket_module, "read_registry", read_late)
    promote(bundles[2], root=ROOT)
    registry = read_registry(ROOT)
    assert registry.aliases == {"champion": "tiny:3", "challenger": "tiny:2"}
    assert len(registry.versions) == 3


def test_a_registry_that_others_change_all_the_time_ends_in_an_error(storage, bundles, monkeypatch):
    monkeypatch.setattr(BucketStore, "_write", lambda *_: False)
    monkeypatch.setattr(bucket_module, "_PAUSE_S", 0)
    with pytest.raises(MachineError, match="others kept changing it"):
        promote(bundles[0], root=ROOT)


def promote_in_turn(folders: list[str], alias: str, start: Any) -> None:
    start.wait(60)
    for folder in folders:
        promote(Path(folder), alias=alias, root=ROOT)


@pytest.mark.slow  # what the two do at once is done in one process by `test_what_another_wrote_meanwhile_is_kept`
def test_processes_that_promote_at_once_lose_nothing(storage, tmp_path):
    aliases = ["champion", "challenger"]
    folders = {
        alias: [
            str(make_bundle(tmp_path / f"{alias}{number}", seed=number, name=alias, version=str(number)).folder)
            for number in range(2)
        ]
        for alias in aliases
    }
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(len(aliases))
    processes = [context.Process(target=promote_in_turn, args=(folders[alias], alias, start)) for alias in aliases]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    registry = read_registry(ROOT)
    assert registry.history == {alias: [f"{alias}:0", f"{alias}:1"] for alias in aliases}
    assert len(registry.promotions) == 4


def test_a_service_follows_a_registry_in_a_bucket(storage, bundles, monkeypatch):
    monkeypatch.setattr(model_slots, "BUCKET_S", 0.05)
    promote(bundles[0], root=ROOT)
    settings = Settings(models_dir=ROOT, threads=1, reload_s=0.05)
    assert settings.models_dir == ROOT
    with TestClient(create_app(Bundle.open(resolve("champion", ROOT)), settings)) as client:
        until_version(client, "1")
        promote(bundles[1], root=ROOT)
        until_version(client, "2")
        rollback(root=ROOT)
        until_version(client, "1")


def until_version(client: TestClient, version: str) -> None:
    until(lambda: client.get("/v1/model").json().get("version") == version)


def test_the_commands_take_an_address(storage, bundles, pneumo):
    at = ("--models-dir", ROOT + "/")
    done = pneumo("promote", bundles[0], *at, "--force", "a test without data")
    assert done.code == 0, done.err
    assert f"{ROOT}/tiny/1" in done.err
    assert "tiny:1" in pneumo("models", "list", *at).out
    shown = json.loads(pneumo("models", "show", *at, "--json").out)
    assert shown["promotions"][0]["forced"] == "a test without data"
    assert pneumo("models", "rollback", *at).code == 2
    assert pneumo("promote", bundles[0], *at, "--alias", "challenger").code == 0


@pytest.mark.parametrize(
    ("address", "kind", "why"),
    [
        ("nosuch://bucket/models", InputError, "unknown kind of address"),
        ("gs://nobodys/models", InputError, "gs://nobodys/models: no such bucket"),
    ],
)
def test_an_address_that_cannot_be_is_one_line(storage, bundles, address, kind, why):
    with pytest.raises(kind, match=why) as caught:
        promote(bundles[0], root=address)
    assert "\n" not in str(caught.value)


@pytest.mark.lengthy
@pytest.mark.slow  # gcsfs tries six times, which takes half a minute
def test_a_bucket_out_of_reach_is_a_fault_of_the_machine(storage, bundles, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(MachineError, match="cannot be reached"):
        read_registry(ROOT)


def test_gcsfs_is_not_left_to_ask_over_grpc():
    program = (
        "import os; from pneumo.serving.model.remote_registry import open_files; files, _ = open_files('gs://b/c'); "
        "print(type(files).__name__, 'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT' in os.environ)"
    )
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert done.stdout.split() == ["GCSFileSystem", "False"]


def test_a_folder_does_not_load_fsspec():
    program = (
        "import sys; from pneumo.serving.model.registry import read_registry; read_registry(); "
        "print('fsspec' in sys.modules, 'gcsfs' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]
