"""API keys: digests in a text file that the running service follows.

A key is `pneumo_<id>_<secret>`. The id is public and finds the entry; the secret is 256 random bits. Only the SHA-256
of the key is stored. Salted, slow hashes protect passwords, which people choose and reuse. No table and no list of
guesses covers 256 random bits, so a fast hash without salt is safe here. A slow one would cost a tenth of a second per
request, which anyone could use to overload the service.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError, model_validator

from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.files import atomic_path, open_locked
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.yaml_text import parse_yaml, read_yaml

KeyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

_KEY = re.compile(r"pneumo_([0-9a-f]{16})_[0-9a-f]{64}")
_LIFETIME = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_NO_DIGEST = "0" * 64
_FIX = "fix it, or move it away and `pneumo keys add` new keys"
_CHECK_S = 1.0
"""Least time between two checks of the key file, in seconds."""

_log = logging.getLogger("pneumo.service")


class Key(FrozenModel):
    """One entry of the key file.

    Attributes:
        name: The owner; log lines show it.
        id: The public part of the key.
        sha256: SHA-256 of the whole key, hexadecimal.
        created: Time of creation.
        expires: Time from which the key is refused, or None.
    """

    name: KeyName
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime | None = None

    def is_expired(self, now: datetime) -> bool:
        """Return whether the key is refused at a time."""
        return self.expires is not None and now >= self.expires


class KeyDocument(FrozenModel):
    """The key file."""

    schema_version: Literal[1] = 1
    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _refuse_duplicates(self) -> "KeyDocument":
        for unique in ({key.name for key in self.keys}, {key.id for key in self.keys}):
            if len(unique) != len(self.keys):
                raise ValueError("two keys have the same name or id")
        return self


def read_keys(path: Path) -> KeyDocument:
    """Read a key file; a missing file gives an empty document.

    Raises:
        InputError: The file is damaged. The message quotes nothing from it.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        return KeyDocument()


def add_key(
    path: Path, name: str, *, lifetime: timedelta | None = None, now: datetime | None = None
) -> tuple[Key, str]:
    """Create a key and store its digest in the key file; return the entry, and the key, which is never shown again.

    A key without a `lifetime` does not expire.

    Raises:
        InputError: The name is invalid or taken, or the file is damaged.
        MachineError: The file cannot be written.
    """
    try:
        TypeAdapter(KeyName).validate_python(name)
    except ValidationError:
        raise InputError(f"{name!r}: a key's name is up to 64 letters, digits, '.', '_' or '-'") from None
    created = (now or datetime.now(UTC)).replace(microsecond=0)
    public = secrets.token_hex(8)
    text = f"pneumo_{public}_{secrets.token_hex(32)}"
    expires = created + lifetime if lifetime else None
    key = Key(name=name, id=public, sha256=_digest(text), created=created, expires=expires)
    with _locked(path):
        document = read_keys(path)
        if any(other.name == name for other in document.keys):
            raise InputError(f"{name}: {path} has a key of that name; choose another, or `pneumo keys revoke {name}`")
        _write(path, (*document.keys, key))
    return key, text


def revoke_key(path: Path, name: str) -> Key:
    """Remove a key from the file; a running service refuses it within two seconds.

    Raises:
        InputError: There is no such key, or the file is damaged.
        MachineError: The file cannot be written.
    """
    with _locked(path):
        keys = read_keys(path).keys
        revoked = next((key for key in keys if key.name == name), None)
        if revoked is None:
            names = ", ".join(key.name for key in keys) or "none"
            raise InputError(f"{name}: no such key in {path}; known: {names}")
        _write(path, tuple(key for key in keys if key is not revoked))
    return revoked


def parse_lifetime(text: str) -> timedelta:
    """Parse a time span such as `90d`, `12h` or `4w`.

    Raises:
        InputError: The text has another form.
    """
    match = _LIFETIME.fullmatch(text)
    if not match:
        raise InputError(f"--expires {text!r}: must be a whole number of hours, days or weeks, such as 12h, 90d or 52w")
    return int(match[1]) * _UNITS[match[2]]


def matches_key(key: Key | None, presented: str) -> bool:
    """Return whether a client presented this key, in constant time even if there is no key."""
    same = hmac.compare_digest(_digest(presented), key.sha256 if key else _NO_DIGEST)
    return same and key is not None


class KeyRing:
    """The current keys of a file, which is read again after a change; it is checked at most once per second.

    If the file can no longer be read, the previous keys stay valid and an error is logged. So a slip in an editor does
    not lock out every client.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file; raise an `InputError` if it is damaged."""
        self._path = path
        self._clock = clock
        self._signature = _signature(path)
        self._keys = {key.id: key for key in read_keys(path).keys}
        self._checked_at = clock()
        self._logged = ""

    def list_valid(self, now: datetime) -> list[Key]:
        """Return the keys that have not expired."""
        return [key for key in self._keys.values() if not key.is_expired(now)]

    def find_key(self, presented: str) -> Key | None:
        """Return the key whose public id a client presented; `matches_key` must still check the secret."""
        match = _KEY.fullmatch(presented)
        return self.find_id(match[1] if match else "")

    def find_id(self, public_id: str) -> Key | None:
        """Return the key with a public id."""
        self._refresh()
        return self._keys.get(public_id)

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._checked_at < _CHECK_S:
            return
        self._checked_at = now
        failure = ""
        signature = _signature(self._path)  # before reading: a change meanwhile is noticed at the next check
        if signature is None or signature != self._signature:
            try:
                self._keys = {key.id: key for key in _load(self._path).keys}
            except (InputError, FileNotFoundError) as error:
                failure = str(error) if isinstance(error, InputError) else f"{self._path}: missing"
                if failure != self._logged:
                    _log.error("%s; the previous keys stay valid (%d)", failure, len(self._keys))
            else:
                self._signature = signature
                _log.info("%s has changed; it now holds %d keys", self._path, len(self._keys))
        self._logged = failure


def _digest(presented: str) -> str:
    return hashlib.sha256(presented.encode()).hexdigest()


def _signature(path: Path) -> tuple[int, ...] | None:
    """Return numbers that change with a file, or None if it cannot be examined."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _load(path: Path) -> KeyDocument:
    try:
        return KeyDocument.model_validate(parse_yaml(read_yaml(path)))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); the service's user must be able to") from None
    except ValidationError as error:
        raise InputError(f"{path}: {_describe_problem(error)}; {_FIX}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"{path}{f':{mark.line + 1}' if mark else ''}: not valid YAML; {_FIX}") from None


def _describe_problem(error: ValidationError) -> str:
    """Return place and message of the first problem without text from the file, since a key may be pasted there."""
    first = error.errors(include_input=False)[0]
    fields = {*KeyDocument.model_fields, *Key.model_fields}
    place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in fields)
    return f"{place}: {first['msg']}" if place else first["msg"]


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    """Replace the key file atomically; only its owner may read it."""
    with atomic_path(path.resolve()) as partial:  # resolved, so that a link stays a link
        partial.touch(mode=0o600)
        with partial.open("w", encoding="utf-8") as file:
            yaml.safe_dump(KeyDocument(keys=keys).model_dump(mode="json"), file, sort_keys=False)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        lock = open_locked(path.with_name(f".{path.name}.lock"), wait=True, mode=0o600)
    except OSError as error:
        raise MachineError(f"{path}: cannot be written ({error.strerror}); give another --keys") from None
    with lock:
        yield
