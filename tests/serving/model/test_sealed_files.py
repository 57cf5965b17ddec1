"""Every file that the service reads of a bundle is sealed, and no file around is read."""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pneumo.serving.contracts.settings import Settings
from pneumo.serving.drift.samples import read_reference
from pneumo.serving.http.app import create_app
from pneumo.serving.model.bundle import INFO, Bundle, BundleError
from pneumo.serving.model.predictor import Predictor
from tests.support.bundles import make_bundle
from tests.support.prediction_logs import with_reference

_IN_OPEN, _IN_NONBLOCK = 0x20, 0o4000
_EVENT = struct.Struct("iIII")


@contextmanager
def opened_files(folder: Path) -> Iterator[Callable[[], set[str]]]:
    """Names of the files in a folder that any process opens meanwhile, by Python or not, as the kernel tells them."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(_IN_NONBLOCK)
    assert watch >= 0
    assert libc.inotify_add_watch(watch, os.fsencode(folder), _IN_OPEN) >= 0
    names: set[str] = set()

    def read() -> set[str]:
        while True:
            try:
                events = os.read(watch, 2**16)
            except BlockingIOError:
                return names - {""}  # the folder itself
            while events:
                length = _EVENT.unpack_from(events)[3]
                names.add(os.fsdecode(events[_EVENT.size : _EVENT.size + length].rstrip(b"\0")))
                events = events[_EVENT.size + length :]

    try:
        yield read
    finally:
        os.close(watch)


def serve_everything(bundle: Bundle, png: bytes, started: Callable, settings: Settings) -> None:
    with started(create_app(Bundle.open(bundle.folder), settings)) as client:
        for path in ("/", "/docs", "/openapi.json", "/v1/model", "/v2/models/tiny", "/drift", "/metrics"):
            assert client.get(path).status_code == 200, path
        for path in ("/v1/predict", "/v1/explain", "/v1/explain?format=json"):
            assert client.post(path, content=png, headers={"Content-Type": "image/png"}).status_code == 200, path
    read_reference(Bundle.open(bundle.folder, verify=False))


def test_all_that_a_service_reads_of_a_bundle_is_sealed(
    png: bytes, started: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = with_reference(make_bundle(tmp_path / "bundle"))
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    for name in (".env", "model.onnx", "model.onnx.data", "bundle.json", "card.md", "config.yaml", "keys.yaml"):
        (place / name).write_text("not read")
    settings = Settings(threads=1, log_url=f"sqlite:///{tmp_path}/log.sqlite3", log_spool=tmp_path / "spool")

    with opened_files(bundle.folder) as in_bundle, opened_files(place) as around:
        serve_everything(bundle, png, started, settings)
        (bundle.folder / "card.md").read_bytes()
        assert {"model.onnx", "embedding_space.npz", "reference.parquet", INFO, "card.md"} == in_bundle()
        assert around() == set()

    for name in bundle.info.files:
        content = (bundle.folder / name).read_bytes()
        (bundle.folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(BundleError, match=f"{name}: changed since the bundle was sealed"):
            Bundle.open(bundle.folder)
        unverified = Bundle.open(bundle.folder, verify=False)
        if name != "card.md":
            with pytest.raises(BundleError, match=f"{name}: changed"):
                read_reference(unverified) if name == "reference.parquet" else Predictor(unverified, threads=1)
        (bundle.folder / name).write_bytes(content)
    assert Bundle.open(bundle.folder).digest == bundle.digest
