"""Bundles of the models in the prediction log: loaded ones, and those of the registry."""

import functools
from pathlib import Path

from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.setting_types import Root
from pneumo.serving.drift.samples import Sample, read_reference
from pneumo.serving.inference.model_slots import ModelSlots
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.registry import find_version, locate_bundle


class BundleLookup:
    """Finds the bundle of a model version; threads may share it."""

    def __init__(self, slots: ModelSlots, models_dir: Root) -> None:
        """Search the loaded models first, then the registry under `models_dir`."""
        self._slots = slots
        self._models_dir = models_dir

    def loaded(self) -> list[Bundle]:
        """Return the bundles of the loaded models."""
        return [slot.bundle for slot in self._slots.loaded]

    def find(self, model: str, version: str) -> Bundle | None:
        """Return the bundle of a version; None if it is neither loaded nor in the registry."""
        wanted = f"{model}:{version}"
        for bundle in self.loaded():
            if bundle.info.id == wanted:
                return bundle
        try:
            registered = find_version(wanted, self._models_dir)
            if registered is None:
                return None
            return Bundle.open(locate_bundle(registered, self._models_dir), verify=False)
        except (InputError, MachineError):
            return None


def load_reference(bundle: Bundle) -> Sample:
    """Read the reference of a bundle and cache it; raise as `read_reference`, or `ImportError` without its packages."""
    return _load_reference(bundle.folder, bundle.digest)


@functools.lru_cache(maxsize=4)
def _load_reference(folder: Path, digest: str) -> Sample:
    return read_reference(Bundle.open(folder, verify=False))
