"""`pneumo data`: import and audit images, draw synthetic ones, download public ones, version data sets with DVC."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import Row, print_json, print_lines, print_table, say, style_text
from pneumo.pipeline.cli.progress import count_bar, download_bar
from pneumo.serving.contracts.errors import CheckFailedError

if TYPE_CHECKING:
    from pneumo.pipeline.data.audit import AuditReport
    from pneumo.pipeline.data.manifest import Dataset
    from pneumo.pipeline.data.versioning import Transfer

app = typer.Typer(help="Import, audit and version data sets.", no_args_is_help=True)

FitChoice = Literal["squash", "pad", "crop"]
DecodeChoice = Literal["full", "scaled"]
SplitChoice = Literal["grouped", "given"]

WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="chosen by cores")]
RegexOption = Annotated[
    str | None,
    typer.Option(
        metavar="RE",
        help="Regular expression over file names; its group is the patient. Not needed for Kermany's names; "
        "a column of patients has priority.",
    ),
]
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

_SHOWN = 10


@app.command()
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


@app.command()
def push(
    targets: TargetsArgument = None,
    remote: RemoteOption = None,
    jobs: JobsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Upload the versioned data set to a DVC remote. That is a folder, or a bucket such as gs://."""
    from pneumo.pipeline.data import versioning

    say("pushing ...")
    _show_transfer(versioning.push(targets or [versioning.TRACKED], remote=remote, jobs=jobs), "uploaded to", as_json)


@app.command()
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

    say("pulling ...")
    done = versioning.pull(targets or [versioning.TRACKED], remote=remote, jobs=jobs, force=force)
    _show_transfer(done, "downloaded from", as_json)


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="Folder of class folders, .csv, MedMNIST .npz, or a .zip or .tar of one."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the data set.")] = Path("data"),
    size: Annotated[int, typer.Option(help="Side of the prepared square images, in pixels.")] = 224,
    fit: Annotated[FitChoice, typer.Option(help="How to fit a rectangle into the square.")] = "squash",
    decode: Annotated[
        DecodeChoice,
        typer.Option(help="Decode large JPEGs at the needed resolution, or in full as older data sets do."),
    ] = "scaled",
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    split: Annotated[
        SplitChoice, typer.Option(help="Make splits by class and patient, or keep the given splits.")
    ] = "grouped",
    fractions: Annotated[str, typer.Option(help="Shares of train, validation and test.")] = "0.7,0.15,0.15",
    patient_regex: RegexOption = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS", help="Columns of the table with subgroups: sex,view. Kermany's names hold their own."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a different data set at --out.")] = False,
    workers: WorkersOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Import images and split them by patient. Writes prepared images, manifest.csv and dataset.json."""
    from pneumo.pipeline.data.importer import ImportSettings, SplitMethod, import_dataset
    from pneumo.pipeline.data.sources import open_source
    from pneumo.pipeline.data.splits import Fractions
    from pneumo.serving.images.types import Decode, Fit

    settings = ImportSettings(
        size=size,
        fit=Fit(fit),
        decode=Decode(decode),
        seed=seed,
        split=SplitMethod(split),
        fractions=Fractions.parse(fractions),
        patient_regex=patient_regex,
        groups=groups,
    )
    with open_source(source) as opened, count_bar("importing", len(opened.items)) as bar:
        data = import_dataset(opened, out, settings, force=force, workers=workers, progress=bar.set_count)
    if as_json:
        print_json({"folder": str(out), **data.info.model_dump(mode="json")})
    else:
        _show_dataset(data, out)


@app.command()
def check(
    source: Annotated[
        Path, typer.Argument(metavar="DATA", help="Data set, or a source that `pneumo data import` takes.")
    ] = Path("data"),
    near_distance: Annotated[
        int, typer.Option(min=0, max=127, help="Bits of 256 in which the hashes of near-identical images may differ.")
    ] = 28,
    patient_regex: RegexOption = None,
    workers: WorkersOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Audit images for damage, duplicates and leakage. Exits 1 on a defect."""
    from pneumo.pipeline.data.audit import audit, count_images, open_subject

    with open_subject(source) as subject, count_bar("checking", count_images(subject)) as bar:
        report = audit(
            subject, near_distance=near_distance, patient_regex=patient_regex, workers=workers, progress=bar.set_count
        )
    if as_json:
        print_json(report.to_dict())
    else:
        _show_audit(report)
    if report.defects:
        raise CheckFailedError(f"{source}: {', '.join(finding.kind.value for finding in report.defects)}")


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder of the images.")],
    images: Annotated[int, typer.Option(min=1, help="Number of images.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the images.")] = 0,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 224,
    contrast: Annotated[float, typer.Option(help="Scanner: factor on the distance from mid-gray.")] = 1.0,
    gamma: Annotated[float, typer.Option(help="Scanner: exponent on brightness; above 1 darkens.")] = 1.0,
    brightness: Annotated[float, typer.Option(help="Scanner: offset in gray levels of 255.")] = 0.0,
    blur: Annotated[float, typer.Option(help="Scanner: standard deviation in pixels at a size of 224.")] = 0.0,
    noise: Annotated[float, typer.Option(help="Scanner: standard deviation in gray levels of 255.")] = 0.0,
    pneumonia_share: Annotated[float, typer.Option(help="Share of images with pneumonia.")] = 0.5,
    as_json: options.JsonOption = False,
) -> None:
    """Draw synthetic chest radiographs. They are for tests of the program, not for judging a model."""
    from pneumo.pipeline.data.phantom import Recipe, Scanner, write_phantoms

    scanner = Scanner(contrast=contrast, gamma=gamma, brightness=brightness, blur=blur, noise=noise)
    recipe = Recipe(images=images, seed=seed, size=size, pneumonia_share=pneumonia_share, scanner=scanner)
    with count_bar("drawing", images) as bar:
        summary = write_phantoms(out, recipe, progress=bar.set_count)
    if as_json:
        print_json(asdict(summary))
    else:
        say(f"{summary.images} images of {summary.patients} simulated patients in {out}")
        say(f"import them with `pneumo data import {out}`")


def _show_transfer(done: "Transfer", verb: str, as_json: bool) -> None:
    if as_json:
        document = asdict(done)
        document["verified_images"] = document.pop("verified")
        print_json(document)
        return
    verified = f"; {done.verified} images match their checksums" if done.verified else ""
    print_lines(f"{done.files} files {verb} {done.remote} ({done.url}){verified}")


def _show_counts(counts: Mapping[str, Mapping[str, int]], labels: Sequence[str], patients: Mapping[str, int]) -> None:
    rows = (
        [split, *(str(images.get(label, 0)) for label in labels), str(patients[split])]
        for split, images in counts.items()
    )
    print_table(["split", *labels, "patients"], rows)


def _show_dataset(data: "Dataset", out: Path) -> None:
    info = data.info
    _show_counts(info.counts, info.classes, info.patients)
    for note in info.split.get("notes", []):
        say(f"note: {note}")
    for count in info.remarks:
        say(f"remark: {count.images} images, such as {count.example}: {count.remark}")
    for entry in info.skipped[:_SHOWN]:
        others = f" and {int(entry['count']) - 1} more" if "count" in entry else ""
        say(f"skipped: {entry['source']}{others}: {entry['reason']}")
    files = sum(int(entry.get("count", 1)) for entry in info.skipped)
    skipped = f"{files} files skipped, all listed in {out / 'dataset.json'}" if files else "no file skipped"
    say(f"{len(data.rows)} images in {out}; {skipped}")


def _show_audit(report: "AuditReport") -> None:
    labels = sorted({label for counts in report.counts.values() for label in counts})
    _show_counts(report.counts, labels, report.patients)
    styles = {"defect": "red", "warning": "yellow", "info": ""}
    rows: list[Row] = [
        [
            style_text(finding.severity.value, styles[finding.severity.value]),
            finding.kind.value,
            finding.summary,
            ", ".join(finding.members[0][:3]) if finding.members else "",
        ]
        for finding in report.findings
    ]
    if rows:
        print_table(["", "kind", "finding", "example"], rows, whole=2)
    say(f"{report.images} images checked: {'defects found' if report.defects else 'no defect'}; --json lists all names")
