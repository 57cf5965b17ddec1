"""Promotion and rollback: changes of an alias, and their record."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pneumo.pipeline.release.registry.bucket import BucketStore
from pneumo.pipeline.release.registry.store import Edit, FolderStore, RegistryStore
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.contracts.quantities import suggest_name
from pneumo.serving.contracts.setting_types import Root, is_address
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.registry import MODELS, REGISTRY, Alias, Promotion, Registry, Version, resolve
from pneumo.serving.model.remote_registry import format_path

CHAMPION = "champion"


@dataclass(frozen=True)
class Admission:
    """The gate's verdict for the record.

    `before` is the version that the alias pointed at then. `forced` is a person's reason to promote although the gate
    refused.
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
    """Copy a sealed bundle into the registry, unless it is there, and point an alias at it; record the gate's verdict.

    Raises:
        InputError: The bundle was changed, another bundle has its version, or the alias is invalid.
        CheckFailedError: The alias has changed since the gate judged.
        MachineError: The registry cannot be written.
    """
    check_alias(alias)
    bundle = Bundle.open(bundle_folder)
    moment = _round_time(now)
    store = _open_store(root)

    def edit(registry: Registry) -> Registry:
        version = registry.find(bundle.info.id)
        if version is not None and version.digest != bundle.digest:
            raise InputError(
                f"{bundle_folder}: {format_path(root, REGISTRY)} holds another bundle as {version.id}; export under a "
                "new version"
            )
        before = registry.aliases.get(alias)
        verdict = admission or Admission(before)
        if before not in (verdict.before, bundle.info.id):
            raise CheckFailedError(
                f"{alias} is {before or 'nothing'} by now, the gate judged against {verdict.before or 'nothing'}: "
                "somebody else changed it; nothing was changed, promote again"
            )
        promoted = version or _describe_version(bundle, moment)
        store.put(bundle, promoted.bundle)
        if version is None:
            registry = registry.model_copy(update={"versions": [*registry.versions, promoted]})
        if before == promoted.id:
            return registry
        record = Promotion(
            alias=alias,
            version=promoted.id,
            at=moment,
            before=before,
            compared=verdict.compared,
            forced=verdict.forced,
            objections=list(verdict.objections),
        )
        return _move_alias(registry, [*registry.history.get(alias, []), promoted.id], record)

    return _change_alias(store, alias, edit)


def rollback(alias: str = CHAMPION, *, root: Root = MODELS, now: datetime | None = None) -> Version:
    """Point an alias at its previous version. The gate is not asked: a bad model must be replaced at once.

    Raises:
        InputError: No such alias, no previous version, or its bundle is missing or changed.
        MachineError: The registry cannot be written.
    """
    moment = _round_time(now)

    def edit(registry: Registry) -> Registry:
        past = registry.history.get(alias)
        if not past:
            names = sorted(registry.aliases)
            hint = suggest_name(alias, names) if names else "`pneumo promote RUN` makes one"
            raise InputError(f"{alias}: no such alias in {format_path(root, REGISTRY)}; {hint}")
        if len(past) < 2:
            raise InputError(f"{alias}: {past[0]} is its first version; there is no previous one to go back to")
        Bundle.open(resolve(past[-2], root))
        record = Promotion(alias=alias, version=past[-2], at=moment, action="rollback", before=past[-1])
        return _move_alias(registry, past[:-1], record)

    return _change_alias(_open_store(root), alias, edit)


def check_alias(alias: str) -> None:
    """Raise `InputError` unless an alias is a letter followed by letters, digits, `_` or `-`."""
    try:
        TypeAdapter(Alias).validate_python(alias)
    except ValidationError:
        raise InputError(f"--alias {alias!r}: must be a letter, then letters, digits, '_' or '-'") from None


def _describe_version(bundle: Bundle, moment: datetime) -> Version:
    info = bundle.info
    run = info.provenance.get("run")
    return Version(
        name=info.name,
        version=info.version,
        bundle=f"{info.name}/{info.version}",
        digest=bundle.digest,
        metrics=_summarise_metrics(info.metrics),
        promoted_at=moment,
        run=str(run) if run is not None else None,
    )


def _summarise_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return value and interval of each metric on held-out splits, for the review of a promotion."""
    return {
        split: {
            name: {key: estimate[key] for key in ("value", "low", "high") if estimate.get(key) is not None}
            for name, estimate in measured["metrics"].items()
        }
        for split, measured in metrics.get("splits", {}).items()
        if split != "train"
    }


def _move_alias(registry: Registry, past: list[str], record: Promotion) -> Registry:
    """Return the registry with a new history of the record's alias."""
    return registry.model_copy(
        update={
            "aliases": registry.aliases | {record.alias: past[-1]},
            "history": registry.history | {record.alias: past},
            "promotions": [*registry.promotions, record],
        }
    )


def _change_alias(store: RegistryStore, alias: str, edit: Edit) -> Version:
    """Change the registry and return the version that the alias points at."""
    version = store.change(edit).find(alias)
    assert version is not None
    return version


def _round_time(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)


def _open_store(root: Root) -> RegistryStore:
    return BucketStore(root) if is_address(root) else FolderStore(Path(root))
