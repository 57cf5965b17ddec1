"""Storage of a sweep's trials: a folder, or an address such as `gs://bucket/path?option=value`. Uses pyarrow."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pneumo.serving.contracts.errors import MachineError, first_line


def is_address(storage: str) -> bool:
    """Return True for an address, False for a path."""
    return "://" in storage


def resolve_storage(storage: str) -> str:
    """Return an address unchanged, and a path as an absolute path."""
    return storage if is_address(storage) else str(Path(storage).expanduser().resolve())


def join_storage(storage: str, name: str) -> str:
    """Return the place `name` below a storage; the options of an address stay at its end."""
    if not is_address(storage):
        return str(Path(storage).resolve() / name)
    parts = urlsplit(storage)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def format_address(storage: str, path: str) -> str:
    """Return the address of pyarrow's path `bucket/path` in the same bucket as `storage`."""
    parts = urlsplit(storage)
    user, at, bucket = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=user + at + bucket, path=path.removeprefix(bucket)))


def fetch_folder(address: str, target: Path) -> None:
    """Copy a folder from an address; raise a MachineError if it is missing or cannot be reached."""
    import pyarrow
    import pyarrow.fs

    partial = target.with_name(f".{target.name}.partial")
    for leftover in (partial, target):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        source, path = pyarrow.fs.FileSystem.from_uri(address)
        pyarrow.fs.copy_files(path, str(partial), source_filesystem=source)
    except (OSError, pyarrow.ArrowException) as error:
        raise MachineError(f"{address}: cannot be fetched: {first_line(error)}") from None
    partial.replace(target)


def create_storage(storage: str) -> None:
    """Create the storage's folder; raise a MachineError if it cannot be written."""
    import pyarrow
    import pyarrow.fs

    try:
        system, path = pyarrow.fs.FileSystem.from_uri(resolve_storage(storage))
        system.create_dir(path, recursive=True)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise MachineError(f"--storage {storage}: cannot be written: {first_line(error)}") from None
