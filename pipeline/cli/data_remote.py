"""`pneumo data push`, `pull` and `fetch`: data sets that go elsewhere or come from there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli.output import JsonOption, print_json, say, stdout
from pneumo.pipeline.cli.progress import download_bar

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


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(fetch)
    app.command()(push)
    app.command()(pull)


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="kermany or pneumoniamnist.")],
    out: Annotated[Path, typer.Option(help="Folder that gets the file.")] = Path("downloads"),
    mirror: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="A folder on another server that has the file under its own name."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download a public data set; run again it goes on where it stopped. The file is checked by its digest."""
    from pneumo.pipeline.data import public_sets as fetching

    wanted = fetching.find_public_set(name)
    say(f"{wanted.name}: {wanted.title}\nlicence: {wanted.licence}, see {wanted.page}\ncite: {wanted.citation}")
    with download_bar(wanted.file) as report:
        done = fetching.download_public_set(name, out, mirror=mirror, progress=report)
    command = wanted.next.format(path=done.path)
    if as_json:
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
        return
    stdout().print(f"{done.path}: {wanted.algorithm} is right", markup=False, soft_wrap=True)
    stdout().print(f"next: {command}", markup=False, soft_wrap=True)


def push(
    targets: TargetsArgument = None,
    remote: RemoteOption = None,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send the versioned data set to a DVC remote: a folder, gs://, or what else DVC speaks."""
    from pneumo.pipeline.data import versioning

    say("pushing ...")
    _show(versioning.push(targets or [versioning.TRACKED], remote=remote, jobs=jobs), "sent to", as_json)


def pull(
    targets: TargetsArgument = None,
    remote: RemoteOption = None,
    jobs: JobsOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that were changed here and never recorded.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch the versioned data set from a DVC remote, each file checked by its digest."""
    from pneumo.pipeline.data import versioning

    say("pulling ...")
    done = versioning.pull(targets or [versioning.TRACKED], remote=remote, jobs=jobs, force=force)
    _show(done, "fetched from", as_json)


def _show(done: "Transfer", verb: str, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "remote": done.remote,
                "url": done.url,
                "files": done.files,
                "outputs": [str(path) for path in done.outputs],
                "verified_images": done.verified,
            }
        )
        return
    checked = f"; {done.verified} images are as imported" if done.verified else ""
    console = stdout()
    console.print(f"{done.files} files {verb} {done.remote} ({done.url}){checked}", markup=False, soft_wrap=True)
