"""The models that the prediction log may speak of: those that are loaded, and those of the registry."""

import functools
from pathlib import Path

from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.setting_types import Root
from pneumo.serving.drift.samples import Sample, read_reference
from pneumo.serving.inference.model_slots import ModelSlots
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.registry import find_version, locate_bundle


class BundleLookup:
    """Finds the bundle of a version that answered once; threads may share it."""

    def __init__(self, slots: ModelSlots, models_dir: Root) -> None:
        """Look among what is loaded first, then in the registry under `models_dir`."""
        self._slots = slots
        self._models_dir = models_dir

    def loaded(self) -> list[Bundle]:
        """What answers now."""
        return [slot.bundle for slot in self._slots.loaded]

    def find(self, model: str, version: str) -> Bundle | None:
        """The bundle of a version; None where it is neither loaded nor in the registry any more."""
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
    """Read the reference of a bundle as `read_reference` does, and keep it in memory.

    Raises:
        InputError: The bundle has no reference.
        ImportError: What reads it is not installed.
    """
    return _reference(bundle.folder, bundle.digest)


@functools.lru_cache(maxsize=4)
def _reference(folder: Path, digest: str) -> Sample:
    return read_reference(Bundle.open(folder, verify=False))
