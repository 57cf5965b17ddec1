"""Push and pull with a Google Cloud Storage emulator on this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from pneumo.pipeline.data import importer, phantom, versioning
from pneumo.serving.contracts.errors import CheckFailedError, InputError, MachineError

pytestmark = pytest.mark.slow

CONFIG = """
[core]
remote = bucket
no_scm = true
['remote "bucket"']
url = gs://pneumo/data
endpointurl = http://127.0.0.1:{port}
allow_anonymous_login = true
['remote "missing"']
url = gs://nobodys/data
endpointurl = http://127.0.0.1:{port}
allow_anonymous_login = true
"""


@pytest.fixture
def storage() -> Iterator[Any]:
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="pneumo")
    server.start()
    yield server
    server.stop()


def test_a_data_set_goes_to_a_bucket_and_back_and_damage_there_is_found(
    storage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # read when gcsfs is imported
    import gcsfs

    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    root = tmp_path / "project"
    phantom.write_phantoms(tmp_path / "raw", phantom.Recipe(images=8, seed=3, size=32))
    importer.import_dataset(tmp_path / "raw", root / "data", importer.ImportSettings(size=32), workers=1)
    monkeypatch.chdir(root)
    port = storage._api._httpd.socket.getsockname()[1]
    with Repo.init(".", no_scm=True) as repo:
        repo.add("data")
    Path(".dvc/config").write_text(CONFIG.format(port=port))
    manifest = Path("data/manifest.csv").read_bytes()

    def wipe() -> None:
        shutil.rmtree("data", ignore_errors=True)
        shutil.rmtree(".dvc/cache", ignore_errors=True)

    pushed = versioning.push()
    assert (pushed.files, pushed.url, pushed.verified_images) == (12, "gs://pneumo/data", 8)
    assert versioning.push().files == 0

    wipe()
    pulled = versioning.pull()
    assert (pulled.files, pulled.verified_images) == (12, 8)
    assert Path("data/manifest.csv").read_bytes() == manifest

    bucket = gcsfs.GCSFileSystem(token="anon", endpoint_url=f"http://127.0.0.1:{port}", skip_instance_cache=True)
    images = sorted((bucket.info(name)["size"], name) for name in bucket.find("pneumo/data") if ".dir" not in name)
    victim = images[-1][1]
    whole = bucket.cat_file(victim)
    bucket.pipe_file(victim, whole[:-1] + bytes([whole[-1] ^ 1]))
    wipe()
    with pytest.raises(CheckFailedError, match=rf"^gs://{victim}: damaged; it is no longer data/"):
        versioning.pull()
    assert not Path("data").exists()

    bucket.rm_file(victim)
    with pytest.raises(CheckFailedError, match=r"^data/.*: not in remote bucket; run `pneumo data push`"):
        versioning.pull()

    bucket.pipe_file(victim, whole)
    assert versioning.pull().verified_images == 8

    for act in (versioning.push, versioning.pull):
        with pytest.raises(InputError, match=r"^gs://nobodys: no such bucket; make it with"):
            act(remote="missing")

    storage.stop()
    for act in (versioning.push, versioning.pull):
        with pytest.raises(MachineError, match=r"^gs://pneumo: http://127.0.0.1:\d+ cannot be reached"):
            act()
