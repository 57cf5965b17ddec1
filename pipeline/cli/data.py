"""`pneumo data`: import images, audit them, draw synthetic ones; the rest is in `transfers`."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli import data_remote
from pneumo.pipeline.cli.output import JsonOption, print_json, progress_bar, say, stdout
from pneumo.serving.contracts.errors import CheckFailedError

if TYPE_CHECKING:
    from rich.progress import Progress

    from pneumo.pipeline.data.audit import AuditReport
    from pneumo.pipeline.data.manifest import Dataset

app = typer.Typer(help="Data sets: import, audit, synthetic and public images, versions.", no_args_is_help=True)
data_remote.register(app)

_SHOWN = 10


class FitChoice(StrEnum):
    """The values of `--fit`, without importing what reads images."""

    SQUASH = "squash"
    PAD = "pad"
    CROP = "crop"


class DecodeChoice(StrEnum):
    """The values of `--decode`."""

    FULL = "full"
    SCALED = "scaled"


class SplitChoice(StrEnum):
    """The values of `--split`."""

    GROUPED = "grouped"
    GIVEN = "given"


WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes; by default as many as help.")]
RegexOption = Annotated[
    str | None,
    typer.Option(
        metavar="RE",
        help="Searched in names inside SRC; its group is the patient. Kermany's names need none; a column wins.",
    ),
]


@app.command("import")
def import_command(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="Folder of class folders, .csv, MedMNIST .npz, or a .zip or .tar of one."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the data set.")] = Path("data"),
    size: Annotated[int, typer.Option(help="Side of the prepared square images, in pixels.")] = 224,
    fit: Annotated[FitChoice, typer.Option(help="How a rectangle becomes a square.")] = FitChoice.SQUASH,
    decode: Annotated[
        DecodeChoice,
        typer.Option(help="Decode large JPEGs no finer than needed, or in full as data sets of before had it."),
    ] = DecodeChoice.SCALED,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    split: Annotated[
        SplitChoice, typer.Option(help="Make splits by class and patient, or keep those that are given.")
    ] = SplitChoice.GROUPED,
    fractions: Annotated[str, typer.Option(help="Shares of train, validation and test.")] = "0.7,0.15,0.15",
    patient_regex: RegexOption = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS", help="Columns of the table that are subgroups: sex,view. Kermany's names tell theirs."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a different data set at --out.")] = False,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import images, split without leaks. Writes prepared images, manifest.csv and dataset.json."""
    from pneumo.pipeline.data.importer import import_dataset
    from pneumo.pipeline.data.sources import open_source
    from pneumo.pipeline.data.splits import Fractions
    from pneumo.serving.images.types import Decode, Fit

    shares = Fractions.parse(fractions)
    with open_source(source) as opened, progress_bar("importing", len(opened.items)) as bar:
        data = import_dataset(
            opened,
            out,
            size=size,
            fit=Fit(fit.value),
            decode=Decode(decode.value),
            seed=seed,
            split=split.value,
            fractions=shares,
            patient_regex=patient_regex,
            groups=groups,
            force=force,
            workers=workers,
            progress=_advance(bar),
        )
    if as_json:
        print_json({"folder": str(out), **data.info.model_dump(mode="json")})
    else:
        _print_dataset(data, out)


@app.command("check")
def check_command(
    source: Annotated[
        Path, typer.Argument(metavar="DATA", help="A data set, or anything that can be imported.")
    ] = Path("data"),
    near_distance: Annotated[
        int, typer.Option(min=0, max=127, help="Bits of 256 in which the hashes of near-identical images may differ.")
    ] = 28,
    patient_regex: RegexOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Audit images for damage and leakage. Exits 1 on a defect."""
    from pneumo.pipeline.data.audit import audit, count_images, open_subject

    with open_subject(source) as subject, progress_bar("checking", count_images(subject)) as bar:
        report = audit(
            subject,
            near_distance=near_distance,
            patient_regex=patient_regex,
            workers=workers,
            progress=_advance(bar),
        )
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report)
    if report.defects:
        raise CheckFailedError(f"{source}: {', '.join(finding.kind.value for finding in report.defects)}")


@app.command("phantom")
def phantom_command(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    images: Annotated[int, typer.Option(min=1, help="How many images.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds, equal images.")] = 0,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 224,
    contrast: Annotated[float, typer.Option(help="Scanner: factor on the distance from mid-gray.")] = 1.0,
    gamma: Annotated[float, typer.Option(help="Scanner: exponent on brightness; above 1 darkens.")] = 1.0,
    brightness: Annotated[float, typer.Option(help="Scanner: offset in gray levels of 255.")] = 0.0,
    blur: Annotated[float, typer.Option(help="Scanner: standard deviation in pixels at a size of 224.")] = 0.0,
    noise: Annotated[float, typer.Option(help="Scanner: standard deviation in gray levels of 255.")] = 0.0,
    pneumonia_share: Annotated[float, typer.Option(help="Share of images with pneumonia.")] = 0.5,
    as_json: JsonOption = False,
) -> None:
    """Draw synthetic chest radiographs. They are for trying things out, never for judging a model."""
    from pneumo.pipeline.data.phantom import Scanner, write_phantoms

    scanner = Scanner(contrast=contrast, gamma=gamma, brightness=brightness, blur=blur, noise=noise)
    with progress_bar("drawing", images) as bar:
        summary = write_phantoms(
            out,
            images=images,
            seed=seed,
            size=size,
            scanner=scanner,
            pneumonia_share=pneumonia_share,
            progress=_advance(bar),
        )
    if as_json:
        print_json(
            {
                "out": str(summary.out),
                "images": summary.images,
                "patients": summary.patients,
                "counts": summary.counts,
                "seed": summary.seed,
            }
        )
    else:
        say(f"{summary.images} images of {summary.patients} simulated patients in {out}")
        say(f"import them with `pneumo data import {out}`")


def _advance(bar: "Progress") -> Callable[[int], None]:
    return lambda done: bar.update(bar.task_ids[0], completed=done)


def _print_dataset(data: "Dataset", out: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    info = data.info
    table = Table("split", *map(escape, info.classes), "patients")
    for split, counts in info.counts.items():
        table.add_row(split, *(str(counts.get(label, 0)) for label in info.classes), str(info.patients[split]))
    stdout().print(table)
    for note in info.split.get("notes", []):
        say(f"note: {note}")
    for entry in info.skipped[:_SHOWN]:
        say(f"left out: {entry['source']}{_others(entry.get('count'))}: {entry['reason']}")
    if info.skipped:
        files = sum(int(entry.get("count", 1)) for entry in info.skipped)
        say(f"{len(data.rows)} images in {out}; {files} files left out, all listed in {out / 'dataset.json'}")
    else:
        say(f"{len(data.rows)} images in {out}; nothing left out")


def _others(count: str | None) -> str:
    return f" and {int(count) - 1} more" if count else ""


def _print_report(report: "AuditReport") -> None:
    from rich.markup import escape
    from rich.table import Table

    labels = sorted({label for counts in report.counts.values() for label in counts})
    table = Table("split", *map(escape, labels), "patients")
    for split, counts in report.counts.items():
        table.add_row(split, *(str(counts.get(label, 0)) for label in labels), str(report.patients[split]))
    stdout().print(table)
    found = Table("", "kind", "what", "such as")
    found.columns[1].no_wrap = True
    for finding in report.findings:
        example = ", ".join(finding.members[0][:3]) if finding.members else ""
        colour = {"defect": "red", "warning": "yellow", "info": "default"}[finding.severity.value]
        found.add_row(
            f"[{colour}]{finding.severity.value}[/]", finding.kind.value, escape(finding.summary), escape(example)
        )
    if report.findings:
        stdout().print(found)
    say(
        f"{report.images} images checked: {'defects found' if report.defects else 'no defect'}; --json lists every name"
    )
