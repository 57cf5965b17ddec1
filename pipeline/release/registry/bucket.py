"""Write side of a registry in a bucket. On Google Cloud Storage a write is conditional on the generation that was read.

Of two promotions at once the later one is refused, reads the registry again and adds its own change. Other kinds of
storage have no such condition in fsspec: there the file's stamp is compared just before the write, and a change in the
moment between is lost.
"""

import base64
import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pneumo.pipeline.release.registry.store import Edit, serialise_registry
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.model.bundle import INFO, Bundle
from pneumo.serving.model.registry import REGISTRY, Registry, read_registry
from pneumo.serving.model.remote_registry import format_path, open_files, read_stamp, translate_errors

_ATTEMPTS = 20
_PAUSE_S = 0.2


class BucketStore:
    """A `RegistryStore` under an address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def change(self, edit: Edit) -> Registry:
        """See `RegistryStore.change`."""
        for _ in range(_ATTEMPTS):
            generation = read_stamp(self._address, REGISTRY)  # first, so that a change after it makes the write fail
            before = read_registry(self._address)
            after = edit(before)
            if after == before or self._write(serialise_registry(after).encode(), generation):
                return after
            time.sleep(random.uniform(0, _PAUSE_S))
        raise MachineError(
            f"{format_path(self._address, REGISTRY)}: others kept changing it; nothing was changed, try again"
        )

    def put(self, bundle: Bundle, place: str) -> None:
        """See `RegistryStore.put`; `bundle.json`, which names all other files, is written last."""
        with _translate_write_errors(self._address):
            files, path = open_files(self._address)
            for name in (*bundle.info.files, INFO):
                content, target = (bundle.folder / name).read_bytes(), f"{path}/{place}/{name}"
                digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
                try:
                    same = files.info(target).get("md5Hash") == digest  # Google Cloud Storage stores it
                except FileNotFoundError:
                    same = False
                if not same:
                    files.pipe_file(target, content)

    def _write(self, content: bytes, generation: str | None) -> bool:
        """Write the registry if it still has a generation, None for no file; return whether it had."""
        with _translate_write_errors(self._address):
            files, path = open_files(self._address)
            target = f"{path}/{REGISTRY}"
            if "gs" not in files.protocol:
                if read_stamp(self._address, REGISTRY) != generation:
                    return False
                files.pipe_file(target, content)
                return True
            bucket, name, _ = files.split_path(target)
            try:
                files.call(  # gcsfs's own `pipe_file` has the condition for new files only
                    "POST",
                    files.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o",
                    bucket,
                    uploadType="media",
                    name=name,
                    ifGenerationMatch=generation or "0",
                    headers={"Content-Type": "application/yaml"},
                    data=content,
                )
            except FileExistsError:  # gcsfs's exception for 412, precondition failed
                return False
            return True


@contextmanager
def _translate_write_errors(address: str) -> Iterator[None]:
    with translate_errors(address):
        try:
            yield
        except FileNotFoundError:
            raise InputError(f"{address}: no such bucket; make it first") from None
