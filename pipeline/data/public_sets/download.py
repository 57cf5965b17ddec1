"""Download a file over HTTP: it is resumed after a broken connection and checked before it gets its name."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pneumo.pipeline.data.phantom.dataset import RECORD
from pneumo.pipeline.data.public_sets.catalogue import SETS, PublicSet, find_public_set
from pneumo.serving.contracts.errors import CheckFailedError, InputError, MachineError
from pneumo.serving.contracts.files import open_locked
from pneumo.serving.contracts.population import PHANTOMS, Population

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes so far and the total, None if unknown."""

ATTEMPTS = 6
WAIT_S = 30.0
"""Longest silence of a server, in seconds."""

_BLOCK = 1 << 18
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Fetched:
    """A downloaded file, with the number of bytes of this download and of an earlier, resumed one."""

    path: Path
    downloaded: int
    resumed: int


def download_public_set(
    name: str,
    folder: Path,
    *,
    mirror: str | None = None,
    attempts: int = ATTEMPTS,
    pause: float = 1.0,
    progress: Progress | None = None,
) -> Fetched:
    """Download a public data set.

    The file is called `.part` until it is whole and its digest is right; a later call resumes it.

    Args:
        name: A name in `SETS`.
        folder: The folder for the file.
        mirror: Address of a folder on another server that has the file under the same name.
        attempts: Most attempts in a row without a new byte.
        pause: Seconds before the second attempt; doubled each time.
        progress: Called with the number of bytes so far.

    Raises:
        InputError: There is no such set, or no file at the address.
        CheckFailedError: The file has another digest.
        MachineError: There is no network, or the server failed in every attempt.
    """
    wanted = find_public_set(name)
    address = f"{mirror.rstrip('/')}/{wanted.file}" if mirror else wanted.address
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise InputError(f"--from {mirror}: no web address; give one that begins with https://")
    target = folder / wanted.file
    folder.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if difference := _compare_digest(target, wanted):
            raise CheckFailedError(f"{target}: another file is there: {difference}; delete it and fetch again")
        return Fetched(target, 0, 0)
    part = target.with_name(f"{target.name}.part")
    try:
        file = open_locked(part)
    except BlockingIOError:
        raise MachineError(f"{part}: another download of it is running; wait for it to end") from None
    with file:
        resumed = file.seek(0, os.SEEK_END)
        download = _Download(file, address, wanted.size, progress)
        download.finish(attempts, pause)
        if difference := _compare_digest(part, wanted):
            refused = part.replace(target.with_name(f"{target.name}.refused"))  # resuming it would not help
            raise CheckFailedError(
                f"{address}: sent another file: {difference}; see {wanted.page}, then fetch again or use --from; "
                f"it is kept as {refused}"
            )
        part.replace(target)
    return Fetched(target, download.received, resumed if download.resumed else 0)


class _Download:
    """One download in progress.

    Attributes:
        received: Bytes received.
        resumed: The bytes of an earlier attempt were used.
    """

    def __init__(self, file: IO[bytes], address: str, size: int | None, progress: Progress | None) -> None:
        self.file = file
        self.address = address
        self.size = size
        self.progress = progress
        self.received = 0
        self.resumed = file.tell() > 0

    def finish(self, attempts: int, pause: float) -> None:
        """Send requests until the file is whole; an attempt that received bytes resets the count of attempts."""
        left = attempts
        while True:
            before = self.received
            try:
                self._request()
                return
            except _BrokenError as broken:
                left = attempts if self.received > before else left - 1
                if left <= 0:
                    size = self.file.tell()
                    hint = (
                        f"{size:,} bytes are kept, run it again to resume" if size else "try again later, or use --from"
                    )
                    raise MachineError(f"{self.address}: {broken}; {hint}") from None
                time.sleep(broken.wait if broken.wait is not None else pause * 2 ** (attempts - left))

    def _request(self) -> None:
        start = self.file.seek(0, os.SEEK_END)
        if start and start == self.size:
            return
        headers = {"User-Agent": "pneumo", "Accept-Encoding": "identity"}
        request = urllib.request.Request(self.address, headers=headers)  # noqa: S310 - http and https alone, checked by the caller
        if start:
            request.add_header("Range", f"bytes={start}-")
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:  # noqa: S310 - as above
                self._receive(answer, start)
        except urllib.error.HTTPError as error:
            error.close()
            self._handle_status(error, start)
        except urllib.error.URLError as error:
            raise _BrokenError(f"cannot be reached ({error.reason}); check network and proxy") from None
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(f"the connection broke ({str(error) or type(error).__name__})") from None

    def _receive(self, answer: http.client.HTTPResponse, start: int) -> None:
        length = answer.headers.get("Content-Length")
        ranged = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if start and not ranged:  # the server knows no ranges and sends the whole file
            start = self._restart()
        whole = start + int(length) if length and length.isdigit() else self.size
        while block := answer.read(_BLOCK):
            self.file.write(block)
            self.received += len(block)
            if self.progress is not None:
                self.progress(self.file.tell(), whole)
        self.file.flush()
        if whole is not None and self.file.tell() < whole:
            raise _BrokenError(f"the connection broke at {self.file.tell():,} of {whole:,} bytes")

    def _restart(self) -> int:
        self.file.truncate(0)
        self.resumed = False
        return self.file.seek(0)

    def _handle_status(self, error: urllib.error.HTTPError, start: int) -> None:
        if error.code == 416 and start:  # no bytes after `start`: the file is whole, or another; its digest tells
            whole = error.headers.get("Content-Range", "").rpartition("/")[2]
            if whole.isdigit() and int(whole) != start:
                self._restart()
                raise _BrokenError("the file there has another length", wait=0.0)
            return
        if error.code in _TEMPORARY:
            after = error.headers.get("Retry-After", "")
            wait = min(float(after), 60.0) if after.isdigit() else None
            raise _BrokenError(f"the server answers {error.code}", wait)
        if error.code in (404, 410):
            raise InputError(f"{self.address}: the server has no such file ({error.code}); try --from with a mirror")
        raise MachineError(f"{self.address}: the server answers {error.code}; try --from with a mirror")


class _BrokenError(Exception):
    """An attempt failed in a way that another may not."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def recognise_population(path: Path) -> Population | None:
    """Return the population of a folder of phantoms, or of a public data set by name and digest; None for any other."""
    if (path / RECORD).is_file():
        return PHANTOMS
    known = (each for each in SETS.values() if each.file == path.name and path.is_file())
    return next((each.population for each in known if _compare_digest(path, each) is None), None)


def _compare_digest(path: Path, wanted: PublicSet) -> str | None:
    """Return the difference between the digest of a file and the right one, None if they are equal."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, wanted.algorithm).hexdigest()
    return None if digest == wanted.digest else f"{wanted.algorithm} {digest} instead of {wanted.digest}"
