"""Data under version, against folders and a storage service on this machine."""

import json
import os
import platform
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from pneumo.pipeline.data import importer, phantom, versioning
from pneumo.serving.contracts.errors import CheckFailedError, InputError, MachineError
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of a dozen images."""
    folder = tmp_path_factory.mktemp("small")
    phantom.write_phantoms(folder / "raw", phantom.Recipe(images=12, seed=3, size=32))
    importer.import_dataset(folder / "raw", folder / "data", importer.ImportSettings(size=32), workers=1)
    return folder / "data"


@pytest.fixture(scope="module")
def template(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where DVC tracks a data set; the default remote is the folder `remote` beside it."""
    root = tmp_path_factory.mktemp("template") / "project"
    shutil.copytree(small, root / "data")
    with Repo.init(str(root), no_scm=True) as repo:
        repo.add(str(root / "data"))
    (root / ".dvc" / "config").write_text(
        "[core]\nremote = local\nno_scm = true\n['remote \"local\"']\nurl = ../../remote\n"
    )
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the working directory."""
    shutil.copytree(template, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    return tmp_path / "project"


def add_remote(root: Path, name: str, **settings: object) -> None:
    with (root / ".dvc" / "config").open("a") as file:
        file.write(f"['remote \"{name}\"']\n")
        file.writelines(f"{key} = {value}\n" for key, value in settings.items())


def wipe(root: Path) -> None:
    shutil.rmtree(root / "data")
    shutil.rmtree(root / ".dvc" / "cache")


def objects(remote: Path) -> list[Path]:
    """What a remote in a folder holds, listings left out."""
    return sorted(path for path in remote.rglob("*") if path.is_file() and path.suffix != ".dir")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_pushed_comes_back_byte_for_byte(project: Path, small: Path, pneumo: Callable[..., Any]) -> None:
    pushed = json.loads(pneumo("data", "push", "--json").out)
    assert (pushed["files"], pushed["verified_images"]) == (16, 12)
    assert "0 files uploaded to local" in pneumo("data", "push").out
    wipe(project)

    pulled = pneumo("data", "pull")

    assert pulled.code == 0
    assert "16 files downloaded from local" in pulled.out
    assert "the checksum of 12 images matches" in pulled.out
    assert content(project / "data") == content(small)


def test_a_damaged_file_in_the_remote_is_named_and_never_put_in_place(project: Path, tmp_path: Path) -> None:
    versioning.push()
    wipe(project)
    bad = objects(tmp_path / "remote")[0]
    bad.chmod(0o644)
    bad.write_bytes(b"other bytes")

    with pytest.raises(CheckFailedError, match=f"{bad.name}: damaged; it is no longer data/"):
        versioning.pull()

    assert not (project / "data").exists()


def test_a_file_that_the_remote_lacks_is_named(project: Path, tmp_path: Path) -> None:
    versioning.push()
    wipe(project)
    objects(tmp_path / "remote")[0].unlink()

    with pytest.raises(CheckFailedError, match=r"^data/.*: not in remote local; run `pneumo data push`"):
        versioning.pull()


def test_pulling_from_an_empty_remote_says_that_nothing_was_pushed(project: Path) -> None:
    wipe(project)

    with pytest.raises(CheckFailedError, match=r"^data: not in remote local; run `pneumo data push`"):
        versioning.pull()
    with pytest.raises(CheckFailedError, match=r"^data: not in remote local"):
        versioning.push()  # nothing to send either


def test_changed_files_are_not_pushed_as_if_they_were_recorded(project: Path) -> None:
    (project / "data" / "manifest.csv").write_text("other")

    with pytest.raises(InputError, match=r"^data: modified, so it is not what DVC would push; record it with `dvc add"):
        versioning.push()


def test_a_flipped_bit_that_dvc_does_not_see_is_found_before_a_push(project: Path) -> None:
    versioning.push()  # DVC remembers digests by time and size
    image = next((project / "data" / "images").rglob("*.png"))
    before = image.stat()
    flipped = bytearray(image.read_bytes())
    flipped[-20] ^= 1
    image.chmod(0o644)
    with image.open("r+b") as file:
        file.write(flipped)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(InputError, match=f"{image.name}: changed since the import"):
        versioning.push()


def test_changes_that_were_never_recorded_are_replaced_only_with_force(
    project: Path, pneumo: Callable[..., Any]
) -> None:
    versioning.push()
    (project / "data" / "notes.txt").write_text("mine")

    refused = pneumo("data", "pull")
    assert refused.code == 2
    assert "notes.txt: changed here and not recorded" in refused.err
    assert (project / "data" / "notes.txt").exists()

    assert pneumo("data", "pull", "--force").code == 0
    assert not (project / "data" / "notes.txt").exists()


def test_a_wrong_name_is_one_line_and_exit_code_2(project: Path, pneumo: Callable[..., Any]) -> None:
    target, remote = pneumo("data", "pull", "nothing.dvc"), pneumo("data", "push", "--remote", "elsewhere")

    assert (target.code, remote.code) == (2, 2)
    assert target.err.splitlines()[1].startswith("pneumo: nothing.dvc: not tracked by DVC")
    assert remote.err.splitlines()[1].startswith("pneumo: --remote elsewhere: no such remote (there are: local)")


def test_a_folder_without_dvc_says_how_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no DVC repository here or above; make one with `git init && dvc init"):
        versioning.pull()


def test_a_repository_without_a_default_remote_says_how_to_set_one(project: Path) -> None:
    config = project / ".dvc" / "config"
    config.write_text(config.read_text().replace("remote = local\n", "", 1))

    with pytest.raises(InputError, match=r"no default remote \(there are: local\); set it: dvc remote default NAME"):
        versioning.push()


def test_a_name_that_no_bucket_can_have_is_refused_without_a_connection(project: Path) -> None:
    add_remote(project, "bucket", url="gs://YOUR-BUCKET/pneumo")

    with pytest.raises(InputError, match=r"^gs://YOUR-BUCKET: no bucket can have this name; set yours: dvc remote"):
        versioning.push(remote="bucket")


class Refusing(BaseHTTPRequestHandler):
    """A storage service that answers with the status of its server, 401 to the nameless, and gives tokens."""

    def do_GET(self) -> None:
        named = self.headers.get("Authorization") == "Bearer secret"
        self.answer(self.server.named if named else self.server.status)  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        self.answer(200, b'{"access_token": "secret", "expires_in": 3600, "token_type": "Bearer"}')

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (401, MachineError, "^gs://bkt: no credentials; run `gcloud auth application-default login`"),
        (403, MachineError, "^gs://bkt: no credentials"),
        (404, InputError, "^gs://bkt: no such bucket; make it with `gcloud storage buckets create gs://bkt`"),
        (503, MachineError, "^gs://bkt: the storage service answers 503"),
    ],
)
def test_a_refusal_of_a_bucket_is_one_line(
    status: int, error: type[Exception], told: str, project: Path, refusing: ThreadingHTTPServer
) -> None:
    refusing.status = status  # type: ignore[attr-defined]
    endpoint = f"http://127.0.0.1:{refusing.server_port}"
    add_remote(project, "bucket", url="gs://bkt/x", endpointurl=endpoint, allow_anonymous_login=True)

    with pytest.raises(error, match=told):
        versioning.pull(remote="bucket")


def test_an_error_about_credentials_names_the_role_that_they_need(project: Path, refusing: ThreadingHTTPServer) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    refusing.status, refusing.named = 401, 403  # type: ignore[attr-defined]
    endpoint = f"http://127.0.0.1:{refusing.server_port}"
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "client_email": "someone@example.org",
        "private_key": private.decode(),
        "token_uri": f"{endpoint}/token",
    }
    (project / "key.json").write_text(json.dumps(account))
    add_remote(project, "bucket", url="gs://bkt/x", endpointurl=endpoint, credentialpath=project / "key.json")

    with pytest.raises(MachineError, match=r"^gs://bkt: these credentials may not use it; give them the role"):
        versioning.push(remote="bucket")


def test_a_server_that_is_down_is_reported_at_once(project: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
    add_remote(project, "bucket", url="gs://bkt/x", endpointurl=endpoint, allow_anonymous_login=True)

    with pytest.raises(MachineError, match=f"^gs://bkt: {endpoint} cannot be reached .*refused"):
        versioning.push(remote="bucket")


def test_a_key_file_that_is_missing_is_named(project: Path) -> None:
    add_remote(project, "bucket", url="gs://bkt/x", credentialpath=str(project / "key.json"))

    with pytest.raises(InputError, match=r"^gs://bkt: no key file at .*key\.json"):
        versioning.push(remote="bucket")


def test_a_protocol_that_nothing_speaks_names_what_to_install(project: Path) -> None:
    add_remote(project, "amazon", url="s3://bkt/x")

    with pytest.raises(MachineError, match=r"the package for s3:// is not installed; run `pip install 'dvc\[s3\]'`"):
        versioning.push(remote="amazon")


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="other processors may round a pixel otherwise"
)
def test_the_versioned_data_set_is_drawn_again_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pneumo: Callable[..., Any]
) -> None:
    """The commands of `make data`, in an empty folder, against the digest in data.dvc."""
    (recipe,) = re.findall(r"^data:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    commands = re.findall(r"^\t\$\(BIN\)/pneumo (.*)$", recipe, re.MULTILINE)
    assert len(commands) == 2
    monkeypatch.chdir(tmp_path)
    for command in commands:
        assert pneumo(*command.split()).code == 0
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        repo.add("data")

    drawn, tracked = (yaml.safe_load((folder / "data.dvc").read_text())["outs"][0] for folder in (tmp_path, ROOT))

    assert drawn["md5"] == tracked["md5"]
    assert drawn["nfiles"] == tracked["nfiles"] == 243
