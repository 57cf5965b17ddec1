"""Location of a bundle's data set: the gate measures on the test images of the challenger's own data set."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.bundle import Bundle

DATA = Path("data")


def find_data(bundle: Bundle, given: Path | None, runs: Iterable[Path]) -> Dataset | str:
    """Return the data set that a bundle was trained on, or a message that says why it was not found.

    It must be in the `given` folder if there is one; else the record of the bundle's run is searched for in `runs`.
    Of a bundle that is recalibrated with labels it is the data set of its site.
    """
    wanted, purpose = bundle.info.data_fingerprint, "trained on"
    recalibration = bundle.info.recalibration
    if recalibration and recalibration.counts:
        wanted, purpose = recalibration.data_fingerprint, "recalibrated for"
        if given is None:
            return f"{bundle.info.id} is recalibrated: name the folder of data set {wanted[:8]} with --data"
    if given is not None:
        dataset = manifest.read_dataset(given)
        if dataset.info.fingerprint != wanted:
            raise InputError(
                f"--data {given}: not the data set that {bundle.info.id} was {purpose} (fingerprint "
                f"{dataset.info.fingerprint[:8]}, not {wanted[:8]}); its test images may be training images"
            )
        return dataset
    searched = []
    for folder in dict.fromkeys(_list_folders(bundle, runs)):
        try:
            dataset = manifest.read_dataset(folder)
        except InputError:
            searched.append(f"none in {folder}")
            continue
        if dataset.info.fingerprint == wanted:
            return dataset
        searched.append(f"another one in {folder}")
    return f"not found ({'; '.join(searched)}): name the folder of data set {wanted[:8]} with --data"


def _list_folders(bundle: Bundle, runs: Iterable[Path]) -> Iterator[Path]:
    name = str(bundle.info.provenance.get("run", ""))
    for folder in (bundle.folder.parent, *(root / name for root in runs if name)):
        try:
            info = Run(folder).info()
        except InputError:
            continue
        if info.data_fingerprint == bundle.info.data_fingerprint:
            yield Path(info.data)
    yield DATA
