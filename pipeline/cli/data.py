"""`pneumo data`: import and audit images, draw synthetic ones; with downloads and versions of `data_transfer`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.data_transfer import fetch, pull, push
from pneumo.pipeline.cli.output import Row, join_words, print_json, print_lines, print_table, say, style_text
from pneumo.pipeline.cli.progress import count_bar
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.contracts.figures import format_probability
from pneumo.serving.contracts.quantities import format_count

if TYPE_CHECKING:
    from pneumo.pipeline.data.audit import AuditReport
    from pneumo.pipeline.data.interpretation import Interpretation
    from pneumo.pipeline.data.manifest import Dataset
    from pneumo.pipeline.evaluation.label_errors import LabelErrors

app = typer.Typer(help="Import, audit and version data sets.", no_args_is_help=True)

FitChoice = Literal["squash", "pad", "crop"]
DecodeChoice = Literal["full", "scaled"]
SplitChoice = Literal["grouped", "given"]

_SOURCE, _IMAGES, _SPLITS, _LABELS = "What the source means", "Prepared images", "Splits", "Label errors"


def _in_panel(panel: str, text: str, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=panel, **more)


WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="chosen by cores")]
RegexOption = Annotated[
    str | None,
    _in_panel(
        _SOURCE,
        "Regular expression over file names; its group is the patient. Not needed for Kermany's names; a column or "
        "folder of patients has priority.",
        metavar="RE",
    ),
]
LayoutOption = Annotated[
    str | None,
    _in_panel(
        _SOURCE,
        "Levels of folders from the top, such as class, split/class or patient/class; any is a level without meaning.",
        metavar="LEVELS",
    ),
]
TableOption = Annotated[
    str | None, _in_panel(_SOURCE, "Table of images and labels, in the source or beside it.", metavar="FILE")
]
ImageColumn = Annotated[str | None, _in_panel(_SOURCE, "Column of file names (default: image).", metavar="NAME")]
LabelColumn = Annotated[str | None, _in_panel(_SOURCE, "Column of classes (default: label).", metavar="NAME")]
PatientColumn = Annotated[
    str | None, _in_panel(_SOURCE, "Column of patients (default: patient; none: ignore it).", metavar="NAME")
]
SplitColumn = Annotated[
    str | None, _in_panel(_SOURCE, "Column of splits (default: split; none: ignore it).", metavar="NAME")
]
RenameOption = Annotated[
    list[str] | None,
    _in_panel(_SOURCE, 'Rename or merge classes: "no finding=NORMAL". May be repeated.', metavar="OLD=NEW"),
]
_SHOWN = 10


app.command()(fetch)
app.command()(push)
app.command()(pull)


@app.command("import", cls=options.PanelCommand)
def import_(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="Folder of class folders, .csv, MedMNIST .npz, or a .zip or .tar of one."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the data set.")] = Path("data"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what the source means.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a different data set at --out.")] = False,
    workers: WorkersOption = None,
    as_json: options.JsonOption = False,
    layout: LayoutOption = None,
    table: TableOption = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    patient_column: PatientColumn = None,
    split_column: SplitColumn = None,
    rename: RenameOption = None,
    patient_regex: RegexOption = None,
    groups: Annotated[
        str | None,
        _in_panel(_SOURCE, "Columns of subgroups: sex,view. Kermany's names hold their own.", metavar="NAMES"),
    ] = None,
    population: Annotated[
        str | None,
        _in_panel(
            _SOURCE, "YAML file that states ages, views and sites, or a public set that does: kermany.", metavar="FILE"
        ),
    ] = None,
    split: Annotated[
        SplitChoice, _in_panel(_SPLITS, "Make splits by class and patient, or keep those given.")
    ] = "grouped",
    fractions: Annotated[str, _in_panel(_SPLITS, "Shares of train, validation and test.")] = "0.7,0.15,0.15",
    seed: Annotated[int, _in_panel(_SPLITS, "Seed of the splits.")] = 0,
    size: Annotated[int, _in_panel(_IMAGES, "Side of the prepared square images, in pixels.")] = 224,
    fit: Annotated[FitChoice, _in_panel(_IMAGES, "How to fit a rectangle into the square.")] = "squash",
    decode: Annotated[
        DecodeChoice,
        _in_panel(_IMAGES, "Decode large JPEGs at the needed resolution, or in full as older data sets do."),
    ] = "scaled",
    relabel: Annotated[list[Path] | None, _in_panel(_LABELS, "Table of right labels; may be repeated.")] = None,
    exclude: Annotated[list[Path] | None, _in_panel(_LABELS, "Table of images to leave out; may be repeated.")] = None,
) -> None:
    """Import images and split them by patient. Writes prepared images, manifest.csv and dataset.json.

    Says first what the source means: classes, patients, splits and what is ignored. Stops if that is not certain.
    """
    from pneumo.pipeline.config.file_model import read_population
    from pneumo.pipeline.data.corrections import CorrectionFile
    from pneumo.pipeline.data.importer import ImportSettings, SplitMethod, import_dataset, interpret_source
    from pneumo.pipeline.data.sources import SourceOptions, open_source
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
        population=read_population(population) if population else None,
        source=SourceOptions(layout, table, image_column, label_column, patient_column, split_column, rename or ()),
        corrections=(
            *(CorrectionFile.read(path, "relabel") for path in relabel or ()),
            *(CorrectionFile.read(path, "exclude") for path in exclude or ()),
        ),
    )
    with open_source(source, settings.source, allow_ambiguities=True) as opened:
        understood = interpret_source(opened, settings)
        if dry_run and as_json:
            print_json({"understood": understood.model_dump(mode="json")})
        else:
            _show_interpretation(source, understood)
        opened.refuse_ambiguities()
        if dry_run:
            return
        with count_bar("importing", len(opened.items)) as bar:
            data = import_dataset(opened, out, settings, force=force, workers=workers, progress=bar.set_count)
    if as_json:
        print_json({"folder": str(out), **data.info.model_dump(mode="json")})
    else:
        _show_dataset(data, out)


@app.command(cls=options.PanelCommand)
def check(
    source: Annotated[
        Path, typer.Argument(metavar="DATA", help="Data set, or a source that `pneumo data import` takes.")
    ] = Path("data"),
    near_distance: Annotated[
        int, typer.Option(min=0, max=127, help="Bits of 256 in which the hashes of near-identical images may differ.")
    ] = 28,
    workers: WorkersOption = None,
    as_json: options.JsonOption = False,
    layout: LayoutOption = None,
    table: TableOption = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    patient_column: PatientColumn = None,
    split_column: SplitColumn = None,
    rename: RenameOption = None,
    patient_regex: RegexOption = None,
    label_errors: Annotated[
        str | None,
        _in_panel(_LABELS, "Rank the likeliest, by a run or cross-validation: name, folder or latest.", metavar="RUN"),
    ] = None,
    out: Annotated[Path | None, _in_panel(_LABELS, "Write the ranking, for import --relabel.", metavar="CSV")] = None,
) -> None:
    """Audit images for damage, duplicates, leakage and label errors. Exits 1 on a defect."""
    from pneumo.pipeline.data.audit import audit, count_images, open_subject
    from pneumo.pipeline.data.sources import SourceOptions

    meaning = SourceOptions(layout, table, image_column, label_column, patient_column, split_column, rename or ())
    if label_errors is None and out:
        raise InputError("--out: is for a ranking of label errors; give --label-errors RUN")
    errors = None if label_errors is None else _rank_label_errors(source, label_errors, out)
    with open_subject(source, meaning) as subject, count_bar("checking", count_images(subject)) as bar:
        report = audit(
            subject, near_distance=near_distance, patient_regex=patient_regex, workers=workers, progress=bar.set_count
        )
    if errors:
        report = replace(report, findings=(*report.findings, errors.to_finding()))
    if as_json:
        print_json(report.to_dict() | ({"label_errors": asdict(errors)} if errors else {}))
    else:
        _show_audit(report)
        if errors:
            _show_label_errors(errors)
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
        patients = format_count(summary.patients, "simulated patient")
        say(f"{format_count(summary.images, 'image')} of {patients} in {out}")
        say(f"import them with `{join_words('pneumo', 'data', 'import', out)}`")


def _rank_label_errors(data: Path, name: str, out: Path | None) -> "LabelErrors":
    """Rank the labels of a data set by a run or cross-validation, and write the table that is asked for."""
    from pneumo.pipeline.crossval.record import open_predictions
    from pneumo.pipeline.data.manifest import read_dataset
    from pneumo.pipeline.evaluation.label_errors import find_label_errors

    errors = find_label_errors(open_predictions(name), read_dataset(data))
    if out:
        errors.write_csv(out)
    return errors


def _show_counts(counts: Mapping[str, Mapping[str, int]], labels: Sequence[str], patients: Mapping[str, int]) -> None:
    rows = (
        [split, *(str(images.get(label, 0)) for label in labels), str(patients[split])]
        for split, images in counts.items()
    )
    print_table(["split", *labels, "patients"], rows)


def _show_label_errors(errors: "LabelErrors") -> None:
    rows = (
        [each.image, each.label, format_probability(each.probability), each.suggested]
        for each in errors.ranking[:_SHOWN]
    )
    print_table(["likeliest label errors", "label", "its probability", "suggested"], rows, right=("its probability",))
    print_lines(f"next: {join_words('pneumo', 'cases', errors.predictions)} shows their images")


def _show_interpretation(source: Path, understood: "Interpretation") -> None:
    classes = [f"{name} ({count})" for name, count in understood.classes.items()]
    if len(classes) > 2 * _SHOWN:
        classes[2 * _SHOWN :] = [f"and {len(classes) - 2 * _SHOWN} more"]
    rows = [
        ("layout", f"{understood.layout}, such as {understood.example}"),
        ("classes", ", ".join(classes)),
        ("labels", understood.labels_from),
        ("patients", understood.patients_from),
        ("splits", understood.splits_from),
        *(("ignored", f"{reason}: {format_count(count, 'file')}") for reason, count in understood.ignored.items()),
        *(("note", note) for note in understood.notes),
        *(("unclear", ambiguity) for ambiguity in understood.ambiguities[1:]),  # the first one is the error
    ]
    say(f"{source} is understood so:")
    for name, text in rows:
        say(f"  {name:9} {text}")


def _show_dataset(data: "Dataset", out: Path) -> None:
    info = data.info
    _show_counts(info.counts, info.classes, info.patients)
    stated = info.population.describe() if info.population else "not stated; --population FILE states it"
    say(f"population: {stated}")
    for note in info.split.get("notes", []):
        say(f"note: {note}")
    for count in info.remarks:
        say(f"remark: {format_count(count.images, 'image')}, such as {count.example}: {count.remark}")
    for correction in info.corrections:
        thing, done = ("label", "changed") if correction.option == "relabel" else ("image", "left out")
        listed = format_count(correction.listed, "image")
        say(f"{correction.file}: {listed} listed, {format_count(correction.changed, thing)} {done}")
    for entry in info.skipped[:_SHOWN]:
        others = f" and {int(entry['count']) - 1} more" if "count" in entry else ""
        say(f"skipped: {entry['source']}{others}: {entry['reason']}")
    files = sum(int(entry.get("count", 1)) for entry in info.skipped)
    listed = f"{format_count(files, 'file')} skipped, all listed in {out / 'dataset.json'}"
    say(f"{format_count(len(data.rows), 'image')} in {out}; {listed if files else 'no file skipped'}")


def _show_audit(report: "AuditReport") -> None:
    from pneumo.pipeline.data.shortcuts import describe_shortcuts

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
    others = [shortcut for shortcut in report.shortcuts.shortcuts if not shortcut.is_notable]
    for sentence in describe_shortcuts(report.shortcuts.model_copy(update={"shortcuts": others})):
        say(f"shortcuts: {sentence}")
    verdict = "defects found" if report.defects else "no defect"
    say(f"{format_count(report.images, 'image')} checked: {verdict}; --json lists all names")
