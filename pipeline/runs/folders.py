"""Folders that hold one JSON record each: a run with `run.json`, a sweep with `sweep.json`."""

import difflib
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ValidationError

from pneumo.serving.contracts.errors import InputError, first_line, first_problem
from pneumo.serving.contracts.files import open_locked


class FileIn:
    """Attribute of a `RecordFolder`: the path of a file or folder in it; of the class, its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: "RecordFolder | None", owner: type) -> Path:
        return instance.folder / self.name if instance else Path(self.name)


@dataclass(frozen=True)
class RecordFolder:
    """A folder named after time and config, with a JSON record, a config and a lock file.

    Attributes:
        RECORD: File name of the record.
        KIND: Word for such a folder in messages.
        COMMAND: Command that makes such a folder.
        ROOT: Default parent of such folders.
    """

    folder: Path
    RECORD: ClassVar[str]
    KIND: ClassVar[str]
    COMMAND: ClassVar[str]
    ROOT: ClassVar[Path]

    config = FileIn("config.yaml")
    """The config, YAML."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def record_file(self) -> Path:
        """The record, JSON."""
        return self.folder / self.RECORD

    @classmethod
    def create(cls, config_name: str, *, root: Path | None = None, now: datetime | None = None) -> Self:
        """Make an empty folder `<UTC time>-<config name>-<4 hex>` under `root`, which is `ROOT` by default."""
        stem = re.sub(r"[^A-Za-z0-9_.]+", "-", config_name)[:60].strip("-._") or "run"
        folder = (root or cls.ROOT) / f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}-{stem}-{secrets.token_hex(2)}"
        folder.mkdir(parents=True)
        return cls(folder)

    @classmethod
    def list_folders(cls, root: Path) -> list[Self]:
        """Return all folders under `root` that have a record, oldest first."""
        return [cls(path.parent) for path in sorted(root.glob(f"*/{cls.RECORD}"))]

    @classmethod
    def open(cls, name: str | Path, *, root: Path | None = None, resuming: bool = False) -> Self:
        """Find a folder by its path, by its name or a unique prefix of it under `root`, or by the word `latest`.

        `latest` is the newest that has not failed; with `resuming` it is the newest, which may be worth another try.

        Raises:
            InputError: No folder has this name, several names start with it, or all have failed.
        """
        given = cls(Path(name))
        if given.record_file.is_file():
            return given
        root = root or cls.ROOT
        folders = cls.list_folders(root)
        if str(name) == "latest" and folders:
            if latest := next((each for each in reversed(folders) if resuming or not each.has_failed()), None):
                return latest
            raise InputError(f"latest: every {cls.KIND} in {root} failed; the newest is {folders[-1].name}")
        matches = [folder for folder in folders if folder.name.startswith(str(name))] if str(name) else []
        exact = next((folder for folder in matches if folder.name == str(name)), None)
        if exact is not None or len(matches) == 1:
            return exact or matches[0]
        if matches:
            raise InputError(f"{name}: {len(matches)} {cls.KIND}s in {root} start with this; give more letters")
        hint = f"there is none yet: `{cls.COMMAND}` makes one"
        if folders:
            near = _find_near(Path(name).name, [each.name for each in folders])
            hint = f"did you mean {near}?" if near else f"the newest is {folders[-1].name}"
        raise InputError(f"{name}: no such {cls.KIND} in {root}; {hint}")

    def has_failed(self) -> bool:
        """Return whether the record says so; False if it cannot be read."""
        try:
            return bool(json.loads(self.record_file.read_bytes())["status"] == "failed")
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def read_record[Record: BaseModel](self, model: type[Record]) -> Record:
        """Read the record; raise an `InputError` if it is missing or damaged."""
        path = self.record_file
        try:
            return model.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: missing; {self.folder} is not a {self.KIND}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read ({first_line(error)})") from None
        except ValidationError as error:
            raise InputError(f"{path}: {first_problem(error)}") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder until this process ends, however it ends; raise an `InputError` if another one holds it."""
        try:
            lock = open_locked(self.folder / ".lock")
        except BlockingIOError:
            raise InputError(f"{self.name}: still running; wait for it, or stop it first") from None
        with lock:
            yield


def _find_near(word: str, names: Sequence[str]) -> str | None:
    """Return the newest of some names that holds a word, or else one that the word, or whose config it, nearly is."""
    folded = {part.lower(): name for name in names for part in (name, name.partition("-")[2].rpartition("-")[0])}
    folded["latest"] = "latest"
    close = difflib.get_close_matches(word.lower(), folded, n=1)
    holding = [name for name in names if word and word.lower() in name.lower()]
    return holding[-1] if holding else folded[close[0]] if close else None
