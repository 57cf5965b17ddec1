"""Where a sweep's trials are kept: a folder, or an address such as `gs://bucket/path?option=value`. Uses pyarrow."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pneumo.serving.contracts.errors import MachineError, first_line


def is_address(storage: str) -> bool:
    """Whether it is an address, not a path."""
    return "://" in storage


def absolute(storage: str) -> str:
    """The same place, whatever the working directory."""
    return storage if is_address(storage) else str(Path(storage).expanduser().resolve())


def below(storage: str, name: str) -> str:
    """A place below a storage; options of an address stay at its end."""
    if not is_address(storage):
        return str(Path(storage).resolve() / name)
    parts = urlsplit(storage)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def address_of(storage: str, path: str) -> str:
    """The address of what a file system calls `bucket/path`, beside a storage in the same bucket."""
    parts = urlsplit(storage)
    user, at, bucket = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=user + at + bucket, path=path.removeprefix(bucket)))


def fetch(address: str, target: Path) -> None:
    """Copy a folder from an address.

    Raises:
        MachineError: It cannot be reached, or is not there.
    """
    import pyarrow
    import pyarrow.fs

    partial = target.with_name(f".{target.name}.partial")
    for left in (partial, target):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        source, path = pyarrow.fs.FileSystem.from_uri(address)
        pyarrow.fs.copy_files(path, str(partial), source_filesystem=source)
    except (OSError, pyarrow.ArrowException) as error:
        raise MachineError(f"{address}: cannot be fetched: {first_line(error)}") from None
    partial.replace(target)


def check(storage: str) -> None:
    """Make sure that a storage can be written, before anything starts.

    Raises:
        MachineError: It cannot.
    """
    import pyarrow
    import pyarrow.fs

    try:
        if is_address(storage):
            system, path = pyarrow.fs.FileSystem.from_uri(storage)
            system.create_dir(path, recursive=True)
        else:
            Path(storage).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise MachineError(f"--storage {storage}: cannot be written: {first_line(error)}") from None
