"""Promotion and rollback: what an alias means from now on, and the record of it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pneumo.pipeline.release.registry.bucket import BucketStore
from pneumo.pipeline.release.registry.store import FolderStore, RegistryStore
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.contracts.setting_types import Root, is_address
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.registry import (
    MODELS,
    REGISTRY,
    Alias,
    Promotion,
    Registry,
    Version,
    read_registry,
    resolve,
)
from pneumo.serving.model.remote_registry import format_path

CHAMPION = "champion"


@dataclass(frozen=True)
class Admission:
    """How a model came past the gate.

    Attributes:
        before: What the alias meant when the gate looked; None where nothing did.
        compared: Whether the two were compared.
        forced: The reason that a person gave where the gate had refused.
        objections: Why it had refused.
    """

    before: str | None
    compared: bool = False
    forced: str | None = None
    objections: tuple[str, ...] = ()


def promote(
    bundle_folder: Path,
    *,
    alias: str = CHAMPION,
    root: Root = MODELS,
    now: datetime | None = None,
    admission: Admission | None = None,
) -> Version:
    """Copy a bundle into the registry and let an alias mean it; a bundle that is there already is not copied again.

    Args:
        bundle_folder: A sealed bundle.
        alias: What shall mean it.
        root: The registry.
        now: The time of promotion; by default the clock's.
        admission: What the gate said (`pneumo.pipeline.release.gate`); None where it was not asked.

    Raises:
        InputError: The bundle is not what was sealed, its version is taken by another one, or the alias is no name.
        CheckFailedError: The alias means something else than when the gate looked.
        MachineError: The registry cannot be written.
    """
    check_alias(alias)
    bundle = Bundle.open(bundle_folder)
    moment = _moment(now)
    store = _open_store(root)

    def edit(registry: Registry) -> Registry:
        version = registry.find(bundle.info.id)
        if version is not None and version.digest != bundle.digest:
            raise InputError(
                f"{bundle_folder}: {format_path(root, REGISTRY)} holds another bundle as {version.id}; export under a "
                "new version"
            )
        before = registry.aliases.get(alias)
        if admission is not None and before not in (admission.before, bundle.info.id):
            raise CheckFailedError(
                f"{alias} is {before or 'nothing'} by now, the gate looked at {admission.before or 'nothing'}: "
                "somebody else changed it; nothing was changed, promote again"
            )
        new = _describe(bundle, moment) if version is None else version
        store.put(bundle, new.bundle)
        if version is None:
            registry = registry.model_copy(update={"versions": [*registry.versions, new]})
        if before == new.id:
            return registry
        told = admission or Admission(before)
        record = Promotion(
            alias=alias,
            version=new.id,
            at=moment,
            before=before,
            compared=told.compared,
            forced=told.forced,
            objections=list(told.objections),
        )
        return _with_history(registry, alias, [*registry.history.get(alias, []), new.id], record)

    store.change(edit)
    return _known(read_registry(root), bundle.info.id)


def rollback(alias: str = CHAMPION, *, root: Root = MODELS, now: datetime | None = None) -> Version:
    """Let an alias mean what it meant before. The gate is not asked: what is wrong shall go at once.

    Raises:
        InputError: No such alias, nothing before, or the bundle from before is gone or changed.
        MachineError: The registry cannot be written.
    """
    moment = _moment(now)
    found: list[Version] = []

    def edit(registry: Registry) -> Registry:
        past = registry.history.get(alias)
        if not past:
            known = ", ".join(sorted(registry.aliases)) or "none; `pneumo promote RUN` makes one"
            raise InputError(f"{alias}: no such alias in {format_path(root, REGISTRY)}; known: {known}")
        if len(past) < 2:
            raise InputError(f"{alias}: {past[0]} is the earliest that it meant; there is nothing to go back to")
        Bundle.open(resolve(past[-2], root))
        found.append(_known(registry, past[-2]))
        record = Promotion(alias=alias, version=past[-2], at=moment, action="rollback", before=past[-1])
        return _with_history(registry, alias, past[:-1], record)

    _open_store(root).change(edit)
    return found[-1]


def list_versions(root: Root = MODELS) -> list[Version]:
    """Every promoted version, oldest first."""
    return read_registry(root).versions


def check_alias(alias: str) -> None:
    """Refuse what cannot be an alias.

    Raises:
        InputError: Not a letter followed by letters, digits, `_` or `-`.
    """
    try:
        TypeAdapter(Alias).validate_python(alias)
    except ValidationError:
        raise InputError(f"--alias {alias!r}: must be a letter, then letters, digits, '_' or '-'") from None


def _describe(bundle: Bundle, moment: datetime) -> Version:
    info = bundle.info
    run = info.provenance.get("run")
    return Version(
        name=info.name,
        version=info.version,
        bundle=f"{info.name}/{info.version}",
        digest=bundle.digest,
        metrics=_summary(info.metrics),
        promoted_at=moment,
        run=str(run) if run is not None else None,
    )


def _summary(metrics: dict[str, Any]) -> dict[str, Any]:
    """Value and interval of each metric on held-out splits: what a review of a promotion wants to see, and no more."""
    return {
        split: {
            name: {key: round(estimate[key], 4) for key in ("value", "low", "high") if estimate.get(key) is not None}
            for name, estimate in measured["metrics"].items()
        }
        for split, measured in metrics.get("splits", {}).items()
        if split != "train"
    }


def _with_history(registry: Registry, alias: str, past: list[str], record: Promotion) -> Registry:
    return registry.model_copy(
        update={
            "aliases": registry.aliases | {alias: past[-1]},
            "history": registry.history | {alias: past},
            "promotions": [*registry.promotions, record],
        }
    )


def _known(registry: Registry, wanted: str) -> Version:
    return next(version for version in registry.versions if version.id == wanted)


def _moment(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)


def _open_store(root: Root) -> RegistryStore:
    return BucketStore(root) if is_address(root) else FolderStore(Path(root))
