"""A registry in a bucket, read side: addresses such as `gs://bucket/models`, read by fsspec and kept in a local cache.

fsspec, and gcsfs for `gs://`, are imported where an address is used and nowhere else.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pneumo.serving.contracts.errors import InputError, MachineError, PneumoError
from pneumo.serving.contracts.install_hints import install_hint
from pneumo.serving.contracts.setting_types import Root, is_address
from pneumo.serving.model.bundle import INFO, Bundle, BundleError

CACHE = "PNEUMO_CACHE"
"""Environment variable: folder of downloaded bundles; by default `pneumo` in the user's cache folder."""


def format_path(root: Root, name: str) -> str:
    """Format the place of a file under a root, for messages."""
    return f"{root}/{name}" if is_address(root) else str(Path(root) / name)


def read_file(address: str, name: str) -> bytes:
    """Read a file under an address.

    Raises:
        FileNotFoundError: It is not there.
        InputError: No such kind of address, or no such bucket.
        MachineError: What reads it is not installed, nobody may read it, or it cannot be reached.
    """
    with translate_errors(address):
        files, path = open_files(address)
        try:
            content: bytes = files.cat_file(f"{path}/{name}")
        except FileNotFoundError:
            _look_for_bucket(files, path, address)
            raise
        return content


def read_stamp(address: str, name: str) -> str | None:
    """Return what changes when a file under an address is written again; None if there is none.

    Raises:
        InputError: As `read_file`.
        MachineError: As `read_file`.
    """
    with translate_errors(address):
        files, path = open_files(address)
        try:
            found = files.info(f"{path}/{name}")
        except FileNotFoundError:
            return None
        keys = ("generation", "ETag", "etag", "mtime", "LastModified", "created", "size")
        return next((str(found[key]) for key in keys if found.get(key) is not None), "")


def fetch_bundle(address: str, folder: str, digest: str) -> Path:
    """Download a bundle into the cache, unless it is there, and verify every file of it.

    Args:
        address: Of the registry.
        folder: Of the bundle, relative to the registry.
        digest: SHA-256 of its `bundle.json`.

    Returns:
        Its folder in the cache.

    Raises:
        BundleError: A file is missing, or not the one that was promoted.
        MachineError: As `read_file`, or the cache cannot be written.
    """
    target = _cache() / digest
    if _is_whole(target, digest):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    except OSError as error:
        raise MachineError(f"{target.parent}: cannot be written ({error.strerror}); set {CACHE}") from None
    try:
        _download(address, folder, digest, partial)
        if not _is_whole(target, digest):  # another process may have been quicker
            shutil.rmtree(target, ignore_errors=True)
            partial.replace(target)
    except OSError:
        if not _is_whole(target, digest):
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def open_files(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    # gcsfs would else ask each bucket over gRPC whether it is a zonal one, which hangs where only HTTP gets through.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec  # type: ignore[import-untyped]

    files, path = fsspec.core.url_to_fs(address, use_listings_cache=False)
    return files, str(path).rstrip("/")


@contextmanager
def translate_errors(address: str) -> Iterator[None]:
    """Turn what fsspec and its back ends raise into one line; what is not found stays a FileNotFoundError."""
    try:
        yield
    except (PneumoError, FileNotFoundError, FileExistsError):
        raise
    except ImportError as error:
        name = getattr(error, "name", None) or "gcsfs"
        raise MachineError(f"{address}: {name} is not installed; {install_hint('gcs')}") from None
    except Exception as error:  # fsspec's back ends share no base
        raise _plain(address, error) from None


def _look_for_bucket(files: Any, path: str, address: str) -> None:
    """Tell a bucket that is missing from a file that is; only Google Cloud Storage is asked."""
    if "gs" not in files.protocol:
        return
    try:
        files.call("GET", "b/{}/o", files.split_path(path)[0], maxResults=1)
    except FileNotFoundError:
        raise InputError(f"{address}: no such bucket; is its name right?") from None


def _plain(address: str, error: Exception) -> PneumoError:
    kind, told = type(error).__name__, (str(error).strip().splitlines() or [""])[0][:200]
    code = getattr(error, "code", None)
    if isinstance(error, ValueError) and "Protocol not known" in told:
        return InputError(f"{address}: no such kind of address; gs://BUCKET/FOLDER is one")
    if kind in ("DefaultCredentialsError", "RefreshError") or code in (401, "401"):
        return MachineError(
            f"{address}: no credentials; `gcloud auth application-default login` makes some, or name a key file in "
            "GOOGLE_APPLICATION_CREDENTIALS"
        )
    if code in (403, "403") or told.startswith("Forbidden"):
        return MachineError(f"{address}: not allowed; your account needs to read (to promote: to write) objects there")
    if kind.startswith(("Client", "Server")) or isinstance(error, TimeoutError | ConnectionError):
        return MachineError(f"{address}: cannot be reached ({kind}); is there a network?")
    return MachineError(f"{address}: {told or kind}")


def _download(address: str, folder: str, digest: str, partial: Path) -> None:
    def take(name: str) -> bytes:
        try:
            return read_file(address, f"{folder}/{name}")
        except FileNotFoundError:
            raise BundleError(f"{address}/{folder}/{name}: missing; promote the model again") from None

    content = take(INFO)
    if hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(f"{address}/{folder}: not the bundle that was promoted; promote it again")
    (partial / INFO).write_bytes(content)
    for name, expected in Bundle.open(partial, verify=False).info.files.items():
        content = take(name)
        if hashlib.sha256(content).hexdigest() != expected:
            raise BundleError(
                f"{address}/{folder}/{name}: not the file that was promoted (SHA-256 differs); promote it again"
            )
        (partial / name).write_bytes(content)
    partial.chmod(0o755)


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return Bundle.open(folder).digest == digest
    except (BundleError, OSError):
        return False


def _cache() -> Path:
    if given := os.environ.get(CACHE):
        return Path(given)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home / "pneumo"
    except OSError:
        pass
    return Path(tempfile.gettempdir()) / "pneumo"
