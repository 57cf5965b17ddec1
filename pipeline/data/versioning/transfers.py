"""Push to and pull from a DVC remote."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import MANIFEST
from pneumo.pipeline.data.versioning.dvc_failures import explain_failures, find_faults, raise_faults
from pneumo.pipeline.data.versioning.remote_check import check_remote
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.process_state import set_environment, silence_loggers
from pneumo.serving.model.remote_registry import GCSFS

if TYPE_CHECKING:
    from dvc.config import Config
    from dvc.data_cloud import Remote
    from dvc.output import Output
    from dvc.repo import Repo

TRACKED = Path("data.dvc")
"""The default target of a push and a pull."""


@dataclass(frozen=True)
class Transfer:
    """The result of a push or a pull.

    Attributes:
        files: Files that were sent or fetched, without those that were there already.
        outputs: Paths of the tracked files and folders.
        verified_images: Images whose bytes were compared with those that were imported.
    """

    remote: str
    url: str
    files: int
    outputs: tuple[Path, ...]
    verified_images: int


def push(targets: Sequence[Path] = (TRACKED,), *, remote: str | None = None, jobs: int | None = None) -> Transfer:
    """Send what DVC tracks in the working directory's repository to a remote.

    Args:
        targets: `.dvc` files, or outputs of `dvc.yaml`.
        remote: Name of the remote; DVC's default if None.
        jobs: Connections at once; DVC's default if None.

    Raises:
        InputError: There is no such repository, target, remote or bucket; or the files are not those that DVC tracks.
        MachineError: DVC, credentials or the network are missing.
    """
    with _open_repo(targets, remote) as (repo, store, outputs):
        _refuse_changed(repo, targets)
        verified = _verify_images(outputs)
        check_remote(store)
        with explain_failures(store):
            files = repo.push(list(map(str, targets)), remote=store.name, jobs=jobs)
        raise_faults(find_faults(repo, store, outputs, arrived=False))  # DVC ignores files that it lacks
        return _summarize(store, files, outputs, verified)


def pull(
    targets: Sequence[Path] = (TRACKED,), *, remote: str | None = None, jobs: int | None = None, force: bool = False
) -> Transfer:
    """Fetch what DVC tracks from a remote, check each file by its digest, and put it in place.

    The arguments are those of `push`; `force` replaces files that were changed here and never recorded.

    Raises:
        InputError: There is no such repository, target, remote or bucket; or changed files are in the way.
        CheckFailedError: Files are missing in the remote, or damaged.
        MachineError: DVC, credentials or the network are missing.
    """
    with _open_repo(targets, remote) as (repo, store, outputs):
        check_remote(store)
        with explain_failures(store, lambda arrived: find_faults(repo, store, outputs, arrived=arrived)):
            done = repo.pull(list(map(str, targets)), remote=store.name, jobs=jobs, force=force)
        return _summarize(store, done["stats"]["fetched"], outputs, _verify_images(outputs))


_LOGGERS = ("dvc", "dvc_data", "dvc_objects", "dvc_http", "fsspec", "gcsfs", "aiohttp", "asyncio")


@contextmanager
def _open_repo(targets: Sequence[Path], remote: str | None) -> "Iterator[tuple[Repo, Remote, list[Output]]]":
    try:
        from dvc.config import Config
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo
    except ModuleNotFoundError as error:
        raise MachineError(f"{error.name} is not installed, which DVC needs; run `pip install 'dvc[gs]'`") from None
    folder = Path.cwd()
    with set_environment(GCSFS), silence_loggers(*_LOGGERS):  # the raised errors have the messages
        try:
            settings = Config(Repo.find_dvc_dir(str(folder)))
        except NotDvcRepoError:
            raise InputError(
                f"{folder}: no DVC repository here or above; make one with `git init && dvc init && dvc add data`"
            ) from None
        name = _choose_remote(settings, remote)
        # without `verify` DVC would put a damaged file in place without an error
        with Repo(str(folder), remote=name, remote_config={"verify": True}) as repo:
            yield repo, _open_remote(repo, name), _find_outputs(repo, targets)


def _choose_remote(settings: "Config", remote: str | None) -> str:
    name: str | None = remote or settings["core"].get("remote")
    names = ", ".join(settings["remote"]) or "none"
    if name is None:
        raise InputError(f"{settings.dvc_dir}: no default remote (there are: {names}); set it: dvc remote default NAME")
    if name not in settings["remote"]:
        raise InputError(f"--remote {name}: no such remote (there are: {names}); make it: dvc remote add {name} URL")
    return name


def _open_remote(repo: "Repo", name: str) -> "Remote":
    from dvc_objects.fs.errors import RemoteMissingDepsError

    try:
        return repo.cloud.get_remote(name)
    except (ImportError, RemoteMissingDepsError):
        protocol = repo.config["remote"][name]["url"].partition("://")[0]
        raise MachineError(
            f"remote {name}: the package for {protocol}:// is not installed; run `pip install 'dvc[{protocol}]'`"
        ) from None


def _find_outputs(repo: "Repo", targets: Sequence[Path]) -> "list[Output]":
    from dvc.exceptions import DvcException

    outputs: list[Output] = []
    for target in targets:
        try:
            infos = repo.stage.collect_granular(str(target))
        except DvcException:
            raise InputError(f"{target}: not tracked by DVC; track a folder with `dvc add FOLDER`") from None
        outputs += [out for info in infos for out in info.stage.outs if out.use_cache and out.hash_info]
    if not outputs:
        raise InputError(
            f"{', '.join(map(str, targets))}: nothing is recorded yet; record it with `dvc add` or `dvc repro`"
        )
    return outputs


def _refuse_changed(repo: "Repo", targets: Sequence[Path]) -> None:
    """Refuse to push if the files here differ from those that DVC would send."""
    for reasons in repo.status(targets=list(map(str, targets))).values():
        for reason in reasons:
            changed = reason.get("changed outs", {}) if isinstance(reason, dict) else {}
            for path, how in changed.items():
                if Path(path).exists():  # a file that is gone may still be in the cache
                    raise InputError(
                        f"{path}: {how}, so it is not what DVC would push; record it with `dvc add {path}`"
                    )


def _verify_images(outputs: "Sequence[Output]") -> int:
    """Compare the images of data sets with what was imported and return their number; skip other folders."""
    verified = 0
    for folder in (Path(output.fs_path) for output in outputs):
        if (folder / MANIFEST).is_file():
            data = manifest.read_dataset(folder)
            for row in data.rows:
                data.check(row, data.path(row).read_bytes())
            verified += len(data.rows)
    return verified


def _summarize(remote: "Remote", files: int, outputs: "Sequence[Output]", verified: int) -> Transfer:
    url = remote.fs.unstrip_protocol(remote.path)
    return Transfer(remote.name, url, files, tuple(Path(out.fs_path) for out in outputs), verified)
