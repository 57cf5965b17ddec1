"""Errors of DVC in one line, with the files that a failed transfer lacks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.serving.contracts.errors import CheckFailedError, InputError, MachineError, join_lines

if TYPE_CHECKING:
    from dvc.data_cloud import Remote
    from dvc.output import Output
    from dvc.repo import Repo


Fault = tuple[str, str]
"""A file that the remote lacks or holds damaged: the problem and its fix."""


@contextmanager
def explain_failures(remote: "Remote", find: Callable[[bool], list[Fault]] | None = None) -> Iterator[None]:
    """Turn the errors of a transfer into one line; `find` gets True if no transfer failed, and finds faulty files.

    Raises:
        CheckFailedError: Files are missing in the remote or are damaged.
        InputError: A changed file is in the way.
        MachineError: The connection or the disk failed, or another DVC command is running.
    """
    from dvc.exceptions import CheckoutError, DvcException, FileTransferError
    from dvc.lock import LockError

    try:
        yield
    except LockError:
        raise MachineError("another DVC command is running in this repository; wait for it to end") from None
    except Exception as error:  # also any error of a storage service's client
        if find and isinstance(error, FileTransferError | CheckoutError):
            raise_faults(find(isinstance(error, CheckoutError)))
        if isinstance(error, DvcException) and "--force" in str(error):
            path = str(error).splitlines()[-1]
            raise InputError(
                f"{path}: changed here and not recorded; `dvc add` records it, --force replaces it"
            ) from None
        again = not isinstance(error, DvcException) or isinstance(error, FileTransferError)
        hint = "try again, finished files are kept" if again else "`dvc status` shows the state of the files"
        raise MachineError(f"remote {remote.name}: {join_lines(error)}; {hint}") from None


def find_faults(repo: "Repo", remote: "Remote", outputs: "Sequence[Output]", *, arrived: bool) -> list[Fault]:
    """Return the files of `outputs` that a pull did not bring into the cache.

    `arrived` says that no transfer failed, so that a file which is not in the cache was damaged and thrown away.
    """
    faults = []
    for path, oid in (part for output in outputs for part in _list_parts(output, remote)):
        if repo.cache.local.exists(oid):
            continue
        file = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        place = remote.odb.oid_to_path(oid)
        if not remote.fs.exists(place):
            faults.append((f"{file}: not in remote {remote.name}", "run `pneumo data push` where the data is"))
        elif arrived:
            problem = f"{remote.fs.unstrip_protocol(place)}: damaged; it is no longer {file}"
            faults.append((problem, "delete it there and push again from a whole data set"))
    return faults


def _list_parts(output: "Output", remote: "Remote") -> Iterator[tuple[Path, str]]:
    """Yield a file, or a folder's listing and its files, with their digests."""
    from dvc_data.hashfile import load
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    folder = Path(output.fs_path)
    yield folder, output.hash_info.value
    listing = output.get_obj()
    if listing is None and output.hash_info.isdir:  # it is not in the cache if one of its files failed
        try:
            listing = load(remote.odb, output.hash_info)
        except (FileNotFoundError, ObjectFormatError):
            return
    if isinstance(listing, Tree):
        for key, _, digest in listing:
            if digest.value is not None:
                yield folder.joinpath(*key), digest.value


def raise_faults(faults: Sequence[Fault]) -> None:
    """Raise the first fault as CheckFailedError, with the number of others; return if there is none."""
    if faults:
        problem, fix = faults[0]
        more = f" (and {len(faults) - 1} more files)" if len(faults) > 1 else ""
        raise CheckFailedError(f"{problem}{more}; {fix}")
