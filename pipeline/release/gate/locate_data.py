"""Where the data set of a bundle lies: the gate measures on the images that the challenger was held back from."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.bundle import Bundle

DATA = Path("data")


def find_data(bundle: Bundle, given: Path | None, runs: Iterable[Path]) -> Dataset | str:
    """The data set that a bundle was trained on, or why it is not at hand.

    Args:
        bundle: The challenger.
        given: Its folder, where a person named it.
        runs: Folders of runs, where the bundle's run may lie and say where its data set is.

    Raises:
        InputError: No data set in the folder that was given, or another one.
    """
    wanted = bundle.info.data_fingerprint
    if given is not None:
        dataset = manifest.read_dataset(given)
        if dataset.info.fingerprint != wanted:
            raise InputError(
                f"--data {given}: not the data set that {bundle.info.id} was trained on (fingerprint "
                f"{dataset.info.fingerprint[:8]}, not {wanted[:8]}); its test images may be among those it learned from"
            )
        return dataset
    looked = []
    for folder in dict.fromkeys(_places(bundle, runs)):
        try:
            dataset = manifest.read_dataset(folder)
        except InputError:
            looked.append(f"none in {folder}")
            continue
        if dataset.info.fingerprint == wanted:
            return dataset
        looked.append(f"another one in {folder}")
    return f"not at hand ({'; '.join(looked)}): name the folder of the data set {wanted[:8]} with --data"


def _places(bundle: Bundle, runs: Iterable[Path]) -> Iterator[Path]:
    name = str(bundle.info.provenance.get("run", ""))
    folders = [bundle.folder.parent, *(root / name for root in runs if name)]
    for run in map(Run, folders):
        try:
            info = run.info()
        except InputError:
            continue
        if info.data_fingerprint == bundle.info.data_fingerprint:
            yield Path(info.data)
    yield DATA
