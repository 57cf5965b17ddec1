"""The registry of models, write side: promotion and rollback, atomic under a lock."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from pipeline.runs import RUNS, Run, write_text
from serving.bundle import INFO, Bundle
from serving.errors import InputError, MachineError
from serving.models import MODELS, REGISTRY, Alias, Registry, Version, find_version, read_registry, resolve

CHAMPION = "champion"
BUNDLE = "bundle"
"""Folder of the bundle inside a run."""

_PARTIAL = ".partial-"


def promote(bundle_folder: Path, *, alias: str = CHAMPION, root: Path = MODELS, now: datetime | None = None) -> Version:
    """Copy a bundle into the registry and let an alias mean it; a bundle that is there already is not copied again.

    Args:
        bundle_folder: A sealed bundle.
        alias: What shall mean it.
        root: Folder of the registry.
        now: The time of promotion; by default the clock's.

    Raises:
        InputError: The bundle is not what was sealed, its version is taken by another one, or the alias is no name.
    """
    check_alias(alias)
    bundle = Bundle.open(bundle_folder)
    with _locked(root):
        registry = read_registry(root)
        version = registry.find(bundle.info.id)
        if version is None:
            version = _take_in(bundle, root, now or datetime.now(UTC))
            registry = registry.model_copy(update={"versions": [*registry.versions, version]})
        elif version.digest != bundle.digest:
            raise InputError(
                f"{bundle_folder}: {root / REGISTRY} holds another bundle as {version.id}; export under a new version"
            )
        else:
            _mend(bundle, root / version.bundle)
        if registry.aliases.get(alias) != version.id:
            past = [*registry.history.get(alias, []), version.id]
            registry = _with_history(registry, alias, past)
        _write(root, registry)
    return version


def rollback(alias: str = CHAMPION, *, root: Path = MODELS) -> Version:
    """Let an alias mean what it meant before.

    Raises:
        InputError: No such alias, nothing before, or the bundle from before is gone or changed.
    """
    with _locked(root):
        registry = read_registry(root)
        past = registry.history.get(alias)
        if not past:
            known = ", ".join(sorted(registry.aliases)) or "none; `pneumo promote RUN` makes one"
            raise InputError(f"{alias}: no such alias in {root / REGISTRY}; known: {known}")
        if len(past) < 2:
            raise InputError(f"{alias}: {past[0]} is the earliest that it meant; there is nothing to go back to")
        registry = _with_history(registry, alias, past[:-1])
        Bundle.open(resolve(past[-2], root))
        _write(root, registry)
    return next(version for version in registry.versions if version.id == past[-2])


def list_versions(root: Path = MODELS) -> list[Version]:
    """Every promoted version, oldest first."""
    return read_registry(root).versions


def find_bundle(what: str, *, root: Path = MODELS, runs: Path = RUNS, say: Callable[[str], None] | None = None) -> Path:
    """The bundle that an alias, a version, a bundle folder or a run means; a run is exported if need be.

    A registered name goes before a folder of that name, as in `serving.models.resolve`; with a slash in it, as in
    `./champion`, it is always a path.

    Args:
        what: What is given on the command line.
        root: Folder of the registry.
        runs: Folder of the runs.
        say: Told how far an export is, a line at a time.

    Raises:
        InputError: Nothing is meant by it.
    """
    if find_version(what, root):
        return resolve(what, root)
    if (Path(what) / INFO).is_file():
        return Path(what)
    run = Run.open(what, root=runs)
    bundle = current_bundle(run)
    if bundle is not None:
        return bundle
    from pipeline.export import export

    return export(run, say=say)


def current_bundle(run: Run) -> Path | None:
    """The bundle in a run's folder, if it is whole and was made from the metrics that the run has now.

    Evaluating again, as with another policy, moves thresholds and metrics, and a bundle from before has the old ones.
    """
    folder = run.folder / BUNDLE
    try:
        bundle = Bundle.open(folder)
        metrics = json.loads(run.metrics.read_bytes())
    except (InputError, OSError, ValueError):
        return None
    return folder if bundle.info.metrics == metrics else None


def check_alias(alias: str) -> None:
    """Refuse what cannot be an alias.

    Raises:
        InputError: Not a letter followed by letters, digits, `_` or `-`.
    """
    try:
        TypeAdapter(Alias).validate_python(alias)
    except ValidationError:
        raise InputError(f"--alias {alias!r}: must be a letter, then letters, digits, '_' or '-'") from None


def _take_in(bundle: Bundle, root: Path, now: datetime) -> Version:
    info = bundle.info
    target = root / info.name / info.version
    _copy(bundle, target)
    run = info.provenance.get("run")
    return Version(
        name=info.name,
        version=info.version,
        bundle=target.relative_to(root).as_posix(),
        digest=bundle.digest,
        metrics=_summary(info.metrics),
        promoted_at=now.astimezone(UTC).replace(microsecond=0),
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


def _mend(bundle: Bundle, target: Path) -> None:
    """Copy again where the registered folder is gone or damaged."""
    try:
        Bundle.open(target)
    except InputError:
        _copy(bundle, target)


def _copy(bundle: Bundle, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for left_over in target.parent.glob(f"{_PARTIAL}*"):  # of a promotion that was killed: the lock is ours
        shutil.rmtree(left_over)
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=target.parent))
    try:
        for name in (*bundle.info.files, INFO):
            shutil.copyfile(bundle.folder / name, partial / name)
        Bundle.open(partial)
        partial.chmod(0o755)
        if target.exists():  # not in the registry, or damaged
            shutil.rmtree(target)
        partial.replace(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _with_history(registry: Registry, alias: str, past: list[str]) -> Registry:
    return registry.model_copy(
        update={
            "aliases": registry.aliases | {alias: past[-1]},
            "history": registry.history | {alias: past},
        }
    )


def _write(root: Path, registry: Registry) -> None:
    checked = Registry.model_validate(registry.model_dump())
    text = yaml.safe_dump(checked.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    write_text(root / REGISTRY, text)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = os.open(root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise MachineError(f"{root}: cannot be written ({error.strerror}); give another --models-dir") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
