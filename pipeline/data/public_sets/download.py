"""Download a file over HTTP: what arrived is kept, asked for once only, and checked before it gets its name."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pneumo.pipeline.data.public_sets.catalogue import PublicSet, find_public_set
from pneumo.serving.contracts.errors import CheckFailedError, InputError, MachineError
from pneumo.serving.contracts.files import open_locked

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and how many there will be, where that is known."""

ATTEMPTS = 6
WAIT_S = 30.0
"""Longest silence of a server, in seconds."""

_BLOCK = 1 << 18
_PASSING = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Fetched:
    """What a fetch left.

    Attributes:
        path: The file.
        downloaded: Bytes that came over the network this time; none where the file was there.
        resumed: Bytes that an earlier attempt had left.
    """

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

    Until the file is whole and its digest right it lies beside its place as `.part`; a later call goes on from there.

    Args:
        name: Which one, of `SETS`.
        folder: Where to.
        mirror: Another address to take the file from: it lies there under the same name.
        attempts: How often to ask where a server breaks off or is busy without sending anything new.
        pause: Seconds before the second attempt; doubled each time.
        progress: Told how much is there.

    Raises:
        InputError: There is no such set, or nothing at the address.
        CheckFailedError: What came is another file.
        MachineError: No network, or the server gave up.
    """
    wanted = find_public_set(name)
    address = f"{mirror.rstrip('/')}/{wanted.file}" if mirror else wanted.address
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise InputError(f"--from {mirror}: no web address; give one that begins with https://")
    target = folder / wanted.file
    folder.mkdir(parents=True, exist_ok=True)
    if target.exists():
        _check(target, wanted, f"{target}: another file is there", "delete it and fetch again")
        return Fetched(target, 0, 0)
    part = target.with_name(f"{target.name}.part")
    with _held(part) as file:
        resumed = file.seek(0, os.SEEK_END)
        download = _Download(file, address, wanted.size, progress)
        download.finish(attempts, pause)
        try:
            _check(part, wanted, f"{address}: sent another file", f"see {wanted.page}, then fetch again or use --from")
        except CheckFailedError as error:
            refused = part.replace(target.with_name(f"{target.name}.refused"))  # what is added to it stays wrong
            raise CheckFailedError(f"{error}; it is kept as {refused}") from None
        part.replace(target)
    return Fetched(target, download.received, resumed if download.resumed else 0)


class _Download:
    """One file under way.

    Attributes:
        received: Bytes that came.
        resumed: Whether the bytes of an earlier attempt were of use.
    """

    def __init__(self, file: IO[bytes], address: str, size: int | None, progress: Progress | None) -> None:
        self.file = file
        self.address = address
        self.size = size
        self.progress = progress
        self.received = 0
        self.resumed = file.tell() > 0

    def finish(self, attempts: int, pause: float) -> None:
        """Ask until all is there; an attempt that brought something does not count against the server."""
        left = attempts
        while True:
            before = self.received
            try:
                self._ask()
                return
            except _BrokenError as broken:
                left = attempts if self.received > before else left - 1
                if left <= 0:
                    kept = f"; {self.file.tell():,} bytes are kept, run it again to go on" if self.file.tell() else ""
                    raise MachineError(f"{self.address}: {broken}{kept}") from None
                time.sleep(broken.wait if broken.wait is not None else pause * 2 ** (attempts - left))

    def _ask(self) -> None:
        at = self.file.seek(0, os.SEEK_END)
        if at and at == self.size:
            return
        request = urllib.request.Request(self.address, headers={"User-Agent": "pneumo", "Accept-Encoding": "identity"})
        if at:
            request.add_header("Range", f"bytes={at}-")
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                self._take(answer, at)
        except urllib.error.HTTPError as error:
            error.close()
            self._refused(error, at)
        except urllib.error.URLError as error:
            raise _BrokenError(f"cannot be reached ({error.reason}); check network and proxy") from None
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(f"the connection broke ({str(error) or type(error).__name__})") from None

    def _take(self, answer: http.client.HTTPResponse, at: int) -> None:
        length = answer.headers.get("Content-Length")
        if at and (answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {at}-")):
            at = self._begin_again()  # the server sends the whole file whatever is asked
        whole = at + int(length) if length and length.isdigit() else self.size
        while block := answer.read(_BLOCK):
            self.file.write(block)
            self.received += len(block)
            if self.progress is not None:
                self.progress(self.file.tell(), whole)
        self.file.flush()
        if whole is not None and self.file.tell() < whole:
            raise _BrokenError(f"the connection broke at {self.file.tell():,} of {whole:,} bytes")

    def _begin_again(self) -> int:
        self.file.seek(0)
        self.file.truncate()
        self.resumed = False
        return 0

    def _refused(self, error: urllib.error.HTTPError, at: int) -> None:
        if error.code == 416 and at:  # nothing after what is there: it is whole, or of another file; the digest tells
            whole = error.headers.get("Content-Range", "").rpartition("/")[2]
            if whole.isdigit() and int(whole) != at:
                self._begin_again()
                raise _BrokenError("the file there has another length", wait=0.0)
            return
        if error.code in _PASSING:
            after = error.headers.get("Retry-After", "")
            raise _BrokenError(
                f"the server answers {error.code}", wait=min(float(after), 60.0) if after.isdigit() else None
            )
        if error.code in (404, 410):
            raise InputError(f"{self.address}: the server has no such file ({error.code}); try --from with a mirror")
        raise MachineError(f"{self.address}: the server answers {error.code}; try --from with a mirror")


class _BrokenError(Exception):
    """An attempt failed in a way that another may not."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@contextmanager
def _held(part: Path) -> Iterator[IO[bytes]]:
    """The file under way, for this process alone."""
    try:
        file = open_locked(part)
    except BlockingIOError:
        raise MachineError(f"{part}: another download of it is running; wait for it to end") from None
    with file:
        yield file


def _check(path: Path, wanted: PublicSet, what: str, mend: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, wanted.algorithm).hexdigest()
    if digest != wanted.digest:
        raise CheckFailedError(f"{what}: {wanted.algorithm} {digest} instead of {wanted.digest}; {mend}")
