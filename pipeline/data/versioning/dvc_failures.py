"""What DVC leaves unsaid when a transfer fails: which files, and why."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pneumo.serving.contracts.errors import CheckFailedError, InputError, MachineError

if TYPE_CHECKING:
    from dvc.data_cloud import Remote
    from dvc.output import Output
    from dvc.repo import Repo

_LOGGERS = ("dvc", "dvc_data", "dvc_objects", "gcsfs", "fsspec")


@dataclass(frozen=True)
class Fault:
    """A file that could not be had.

    Attributes:
        file: Its path here.
        url: Its path in the remote.
        damaged: It is there, with other bytes; else it is not there.
    """

    file: Path
    url: str
    damaged: bool


@contextmanager
def silence_dvc() -> Iterator[None]:
    """Keep DVC's log, with its tracebacks, off the terminal; errors are told by those that are raised."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


@contextmanager
def explain_failures(remote: "Remote", find: Callable[[bool], list[Fault]] | None = None) -> Iterator[None]:
    """Turn what a transfer raises into one line.

    Args:
        remote: Where to or from.
        find: Looks for what is wrong with single files; told whether all of them arrived.

    Raises:
        CheckFailedError: Files are missing in the remote or are damaged.
        InputError: Something is in the way.
        MachineError: The connection, the disk or another DVC.
    """
    from dvc.exceptions import CheckoutError, DvcException, FileTransferError
    from dvc.lock import LockError

    try:
        yield
    except FileTransferError as error:
        _look(remote, find, arrived=False)
        raise MachineError(f"remote {remote.name}: {_line(error)}; try again, what was done is kept") from None
    except CheckoutError as error:
        _look(remote, find, arrived=True)
        raise MachineError(f"remote {remote.name}: {_line(error)}") from None
    except LockError:
        raise MachineError("another DVC command is running in this repository; wait for it to end") from None
    except DvcException as error:
        if "--force" in str(error):
            path = str(error).splitlines()[-1]
            raise InputError(
                f"{path}: changed here and not recorded; `dvc add` records it, --force replaces it"
            ) from None
        raise MachineError(f"remote {remote.name}: {_line(error)}") from None
    except Exception as error:  # whatever the client of a storage service raises
        raise MachineError(f"remote {remote.name}: {_line(error)}; try again, what was done is kept") from None


def find_faults(repo: "Repo", remote: "Remote", outputs: "Sequence[Output]", *, arrived: bool) -> list[Fault]:
    """Files that a pull could not bring into the cache, with what is wrong in the remote.

    Args:
        repo: The repository.
        remote: The remote.
        outputs: What was asked for.
        arrived: No transfer failed, so that what is not in the cache had other bytes and was thrown away.
    """
    faults = []
    for output in outputs:
        for path, oid in _parts(output, remote):
            if not repo.cache.local.exists(oid):
                there = remote.odb.oid_to_path(oid)
                exists = remote.fs.exists(there)
                if arrived or not exists:
                    faults.append(Fault(path, remote.fs.unstrip_protocol(there), damaged=exists))
    return faults


def _parts(output: "Output", remote: "Remote") -> Iterator[tuple[Path, str]]:
    """A file, or a folder's listing and its files, with the digests that name them."""
    from dvc_data.hashfile import load
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    folder = Path(output.fs_path)
    yield folder, output.hash_info.value
    listing = output.get_obj()
    if listing is None and output.hash_info.isdir:  # it is not kept here where one of its files failed
        try:
            listing = load(remote.odb, output.hash_info)
        except (FileNotFoundError, ObjectFormatError):
            return
    if isinstance(listing, Tree):
        for key, _, digest in listing:
            if digest.value is not None:
                yield folder.joinpath(*key), digest.value


def raise_faults(remote: "Remote", faults: Sequence[Fault]) -> NoReturn:
    """Raise what was found, which is not nothing.

    Raises:
        CheckFailedError: Always.
    """
    first, others = faults[0], f" (and {len(faults) - 1} files more)" if len(faults) > 1 else ""
    if first.damaged:
        raise CheckFailedError(
            f"{first.url}: damaged; it is no longer {_near(first.file)}{others}; "
            "delete it there and push again where the data is whole"
        )
    raise CheckFailedError(
        f"{_near(first.file)}: not in remote {remote.name}{others}; push it where the data is: `pneumo data push`"
    )


def _look(remote: "Remote", find: Callable[[bool], list[Fault]] | None, *, arrived: bool) -> None:
    if find is not None and (faults := find(arrived)):
        raise_faults(remote, faults)


def _near(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
