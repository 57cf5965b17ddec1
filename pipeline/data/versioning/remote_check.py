"""One request that tells if a remote can be used, before DVC tries every file six times."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.serving.contracts.errors import InputError, MachineError, join_lines

if TYPE_CHECKING:
    from dvc.data_cloud import Remote

WAIT_S = (10.0, 30.0)
"""Longest wait for a connection and for an answer, in seconds."""

_PUBLIC = "https://storage.googleapis.com"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def check_remote(remote: "Remote") -> None:
    """Refuse a bucket of Google Cloud Storage that cannot be used; other remotes are left to DVC.

    Raises:
        InputError: There is no such bucket, or the remote's settings are wrong.
        MachineError: There are no credentials, no right to list, or no network.
    """
    if remote.fs.protocol != "gs":
        return
    bucket = remote.path.partition("/")[0]
    url, arguments = f"gs://{bucket}", remote.fs.fs_args
    if not _BUCKET.fullmatch(bucket):
        raise InputError(f"{url}: no bucket can have this name; set yours: {_set_url(remote)}")
    key = arguments.get("token")
    if key not in (None, "anon") and not Path(key).is_file():  # gcsfs would send its path as if it were a token
        raise InputError(
            f"{url}: no key file at {key}; set it: dvc remote modify --local {remote.name} credentialpath KEY.json"
        )
    server = arguments.get("endpoint_url") or os.environ.get("STORAGE_EMULATOR_HOST") or _PUBLIC
    if "://" not in server:
        server = f"http://{server}"
    headers: dict[str, str] = {}
    status = _request_names(server, bucket, headers)  # without credentials: without a network, finding them is slow
    if status in (401, 403) and key != "anon":
        headers = _read_credentials(remote, url)
        if headers:
            status = _request_names(server, bucket, headers)
    _check_status(remote, url, status, has_credentials=bool(headers))


def _request_names(server: str, bucket: str, headers: dict[str, str]) -> int:
    """Request one name in a bucket and return the status of the answer."""
    import requests

    address = f"{server}/storage/v1/b/{bucket}/o"
    try:
        return requests.get(address, params={"maxResults": "1"}, headers=headers, timeout=WAIT_S).status_code
    except requests.RequestException as error:
        raise MachineError(
            f"gs://{bucket}: {server} cannot be reached ({_find_cause(error)}); check network and proxy"
        ) from None


def _read_credentials(remote: "Remote", url: str) -> dict[str, str]:
    """Return headers with the credentials that DVC will use; empty if there are none."""
    from google.auth.exceptions import GoogleAuthError

    headers: dict[str, str] = {}
    try:
        remote.fs.fs.credentials.apply(headers)
    except (GoogleAuthError, ValueError, OSError) as error:
        raise MachineError(f"{url}: credentials cannot be used ({_find_cause(error)}); {_login(remote)}") from None
    return headers


def _check_status(remote: "Remote", url: str, status: int, *, has_credentials: bool) -> None:
    if status < 400:
        return
    if status == 401 or (status == 403 and not has_credentials):
        raise MachineError(f"{url}: no credentials; {_login(remote)}")
    if status == 403:
        raise MachineError(f"{url}: these credentials may not use it; give them the role roles/storage.objectUser")
    if status in (400, 404):
        raise InputError(
            f"{url}: no such bucket; make it with `gcloud storage buckets create {url}`, or set yours: "
            f"{_set_url(remote)}"
        )
    raise MachineError(f"{url}: the storage service answers {status}; try again later")


def _set_url(remote: "Remote") -> str:
    return f"dvc remote modify {remote.name} url gs://BUCKET/FOLDER"


def _login(remote: "Remote") -> str:
    return (
        "run `gcloud auth application-default login`, or name a key file: "
        f"dvc remote modify --local {remote.name} credentialpath KEY.json"
    )


def _find_cause(error: BaseException) -> str:
    """Return the innermost cause in one line."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return join_lines(error, 200)
