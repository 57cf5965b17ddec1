"""Write side of a registry in a folder, under a lock."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import yaml

from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.files import open_locked, write_text
from pneumo.serving.model.bundle import INFO, Bundle, BundleError
from pneumo.serving.model.registry import REGISTRY, Registry, read_registry

_PARTIAL = ".partial-"

Edit = Callable[[Registry], Registry]


class RegistryStore(Protocol):
    """A place for a registry and its bundles."""

    def change(self, edit: Edit) -> Registry:
        """Read the registry, edit it, write it and return it, without losing what another process writes meanwhile.

        `edit` may be called again, with the other process's changes. It may call `put`. If it raises, nothing changes.

        Raises:
            InputError: There is no such bucket.
            MachineError: The registry cannot be read or written, or others keep changing it.
        """

    def put(self, bundle: Bundle, place: str) -> None:
        """Copy a bundle into a folder relative to the registry, unless it is there and whole."""


def serialise_registry(registry: Registry) -> str:
    """Return the text of `registry.yaml`, after checking that the registry is consistent."""
    checked = Registry.model_validate(registry.model_dump() | {"schema_version": 2})
    return yaml.safe_dump(checked.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


class FolderStore:
    """A `RegistryStore` in a folder; one process at a time changes it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def change(self, edit: Edit) -> Registry:
        """See `RegistryStore.change`."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            lock = open_locked(self._root / ".lock", wait=True)
        except OSError as error:
            raise MachineError(
                f"{self._root}: cannot be written ({error.strerror}); give another --models-dir"
            ) from None
        with lock:
            before = read_registry(self._root)
            after = edit(before)
            if after != before:
                write_text(self._root / REGISTRY, serialise_registry(after))
            return after

    def put(self, bundle: Bundle, place: str) -> None:
        """See `RegistryStore.put`."""
        target = self._root / place
        try:
            if Bundle.open(target).digest == bundle.digest:
                return
        except BundleError:
            pass
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in target.parent.glob(f"{_PARTIAL}*"):  # of a killed promotion, since this process has the lock
            shutil.rmtree(leftover)
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=target.parent))
        try:
            for name in (*bundle.info.files, INFO):
                shutil.copyfile(bundle.folder / name, partial / name)
            Bundle.open(partial)
            partial.chmod(0o755)
            if target.exists():  # not in the registry, or damaged
                shutil.rmtree(target)
            partial.replace(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
