"""The registry of models, read side: promoted versions and the aliases that point at them.

`registry.yaml` is text, so that a review shows a promotion as a diff; `pipeline.release.registry` writes it. It lies in
a folder, or in a bucket (`pneumo.serving.model.remote_registry`).
"""

from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.quantities import suggest_name
from pneumo.serving.contracts.setting_types import Root, is_address
from pneumo.serving.contracts.yaml_text import explain_yaml_error, parse_yaml, read_yaml
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
        bundle: Folder of the bundle, relative to the registry, with forward slashes.
        digest: SHA-256 of its `bundle.json`.
        metrics: Metrics of the bundle.
        promoted_at: Time of its first promotion, UTC.
        run: The run that made it, if known.
    """

    name: Name
    version: Name
    bundle: str
    digest: Sha256
    metrics: dict[str, Any]
    promoted_at: datetime
    run: str | None

    @model_validator(mode="after")
    def _check_bundle(self) -> "Version":
        path = PurePosixPath(self.bundle)
        if path.is_absolute() or ".." in path.parts or "\\" in self.bundle:
            raise ValueError(f"bundle {self.bundle!r} lies outside the registry")
        return self

    @property
    def id(self) -> str:
        """Name and version, `name:version`."""
        return f"{self.name}:{self.version}"


class Promotion(FrozenModel):
    """One change of an alias, for reviews and audits.

    Attributes:
        alias: The alias.
        version: Its new version, `name:version`.
        at: Time of the change, UTC.
        action: Whether the version was promoted or came back by a rollback.
        before: Its previous version; None for a new alias.
        compared: Whether the gate compared the two versions on the same images.
        forced: The reason that a person gave to override the gate.
        objections: Reasons of the gate's refusal.
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
    """Content of `registry.yaml`.

    Attributes:
        versions: Every promoted version, oldest first.
        aliases: Current version of each alias: alias to `name:version`.
        history: All versions of each alias, oldest first; the last is the current one.
        promotions: Every change of an alias, oldest first; schema 1 had none.
    """

    schema_version: Literal[1, 2] = 2
    versions: list[Version] = []
    aliases: dict[Alias, str] = {}
    history: dict[Alias, list[str]] = {}
    promotions: list[Promotion] = []

    @model_validator(mode="after")
    def _check_agreement(self) -> "Registry":
        ids = {version.id for version in self.versions}
        if len(ids) != len(self.versions):
            raise ValueError("duplicate version")
        for alias, past in self.history.items():
            if unknown := sorted(set(past) - ids):
                raise ValueError(f"history of {alias} names {unknown[0]!r}, which is not in versions")
        if {alias: past[-1] for alias, past in self.history.items() if past} != self.aliases:
            raise ValueError("aliases and the ends of history differ")
        return self

    def find(self, model: str) -> Version | None:
        """Return the version of an alias or of `name:version`, or None."""
        wanted = self.aliases.get(model, model)
        return next((version for version in self.versions if version.id == wanted), None)

    def list_aliases(self, version: Version) -> list[str]:
        """Return the aliases that point at a version."""
        return sorted(alias for alias, current in self.aliases.items() if current == version.id)

    def list_promotions(self, version: str) -> list[Promotion]:
        """Return the changes that pointed an alias at a version, oldest first."""
        return [promotion for promotion in self.promotions if promotion.version == version]


def read_registry(root: Root = MODELS) -> Registry:
    """Read the registry under `root`; an empty one if there is none yet.

    Raises:
        InputError: It is damaged.
        MachineError: It lies in a bucket that cannot be read.
    """
    path = format_path(root, REGISTRY)
    try:
        content = remote_registry.read_file(root, REGISTRY) if is_address(root) else read_yaml(Path(path))
    except FileNotFoundError:
        return Registry()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from None
    return parse_registry(content, path)


def parse_registry(content: bytes, path: str) -> Registry:
    """Parse the content of a registry's file, or raise an `InputError` that names `path`."""
    try:
        loaded = parse_yaml(content)
    except yaml.YAMLError as error:
        line, problem = explain_yaml_error(error, content.decode(errors="replace"))
        raise InputError(f"{path}:{line}: cannot be read as YAML: {problem}; restore it from version control") from None
    try:
        return Registry.model_validate(loaded)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}; restore it from version control") from None


def read_registry_stamp(root: Root) -> object:
    """Return a value that changes when the registry is written again; raise errors of a bucket as `read_registry`."""
    if is_address(root):
        return remote_registry.read_stamp(root, REGISTRY)
    try:
        status = (Path(root) / REGISTRY).stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def find_version(model: str, root: Root = MODELS) -> Version | None:
    """Return the registered version of an alias or `name:version`; None for a path, such as any text with a slash."""
    return None if "/" in model else read_registry(root).find(model)


def resolve(model: str, root: Root = MODELS) -> Path:
    """Return the bundle folder of an alias, a version or a path; download it once if the registry is in a bucket.

    Args:
        model: An alias or `name:version`, else the path of a bundle folder. Text with a slash, as in `./champion`, is
            always a path.
        root: The registry.

    Raises:
        InputError: No such alias, version or folder.
        BundleError: The registered bundle is missing, or another one lies in its place.
        MachineError: It lies in a bucket that cannot be read.
    """
    version = find_version(model, root)
    if version is not None:
        return locate_bundle(version, root)
    if (Path(model) / INFO).is_file():
        return Path(model)
    raise InputError(f"{model}: {_explain_unknown(model, root)}")


def locate_bundle(version: Version, root: Root = MODELS) -> Path:
    """Return the folder of a registered bundle; raise the errors of `resolve`."""
    if is_address(root):
        return remote_registry.fetch_bundle(root, version.bundle, version.digest)
    folder = Path(root) / version.bundle
    if not (folder / INFO).is_file():
        raise BundleError(f"{folder}: the bundle of {version.id} is missing; promote it again")
    if Bundle.open(folder, verify=False).digest != version.digest:
        raise BundleError(f"{folder}: not the bundle that was promoted as {version.id}; promote it again")
    return folder


def _explain_unknown(model: str, root: Root) -> str:
    if Path(model).is_dir():
        return f"no bundle in this folder ({INFO} is missing); `pneumo export RUN` makes one"
    registry = read_registry(root)
    if not registry.versions:
        return f"no model is promoted in {root}; run `pneumo promote RUN`, or give a bundle folder"
    names = [*registry.aliases, *(version.id for version in registry.versions)]
    return f"no such alias, version or bundle folder; {suggest_name(model, names, sorted(registry.aliases))}"
