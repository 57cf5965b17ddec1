"""The folder of a bundle while it is written."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.bundle import INFO, Bundle


@contextmanager
def write_bundle_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder whose content becomes the bundle in `target` at the end; a bundle there is replaced.

    Raises:
        InputError: `target` holds something that is not a bundle, or what was written is none.
    """
    if target.exists() and any(target.iterdir()) and not (target / INFO).is_file():
        raise InputError(f"{target}: holds something that is not a bundle; choose another --out")
    partial = target.with_name(f".{target.name}-{os.getpid()}-{secrets.token_hex(2)}")
    partial.mkdir(parents=True)
    try:
        yield partial
        Bundle.open(partial)
        if target.exists():
            target.rename(old := target.with_name(f"{partial.name}-old"))
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
