"""The folder of a bundle while it is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import replace_folder
from pneumo.serving.model.bundle import INFO, Bundle


@contextmanager
def write_bundle_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder whose content becomes the bundle in `target` at the end; a bundle there is replaced.

    Raises:
        InputError: `target` holds something that is not a bundle, or what was written is none.
    """
    if target.exists() and any(target.iterdir()) and not (target / INFO).is_file():
        raise InputError(f"{target}: holds something that is not a bundle; choose another --out")
    with replace_folder(target) as partial:
        yield partial
        Bundle.open(partial)
