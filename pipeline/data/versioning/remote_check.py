"""Ask a remote once whether it can be used, before DVC tries every file six times."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.serving.contracts.errors import InputError, MachineError

if TYPE_CHECKING:
    from dvc.data_cloud import Remote

WAIT_S = (10.0, 30.0)
"""Longest wait for a connection and for an answer, in seconds."""

_PUBLIC = "https://storage.googleapis.com"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def check_remote(remote: "Remote") -> None:
    """Refuse a remote that cannot be used.

    A bucket of Google Cloud Storage is asked for one name. Others are left to DVC.

    Args:
        remote: The remote.

    Raises:
        InputError: There is no such bucket, or the remote's settings are wrong.
        MachineError: No credentials, no right to list, no network.
    """
    if remote.fs.protocol == "gs":
        _check_bucket(remote)


def _check_bucket(remote: "Remote") -> None:
    bucket = remote.path.partition("/")[0]
    url = f"gs://{bucket}"
    if not _BUCKET.fullmatch(bucket):
        raise InputError(f"{url}: no bucket can have this name; set yours: {_set_url(remote)}")
    key = remote.fs.fs_args.get("token")
    if key not in (None, "anon") and not Path(key).is_file():  # gcsfs would send its path as if it were a token
        raise InputError(
            f"{url}: no key file at {key}; set it: dvc remote modify --local {remote.name} credentialpath KEY.json"
        )
    server = remote.fs.fs_args.get("endpoint_url") or os.environ.get("STORAGE_EMULATOR_HOST") or _PUBLIC
    if "://" not in server:
        server = f"http://{server}"
    first = _ask(server, bucket, {})  # without credentials: where there is no network, finding those takes its time
    if first in (401, 403) and remote.fs.fs_args.get("token") != "anon":
        headers = _credentials(remote, url)
        if headers:
            _refuse(remote, url, _ask(server, bucket, headers), known=True)
            return
    _refuse(remote, url, first, known=False)


def _ask(server: str, bucket: str, headers: dict[str, str]) -> int:
    """Ask for one name in a bucket; the status of the answer."""
    import requests

    try:
        answer = requests.get(
            f"{server}/storage/v1/b/{bucket}/o", params={"maxResults": "1"}, headers=headers, timeout=WAIT_S
        )
    except requests.RequestException as error:
        raise MachineError(
            f"gs://{bucket}: {server} cannot be reached ({_reason(error)}); check network and proxy"
        ) from None
    return answer.status_code


def _credentials(remote: "Remote", url: str) -> dict[str, str]:
    """Headers that say who asks; none where nothing here says it."""
    from google.auth.exceptions import GoogleAuthError

    headers: dict[str, str] = {}
    try:
        remote.fs.fs.credentials.apply(headers)  # those that DVC will use
    except (GoogleAuthError, ValueError, OSError) as error:
        raise MachineError(f"{url}: credentials cannot be used ({_reason(error)}); {_login(remote)}") from None
    return headers


def _refuse(remote: "Remote", url: str, status: int, *, known: bool) -> None:
    if status < 400:
        return
    if status == 401 or (status == 403 and not known):
        raise MachineError(f"{url}: no credentials; {_login(remote)}")
    if status == 403:
        raise MachineError(f"{url}: these credentials may not use it; they need the role roles/storage.objectUser")
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


def _reason(error: BaseException) -> str:
    """The innermost cause, in a line."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
