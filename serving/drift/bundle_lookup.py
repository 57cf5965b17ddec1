"""The models that the prediction log may speak of: those that are loaded, and those of the registry."""

import functools
from pathlib import Path

from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.drift.samples import Sample, reference_of
from pneumo.serving.inference.model_slots import Fleet
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.registry import find_version, folder_of
from pneumo.serving.model.remote_registry import Root


class KnownModels:
    """Finds the bundle of a version that answered once; threads may share it."""

    def __init__(self, fleet: Fleet, models_dir: Root) -> None:
        """Look among what is loaded first, then in the registry under `models_dir`."""
        self._fleet = fleet
        self._models_dir = models_dir

    def loaded(self) -> list[Bundle]:
        """What answers now."""
        return [lane.bundle for lane in self._fleet.lanes]

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
            return Bundle.open(folder_of(registered, self._models_dir), verify=False)
        except (InputError, MachineError):
            return None


def reference(bundle: Bundle) -> Sample:
    """As `reference_of`, kept in memory for the next time.

    Raises:
        InputError: The bundle has no reference.
        ImportError: What reads it is not installed.
    """
    return _reference(bundle.folder, bundle.digest)


@functools.lru_cache(maxsize=4)
def _reference(folder: Path, digest: str) -> Sample:
    return reference_of(Bundle.open(folder, verify=False))
