"""Push to and pull from a DVC remote."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import MANIFEST
from pneumo.pipeline.data.versioning.dvc_failures import explain_failures, find_faults, raise_faults, silence_dvc
from pneumo.pipeline.data.versioning.remote_check import check_remote
from pneumo.serving.contracts.errors import InputError, MachineError

if TYPE_CHECKING:
    from dvc.config import Config
    from dvc.data_cloud import Remote
    from dvc.output import Output
    from dvc.repo import Repo

TRACKED = Path("data.dvc")
"""What is pushed and pulled where nothing else is named."""


@dataclass(frozen=True)
class Transfer:
    """What a push or a pull did.

    Attributes:
        remote: Name of the remote.
        url: Where it is.
        files: Files that were sent or fetched; those that were there already are not counted.
        outputs: What is tracked, as paths.
        verified: Images whose bytes were compared with those that were imported.
    """

    remote: str
    url: str
    files: int
    outputs: tuple[Path, ...]
    verified: int


def push(
    targets: Sequence[Path] = (TRACKED,),
    *,
    remote: str | None = None,
    jobs: int | None = None,
    root: Path | None = None,
) -> Transfer:
    """Send what DVC tracks to a remote.

    Args:
        targets: `.dvc` files, or outputs of `dvc.yaml`.
        remote: Name of the remote; DVC's default where None.
        jobs: Connections at once; DVC's default where None.
        root: Folder inside the repository; the working directory where None.

    Raises:
        InputError: No repository, target, remote or bucket; or the files are not those that DVC tracks.
        MachineError: No DVC, no credentials, no network.
    """
    with _opened(targets, remote, root) as (repo, found, outputs):
        _refuse_changed(repo, targets)
        verified = sum(_verify(Path(output.fs_path)) for output in outputs)
        check_remote(found)
        with explain_failures(found):
            files = repo.push(_names(targets), remote=found.name, jobs=jobs)
        if faults := find_faults(repo, found, outputs, arrived=False):  # DVC passes over what it lacks
            raise_faults(found, faults)
        return _transfer(found, files, outputs, verified)


def pull(
    targets: Sequence[Path] = (TRACKED,),
    *,
    remote: str | None = None,
    jobs: int | None = None,
    force: bool = False,
    root: Path | None = None,
) -> Transfer:
    """Fetch what DVC tracks from a remote, each file checked by its digest, and put it in place.

    Args:
        targets: `.dvc` files, or outputs of `dvc.yaml`.
        remote: Name of the remote; DVC's default where None.
        jobs: Connections at once; DVC's default where None.
        force: Replace files that were changed here and never recorded.
        root: Folder inside the repository; the working directory where None.

    Raises:
        InputError: No repository, target, remote or bucket; or changed files are in the way.
        CheckFailedError: Files are missing in the remote, or are not what they were.
        MachineError: No DVC, no credentials, no network.
    """
    with _opened(targets, remote, root) as (repo, found, outputs):
        check_remote(found)
        with explain_failures(found, lambda arrived: find_faults(repo, found, outputs, arrived=arrived)):
            done = repo.pull(_names(targets), remote=found.name, jobs=jobs, force=force)
        verified = sum(_verify(Path(output.fs_path)) for output in outputs)
        return _transfer(found, done["stats"]["fetched"], outputs, verified)


@contextmanager
def _opened(
    targets: Sequence[Path], remote: str | None, root: Path | None
) -> "Iterator[tuple[Repo, Remote, list[Output]]]":
    # gcsfs would ask each bucket over gRPC for its kind, which hangs on emulators and behind proxies
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        from dvc.config import Config
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo
    except ModuleNotFoundError as error:
        raise MachineError(f"{error.name} is not installed, which DVC needs; run `pip install 'dvc[gs]'`") from None
    folder = root or Path.cwd()
    with silence_dvc():
        try:
            settings = Config(Repo.find_dvc_dir(str(folder)))
        except NotDvcRepoError:
            raise InputError(
                f"{folder}: no DVC repository here or above; make one with `git init && dvc init && dvc add data`"
            ) from None
        name = _remote_name(settings, remote)
        # without `verify` a damaged file would come without a word
        with Repo(str(folder), remote=name, remote_config={"verify": True}) as repo:
            yield repo, _remote(repo, name), _outputs(repo, targets)


def _remote_name(settings: "Config", remote: str | None) -> str:
    name: str | None = remote or settings["core"].get("remote")
    known = ", ".join(settings["remote"]) or "none"
    if name is None:
        raise InputError(f"{settings.dvc_dir}: no default remote (there are: {known}); set it: dvc remote default NAME")
    if name not in settings["remote"]:
        raise InputError(f"--remote {name}: no such remote (there are: {known}); make it: dvc remote add {name} URL")
    return name


def _remote(repo: "Repo", name: str) -> "Remote":
    from dvc_objects.fs.errors import RemoteMissingDepsError

    try:
        return repo.cloud.get_remote(name)
    except (ImportError, RemoteMissingDepsError):
        protocol = repo.config["remote"][name]["url"].partition("://")[0]
        raise MachineError(
            f"remote {name}: nothing here speaks {protocol}://; run `pip install 'dvc[{protocol}]'`"
        ) from None


def _outputs(repo: "Repo", targets: Sequence[Path]) -> "list[Output]":
    from dvc.exceptions import DvcException

    found: list[Output] = []
    for target in targets:
        try:
            infos = repo.stage.collect_granular(str(target))
        except DvcException:
            raise InputError(f"{target}: DVC tracks no such thing here; track a folder with `dvc add FOLDER`") from None
        found += [out for info in infos for out in info.stage.outs if out.use_cache and out.hash_info]
    if not found:
        raise InputError(
            f"{', '.join(_names(targets))}: nothing is recorded yet; record it with `dvc add` or `dvc repro`"
        )
    return found


def _refuse_changed(repo: "Repo", targets: Sequence[Path]) -> None:
    """Refuse to push where the files here are others than those that DVC would send."""
    for reasons in repo.status(targets=_names(targets)).values():
        for reason in reasons:
            changed = reason.get("changed outs", {}) if isinstance(reason, dict) else {}
            for path, how in changed.items():
                if Path(path).exists():  # else the cache may hold it still
                    raise InputError(
                        f"{path}: {how}, so it is not what DVC would push; record it with `dvc add {path}`"
                    )


def _verify(folder: Path) -> int:
    """Compare the images of a data set with what was imported; other folders have nothing to compare with."""
    if not (folder / MANIFEST).is_file():
        return 0
    data = manifest.read_dataset(folder)
    for row in data.rows:
        data.check(row, data.path(row).read_bytes())
    return len(data.rows)


def _names(targets: Iterable[Path]) -> list[str]:
    return [str(target) for target in targets]


def _transfer(remote: "Remote", files: int, outputs: "Sequence[Output]", verified: int) -> Transfer:
    url = remote.fs.unstrip_protocol(remote.path)
    return Transfer(remote.name, url, files, tuple(Path(out.fs_path) for out in outputs), verified)
