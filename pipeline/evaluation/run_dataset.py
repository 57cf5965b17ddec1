"""The data set that a run was trained on, or measured with."""

from pathlib import Path

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.folds import apply_fold
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.runs.run import RunInfo
from pneumo.serving.contracts.errors import InputError


def read_unchanged(folder: Path, fingerprint: str) -> tuple[Dataset | None, str | None]:
    """Read the data set of some predictions for a report; None and a sentence why if it is not there any more."""
    name = f"The data set {folder.name or folder}"
    try:
        dataset = manifest.read_dataset(folder)
    except (InputError, OSError):
        return None, f"{name} was moved or deleted before this report was made."
    if dataset.info.fingerprint != fingerprint:
        return None, f"{name} has changed since these predictions were made."
    return dataset, None


def read_run_dataset(info: RunInfo) -> Dataset:
    """Read a run's data set as `read_training_data` does, with the splits of its fold if it has one."""
    dataset = read_training_data(info.name, info.data, info.data_fingerprint)
    return apply_fold(dataset, info.fold, ensemble=bool(info.members)) if info.fold else dataset


def read_training_data(name: str, data: str, fingerprint: str) -> Dataset:
    """Read a data set for a run or another user `name`; raise an `InputError` if it cannot be read, or has changed."""
    try:
        dataset = manifest.read_dataset(Path(data))
    except InputError as error:
        raise InputError(f"{name}: its data set cannot be read: {error}") from None
    if dataset.info.fingerprint != fingerprint:
        raise InputError(
            f"{data}: not the data set that {name} was trained on, since its fingerprint differs; "
            "import the original data again"
        )
    return dataset
