"""`pneumo data fetch`, `push` and `pull`: public data sets, and versions of one's own in a DVC remote."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import print_json, print_lines, say
from pneumo.pipeline.cli.progress import ConsoleReporter, download_bar
from pneumo.serving.contracts.quantities import format_count

if TYPE_CHECKING:
    from pneumo.pipeline.data.versioning import Transfer

TargetsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[TARGET]...", help="A .dvc file, or an output of dvc.yaml.", show_default="data.dvc"),
]
RemoteOption = Annotated[
    str | None, typer.Option("--remote", "-r", help="Name of a remote in .dvc/config.", show_default="DVC's default")
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="Connections at once.", show_default="DVC's choice")
]


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="kermany or pneumoniamnist.")],
    out: Annotated[Path, typer.Option(help="Folder of the downloaded file.")] = Path("downloads"),
    mirror: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="Folder on another server that has the file under the same name."),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Download a public data set. An interrupted download is continued; the file's checksum is verified."""
    from pneumo.pipeline.data import public_sets

    wanted = public_sets.find_public_set(name)
    say(f"{wanted.name}: {wanted.title}\nlicence: {wanted.licence}, see {wanted.page}\ncite: {wanted.citation}")
    with download_bar(wanted.file) as report:
        done = public_sets.download_public_set(name, out, mirror=mirror, progress=report)
    command = wanted.next.format(path=done.path)
    if not as_json:
        print_lines(f"{done.path}: {wanted.algorithm} matches", f"next: {command}")
        return
    print_json(
        {
            "path": str(done.path),
            "bytes": done.path.stat().st_size,
            "downloaded": done.downloaded,
            "resumed": done.resumed,
            wanted.algorithm: wanted.digest,
            "licence": wanted.licence,
            "citation": wanted.citation,
            "next": command,
        }
    )


def push(
    targets: TargetsArgument = None,
    remote: RemoteOption = None,
    jobs: JobsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Upload the versioned data set to a DVC remote. That is a folder, or a bucket such as gs://."""
    from pneumo.pipeline.data import versioning

    with ConsoleReporter().waiting("pushing"):
        done = versioning.push(targets or [versioning.TRACKED], remote=remote, jobs=jobs)
    _show_transfer(done, "uploaded to", as_json)


def pull(
    targets: TargetsArgument = None,
    remote: RemoteOption = None,
    jobs: JobsOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace local files with changes that DVC has not recorded.")
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Download the versioned data set from a DVC remote. The checksum of each file is verified."""
    from pneumo.pipeline.data import versioning

    with ConsoleReporter().waiting("pulling"):
        done = versioning.pull(targets or [versioning.TRACKED], remote=remote, jobs=jobs, force=force)
    _show_transfer(done, "downloaded from", as_json)


def _show_transfer(done: "Transfer", verb: str, as_json: bool) -> None:
    if as_json:
        print_json(asdict(done))
        return
    images = done.verified_images
    verified = f"; the checksum of {format_count(images, 'image')} matches" if images else ""
    print_lines(f"{format_count(done.files, 'file')} {verb} {done.remote} ({done.url}){verified}")
