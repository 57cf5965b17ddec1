"""The registry of models, read side: which versions there are and what an alias means.

`models/registry.yaml` is text, so that a review shows a promotion as a diff. `pipeline.release.registry` writes
it. It lies in
a folder, or in a bucket (`pneumo.serving.model.remote_registry`).
"""

import difflib
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.setting_types import Root, is_address
from pneumo.serving.model import remote_registry
from pneumo.serving.model.bundle import INFO, Bundle, BundleError, Name, Sha256
from pneumo.serving.model.remote_registry import format_path

MODELS = Path("models")
REGISTRY = "registry.yaml"

Alias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,49}$")]


class Version(FrozenModel):
    """One promoted bundle.

    Attributes:
        name: Name of the model.
        version: Version under that name.
        bundle: Its folder, relative to the registry, with forward slashes.
        digest: SHA-256 of its `bundle.json`.
        metrics: As in the bundle.
        promoted_at: When it came into the registry, UTC.
        run: The run that made it, where known.
    """

    name: Name
    version: Name
    bundle: str
    digest: Sha256
    metrics: dict[str, Any]
    promoted_at: datetime
    run: str | None

    @model_validator(mode="after")
    def _lies_inside(self) -> "Version":
        path = PurePosixPath(self.bundle)
        if path.is_absolute() or ".." in path.parts or "\\" in self.bundle:
            raise ValueError(f"bundle {self.bundle!r} lies outside the registry")
        return self

    @property
    def id(self) -> str:
        """`name:version`."""
        return f"{self.name}:{self.version}"


class Promotion(FrozenModel):
    """One change of what an alias means: the record that a review or an audit asks for.

    Attributes:
        alias: The alias.
        version: What it means from then on, `name:version`.
        at: When, UTC.
        action: Whether it was promoted, or came back by a rollback.
        before: What the alias meant until then; None where nothing did.
        compared: Whether the gate compared the two on the same images.
        forced: The reason that a person gave where the gate had refused.
        objections: Why the gate had refused.
    """

    alias: Alias
    version: str
    at: datetime
    action: Literal["promote", "rollback"] = "promote"
    before: str | None = None
    compared: bool = False
    forced: str | None = None
    objections: list[str] = []


class Registry(FrozenModel):
    """`registry.yaml`.

    Attributes:
        versions: Every promoted version, oldest first.
        aliases: What an alias means now: alias to `name:version`.
        history: What each alias has meant, oldest first; the last is what it means now.
        promotions: Every change of an alias, oldest first; schema 1 had none.
    """

    schema_version: Literal[1, 2] = 2
    versions: list[Version] = []
    aliases: dict[Alias, str] = {}
    history: dict[Alias, list[str]] = {}
    promotions: list[Promotion] = []

    @model_validator(mode="after")
    def _agree(self) -> "Registry":
        known = {version.id for version in self.versions}
        if len(known) != len(self.versions):
            raise ValueError("a version is listed twice")
        for alias, past in self.history.items():
            unknown = set(past) - known
            if unknown:
                raise ValueError(f"history of {alias} names {sorted(unknown)[0]!r}, which is not in versions")
        if {alias: past[-1] for alias, past in self.history.items() if past} != self.aliases:
            raise ValueError("aliases and the ends of history differ")
        return self

    def find(self, model: str) -> Version | None:
        """The version that an alias or `name:version` means, or None."""
        wanted = self.aliases.get(model, model)
        return next((version for version in self.versions if version.id == wanted), None)

    def list_aliases(self, version: Version) -> list[str]:
        """The aliases that mean a version now."""
        return sorted(alias for alias, meant in self.aliases.items() if meant == version.id)

    def list_promotions(self, version: str) -> list[Promotion]:
        """The changes that made an alias mean a version, oldest first."""
        return [each for each in self.promotions if each.version == version]


def read_registry(root: Root = MODELS) -> Registry:
    """Read the registry under `root`; empty where there is none yet.

    Raises:
        InputError: It is damaged.
        MachineError: It lies in a bucket that cannot be read.
    """
    path = format_path(root, REGISTRY)
    try:
        content = (
            remote_registry.read_file(root, REGISTRY) if is_address(root) else (Path(root) / REGISTRY).read_bytes()
        )
    except FileNotFoundError:
        return Registry()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from None
    return parse_registry(content, path)


def parse_registry(content: bytes, path: str) -> Registry:
    """Read what stands in a registry's file; `path` stands in messages.

    Raises:
        InputError: It is damaged.
    """
    try:
        loaded = yaml.safe_load(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not valid YAML; restore it from version control") from None
    try:
        return Registry.model_validate(loaded)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}; restore it from version control") from None


def read_registry_stamp(root: Root) -> object:
    """Return what changes when the registry is written again.

    Raises:
        MachineError: It lies in a bucket that cannot be read.
    """
    if is_address(root):
        return remote_registry.read_stamp(root, REGISTRY)
    try:
        found = (Path(root) / REGISTRY).stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def find_version(model: str, root: Root = MODELS) -> Version | None:
    """The registered version that an alias or `name:version` means; None for a path, which anything with a slash is.

    Raises:
        InputError: The registry is damaged.
        MachineError: It lies in a bucket that cannot be read.
    """
    return None if "/" in model else read_registry(root).find(model)


def resolve(model: str, root: Root = MODELS) -> Path:
    """Find the bundle folder that is meant; one in a bucket is downloaded to the cache, once.

    Args:
        model: An alias or `name:version`, else the path of a bundle folder. With a slash in it, as in `./champion`, it
            is always a path.
        root: The registry.

    Raises:
        InputError: Nothing is meant by it.
        BundleError: The registered bundle is missing, or another one lies in its place.
        MachineError: It lies in a bucket that cannot be read.
    """
    version = find_version(model, root)
    if version is None:
        if (Path(model) / INFO).is_file():
            return Path(model)
        raise InputError(f"{model}: {_unknown(model, root)}")
    return locate_bundle(version, root)


def locate_bundle(version: Version, root: Root = MODELS) -> Path:
    """Find the folder of a registered bundle, see `resolve`.

    Raises:
        BundleError: It is missing, or another one lies in its place.
        MachineError: It lies in a bucket that cannot be read.
    """
    if is_address(root):
        return remote_registry.fetch_bundle(root, version.bundle, version.digest)
    folder = Path(root) / version.bundle
    if not (folder / INFO).is_file():
        raise BundleError(f"{folder}: the bundle of {version.id} is missing; promote it again")
    if Bundle.open(folder, verify=False).digest != version.digest:
        raise BundleError(f"{folder}: not the bundle that was promoted as {version.id}; promote it again")
    return folder


def _unknown(model: str, root: Root) -> str:
    if Path(model).is_dir():
        return f"no bundle in this folder ({INFO} is missing); `pneumo export RUN` makes one"
    registry = read_registry(root)
    if not registry.versions:
        return f"no model is promoted in {root}; `pneumo promote RUN` does, or give a bundle folder"
    names = [*registry.aliases, *(version.id for version in registry.versions)]
    close = difflib.get_close_matches(model, names, n=1)
    known = ", ".join(sorted(registry.aliases)) or names[-1]
    return f"no such alias, version or bundle folder; {f'did you mean {close[0]}?' if close else f'known: {known}'}"
