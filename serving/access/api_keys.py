"""API keys: who may ask, kept as digests in a text file that the running service follows.

A key is `pneumo_<id>_<secret>`. The id is public and finds the entry; the secret is 256 random bits. Only the SHA-256
of the key is kept. Slow, salted hashes are for passwords, which people choose and share: they make each guess dear and
tables of common ones useless. No table and no list of guesses covers 256 random bits, so that a fast hash without salt
gives nothing away. A check then costs microseconds, not a tenth of a second that any stranger could ask for at will.
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
from typing import Annotated, Any, Literal

import yaml
from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError, model_validator

from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.files import atomic_path, open_locked
from pneumo.serving.contracts.models import FrozenModel

KeyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

_KEY = re.compile(r"pneumo_([0-9a-f]{16})_[0-9a-f]{64}")
_LIFETIME = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_NO_DIGEST = "0" * 64
_LOOK_S = 1.0

_log = logging.getLogger("pneumo.service")


class Key(FrozenModel):
    """What is kept of one key.

    Attributes:
        name: Who has it; what logs may say.
        id: Its public part.
        sha256: SHA-256 of the whole key, hexadecimal.
        created: When it was made.
        expires: From when on it is refused, or None.
    """

    name: KeyName
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime | None = None

    def is_expired(self, now: datetime) -> bool:
        """Whether it is too late for this key."""
        return self.expires is not None and now >= self.expires


class KeyDocument(FrozenModel):
    """The key file."""

    schema_version: Literal[1] = 1
    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _differ(self) -> "KeyDocument":
        for unique in ({key.name for key in self.keys}, {key.id for key in self.keys}):
            if len(unique) != len(self.keys):
                raise ValueError("two keys have the same name or id")
        return self


def read_keys(path: Path) -> KeyDocument:
    """Read a key file; empty where there is none yet.

    Raises:
        InputError: It is damaged. The message holds nothing of what the file says.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        return KeyDocument()


def add_key(
    path: Path, name: str, *, lifetime: timedelta | None = None, now: datetime | None = None
) -> tuple[Key, str]:
    """Make a key and keep its digest.

    Args:
        path: The key file; made where there is none.
        name: Who gets it.
        lifetime: How long it holds; None for as long as it is not revoked.
        now: The time; by default the clock's.

    Returns:
        What is kept, and the key itself, which nothing can show again.

    Raises:
        InputError: The name is no name or taken, or the file is damaged.
        MachineError: The file cannot be written.
    """
    try:
        TypeAdapter(KeyName).validate_python(name)
    except ValidationError:
        raise InputError(f"{name!r}: a key's name is up to 64 letters, digits, '.', '_' or '-'") from None
    created = (now or datetime.now(UTC)).replace(microsecond=0)
    public = secrets.token_hex(8)
    text = f"pneumo_{public}_{secrets.token_hex(32)}"
    key = Key(
        name=name, id=public, sha256=_digest(text), created=created, expires=created + lifetime if lifetime else None
    )
    with _locked(path):
        document = read_keys(path)
        if any(other.name == name for other in document.keys):
            raise InputError(f"{name}: {path} has a key of that name; choose another, or `pneumo keys revoke {name}`")
        _write(path, document.model_copy(update={"keys": (*document.keys, key)}))
    return key, text


def revoke_key(path: Path, name: str) -> Key:
    """Forget a key; a running service refuses it within a second or two.

    Raises:
        InputError: No such key, or the file is damaged.
        MachineError: The file cannot be written.
    """
    with _locked(path):
        document = read_keys(path)
        gone = next((key for key in document.keys if key.name == name), None)
        if gone is None:
            known = ", ".join(key.name for key in document.keys) or "none"
            raise InputError(f"{name}: no such key in {path}; known: {known}")
        _write(path, document.model_copy(update={"keys": tuple(key for key in document.keys if key is not gone)}))
    return gone


def parse_lifetime(text: str) -> timedelta:
    """Read a span such as `90d`, `12h` or `4w`.

    Raises:
        InputError: It is not one.
    """
    found = _LIFETIME.fullmatch(text)
    if not found:
        raise InputError(f"--expires {text!r}: must be a whole number of hours, days or weeks, such as 12h, 90d or 52w")
    return int(found[1]) * _UNITS[found[2]]


def matches_key(key: Key | None, presented: str) -> bool:
    """Return whether a client presented this key, in the same time whatever it is and whether there is a key."""
    same = hmac.compare_digest(_digest(presented), key.sha256 if key else _NO_DIGEST)
    return same and key is not None


class KeyRing:
    """The keys of a file as they are now: it is looked at again when it changed, at most once a second.

    A file that cannot be read any more leaves the keys from before in force, so that a slip of an editor does not lock
    every client out; that is logged.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file.

        Args:
            path: The key file.
            clock: Seconds that never run backwards.

        Raises:
            InputError: It is damaged.
        """
        self._path = path
        self._clock = clock
        self._signature = _signature(path)
        self._keys = {key.id: key for key in read_keys(path).keys}
        self._looked = clock()
        self._complaint = ""

    def usable(self, now: datetime) -> list[Key]:
        """The keys that have not expired."""
        return [key for key in self._keys.values() if not key.is_expired(now)]

    def find_key(self, presented: str) -> Key | None:
        """The key whose public id is in what a client presented; whether it is that key, `matches_key` tells."""
        self._look()
        found = _KEY.fullmatch(presented)
        return self._keys.get(found[1]) if found else None

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        signature = _signature(self._path)  # before reading: what changes meanwhile is seen the next time
        if signature is not None and signature == self._signature:
            self._complaint = ""
            return
        try:
            self._keys = {key.id: key for key in _load(self._path).keys}
        except (InputError, FileNotFoundError) as error:
            complaint = str(error) if isinstance(error, InputError) else f"{self._path}: missing"
            if complaint != self._complaint:
                _log.error("%s; keys from before stay in force (%d)", complaint, len(self._keys))
            self._complaint = complaint
        else:
            self._complaint = ""
            self._signature = signature
            _log.info("%s has changed; keys now in force: %d", self._path, len(self._keys))


def _digest(presented: str) -> str:
    return hashlib.sha256(presented.encode()).hexdigest()


def _signature(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does, or None where it cannot be told."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _load(path: Path) -> KeyDocument:
    try:
        # The C loader: a service that takes over new keys stands still meanwhile.
        loaded = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return KeyDocument.model_validate(loaded)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); the service's user must be able to") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"{path}{f':{mark.line + 1}' if mark else ''}: not valid YAML; {_MEND}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {_place(error)}; {_MEND}") from None
    except ValueError:  # what looks like a time and is none
        raise InputError(f"{path}: not valid YAML; {_MEND}") from None


_MEND = "mend it, or move it away and `pneumo keys add` new ones"


def _place(error: ValidationError) -> str:
    """Where a document is wrong and how, without a word from it: a key could have been pasted there."""
    first = error.errors(include_input=False)[0]
    fields = {*KeyDocument.model_fields, *Key.model_fields}
    place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in fields)
    return f"{place}: {first['msg']}" if place else first["msg"]


def _write(path: Path, document: KeyDocument) -> None:
    """Put a file in place of another, so that a reader sees the old or the new one; for the owner's eyes only."""
    content: dict[str, Any] = document.model_dump(mode="json")
    path = path.resolve()  # a link stays a link
    with atomic_path(path) as partial:
        partial.touch(mode=0o600)
        with partial.open("w", encoding="utf-8") as file:
            yaml.safe_dump(content, file, sort_keys=False)
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
