"""A registry in a bucket, read side: addresses such as `gs://bucket/models`, read by fsspec into a local cache.

fsspec, and gcsfs for `gs://`, are imported only if an address is used.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pneumo.serving.contracts.errors import InputError, MachineError, PneumoError, first_line
from pneumo.serving.contracts.install_hints import install_hint
from pneumo.serving.contracts.process_state import set_environment
from pneumo.serving.contracts.setting_types import Root, is_address
from pneumo.serving.model.bundle import INFO, Bundle, BundleError

CACHE = "PNEUMO_CACHE"
"""Environment variable: folder of downloaded bundles; by default `pneumo` in the user's cache folder."""
GCSFS = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
"""Read when gcsfs is imported, which would ask each bucket for its kind over gRPC; that hangs behind proxies."""


def format_path(root: Root, name: str) -> str:
    """Return the path or address of a file under a root."""
    return f"{root}/{name}" if is_address(root) else str(Path(root) / name)


def read_file(address: str, name: str) -> bytes:
    """Read a file under an address.

    Raises:
        FileNotFoundError: No such file.
        InputError: An unknown kind of address, or no such bucket.
        MachineError: A package is missing, reading is not allowed, or the bucket cannot be reached.
    """
    with translate_errors(address):
        files, path = open_files(address)
        try:
            content: bytes = files.cat_file(f"{path}/{name}")
        except FileNotFoundError:
            _check_bucket(files, path, address)
            raise
        return content


def read_stamp(address: str, name: str) -> str | None:
    """Return a value that changes when a file under an address is written again; None if there is no file."""
    with translate_errors(address):
        files, path = open_files(address)
        try:
            attributes = files.info(f"{path}/{name}")
        except FileNotFoundError:
            return None
        keys = ("generation", "ETag", "etag", "mtime", "LastModified", "created", "size")
        return next((str(attributes[key]) for key in keys if attributes.get(key) is not None), "")


def fetch_bundle(address: str, folder: str, digest: str) -> Path:
    """Download a bundle into the cache, unless it is there, and verify every file of it.

    Args:
        address: Address of the registry.
        folder: Folder of the bundle, relative to the registry.
        digest: SHA-256 of its `bundle.json`.

    Returns:
        Its folder in the cache.

    Raises:
        BundleError: A file is missing, or not the one that was promoted.
        MachineError: As `read_file`, or the cache cannot be written.
    """
    target = _find_cache() / digest
    if _is_complete(target, digest):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    except OSError as error:
        raise MachineError(f"{target.parent}: cannot be written ({error.strerror}); set {CACHE}") from None
    try:
        _download(address, folder, digest, partial)
        if not _is_complete(target, digest):  # another process may have been quicker
            shutil.rmtree(target, ignore_errors=True)
            partial.replace(target)
    except OSError:
        if not _is_complete(target, digest):
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


@set_environment(GCSFS)
def open_files(address: str) -> tuple[Any, str]:
    """Return the file system of an address, as untyped fsspec gives it, and the path in it."""
    import fsspec  # type: ignore[import-untyped]

    files, path = fsspec.core.url_to_fs(address, use_listings_cache=False)
    return files, str(path).rstrip("/")


@contextmanager
def translate_errors(address: str) -> Iterator[None]:
    """Turn the errors of fsspec and its back ends into one line; FileNotFoundError and FileExistsError pass."""
    try:
        yield
    except (PneumoError, FileNotFoundError, FileExistsError):
        raise
    except ImportError as error:
        raise MachineError(f"{address}: {error.name or 'gcsfs'} is not installed; {install_hint('gcs')}") from None
    except Exception as error:  # fsspec's back ends share no base
        raise _translate(address, error) from None


def _check_bucket(files: Any, path: str, address: str) -> None:
    """Raise an InputError if the bucket itself is missing; only Google Cloud Storage is asked."""
    if "gs" not in files.protocol:
        return
    try:
        files.call("GET", "b/{}/o", files.split_path(path)[0], maxResults=1)
    except FileNotFoundError:
        raise InputError(f"{address}: no such bucket; is its name right?") from None


def _translate(address: str, error: Exception) -> PneumoError:
    kind, text = type(error).__name__, first_line(error)
    code = str(getattr(error, "code", ""))
    if isinstance(error, ValueError) and "Protocol not known" in text:
        return InputError(f"{address}: unknown kind of address; gs://BUCKET/FOLDER is one")
    if kind in ("DefaultCredentialsError", "RefreshError") or code == "401":
        return MachineError(
            f"{address}: no credentials; `gcloud auth application-default login` makes some, or name a key file in "
            "GOOGLE_APPLICATION_CREDENTIALS"
        )
    if code == "403" or text.startswith("Forbidden"):
        return MachineError(f"{address}: not allowed; your account needs to read (to promote: to write) objects there")
    if kind.startswith(("Client", "Server")) or isinstance(error, TimeoutError | ConnectionError):
        return MachineError(f"{address}: cannot be reached ({kind}); is there a network?")
    return MachineError(f"{address}: {text}")


def _download(address: str, folder: str, digest: str, partial: Path) -> None:
    def read(name: str) -> bytes:
        try:
            return read_file(address, f"{folder}/{name}")
        except FileNotFoundError:
            raise BundleError(f"{address}/{folder}/{name}: missing; promote the model again") from None

    content = read(INFO)
    if hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(f"{address}/{folder}: not the bundle that was promoted; promote it again")
    (partial / INFO).write_bytes(content)
    for name, expected in Bundle.open(partial, verify=False).info.files.items():
        content = read(name)
        if hashlib.sha256(content).hexdigest() != expected:
            raise BundleError(
                f"{address}/{folder}/{name}: not the file that was promoted (SHA-256 differs); promote it again"
            )
        (partial / name).write_bytes(content)
    partial.chmod(0o755)


def _is_complete(folder: Path, digest: str) -> bool:
    try:
        return Bundle.open(folder).digest == digest
    except (BundleError, OSError):
        return False


def _find_cache() -> Path:
    if folder := os.environ.get(CACHE):
        return Path(folder)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home / "pneumo"
    return Path(tempfile.gettempdir()) / "pneumo"
