"""A registry in a bucket. Google Cloud Storage writes its file only over the generation that was read.

Of two promotions at once the later one is told that the file has changed, reads it again and adds its own. Other kinds
of storage have no such condition in fsspec: there a change is looked for just before writing, which leaves a moment in
which one of two is lost.
"""

import base64
import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pneumo.pipeline.release.registry.store import Edit, serialise_registry
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.model.bundle import INFO, Bundle
from pneumo.serving.model.registry import REGISTRY, Registry, parse_registry
from pneumo.serving.model.remote_registry import format_path, open_files, read_stamp, translate_errors

_ATTEMPTS = 20
_PAUSE_S = 0.2


class BucketStore:
    """A registry under an address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def change(self, edit: Edit) -> None:
        """See `pneumo.pipeline.release.registry.store.RegistryStore.change`.

        Raises:
            InputError: There is no such bucket.
            MachineError: It cannot be read or written, or others write all the time.
        """
        for _ in range(_ATTEMPTS):
            generation = read_stamp(self._address, REGISTRY)  # before reading: what is newer is then refused, not lost
            before = self._read()
            after = edit(before)
            if after == before or self._write(serialise_registry(after).encode(), generation):
                return
            time.sleep(random.uniform(0, _PAUSE_S))
        raise MachineError(
            f"{format_path(self._address, REGISTRY)}: others kept changing it; nothing was changed, try again"
        )

    def put(self, bundle: Bundle, folder: str) -> None:
        """See `pneumo.pipeline.release.registry.store.RegistryStore.put`; the file that names all others comes last.

        Raises:
            InputError: There is no such bucket.
            MachineError: It cannot be written.
        """
        with _writing(self._address):
            files, path = open_files(self._address)
            for name in (*bundle.info.files, INFO):
                local, there = bundle.folder / name, f"{path}/{folder}/{name}"
                if not _is_same(files, there, local):
                    files.pipe_file(there, local.read_bytes())

    def _read(self) -> Registry:
        with translate_errors(self._address):
            files, path = open_files(self._address)
            try:
                content = files.cat_file(f"{path}/{REGISTRY}")
            except FileNotFoundError:
                return Registry()
        return parse_registry(content, format_path(self._address, REGISTRY))

    def _write(self, content: bytes, generation: str | None) -> bool:
        """Write the registry over a generation, None where there was no file; False where it has another one now."""
        with _writing(self._address):
            files, path = open_files(self._address)
            target = f"{path}/{REGISTRY}"
            if "gs" not in files.protocol:
                if read_stamp(self._address, REGISTRY) != generation:
                    return False
                files.pipe_file(target, content)
                return True
            bucket, name, _ = files.split_path(target)
            try:
                files.call(
                    "POST",
                    files.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o",
                    bucket,
                    uploadType="media",
                    name=name,
                    ifGenerationMatch=generation or "0",
                    headers={"Content-Type": "application/yaml"},
                    data=content,
                )
            except FileExistsError:  # what gcsfs makes of 412, precondition failed
                return False
            return True


@contextmanager
def _writing(address: str) -> Iterator[None]:
    with translate_errors(address):
        try:
            yield
        except FileNotFoundError:
            raise InputError(f"{address}: no such bucket; make it first") from None


def _is_same(files: Any, path: str, local: Path) -> bool:
    """Whether a file in the bucket is the local one, by the MD5 that Google Cloud Storage keeps; else it is copied."""
    try:
        found = files.info(path)
    except FileNotFoundError:
        return False
    digest = base64.b64encode(hashlib.md5(local.read_bytes()).digest()).decode()
    return bool(found.get("md5Hash") == digest)
