"""`pneumo drift`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import print_json, print_lines, print_table, say
from pneumo.pipeline.cli.progress import count_bar
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.contracts.quantities import format_count

if TYPE_CHECKING:
    from pneumo.pipeline.drift.simulation_result import Simulation
    from pneumo.serving.drift.check import DriftResult
    from pneumo.serving.drift.verdict import DriftCheck

app = typer.Typer(help="Compare recent images with the model's training data.", no_args_is_help=True)

LastOption = Annotated[
    int | None,
    typer.Option(min=1, help="Number of the newest images in the log.", show_default="500, or all with --since"),
]
SinceOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Start of the window: 90m, 24h, 7d, 2w ago, or a date.")
]
FilesOption = Annotated[
    list[Path] | None, typer.Option("--data", metavar="PATH", help="Image files or folders instead of the log.")
]
SiteOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Images of one site alone. By default all, and each site apart.")
]
LogOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Database of the prediction log.",
        show_default="PNEUMO_LOG_URL or sqlite:///predictions.sqlite3",
    ),
]


@app.command()
def report(
    last: LastOption = None,
    since: SinceOption = None,
    data: FilesOption = None,
    model: options.ModelOption = "champion",
    models_dir: options.ModelsDirOption = "models",
    log: LogOption = None,
    site: SiteOption = None,
    out: Annotated[Path, typer.Option(help="Folder of report.html and report.json.")] = Path("drift-report"),
    store: Annotated[
        bool, typer.Option("--store", help="Also store the check in the log; the service shows it at /drift.")
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Write a drift report: Evidently's page and the verdict as JSON."""
    from pneumo.pipeline.drift.check import open_log, write_drift_report
    from pneumo.serving.drift.stored_checks import store_result

    if store and (data or site):
        raise InputError("--store keeps checks of the whole log: leave it out, or --data and --site")
    checked = _check_images(last, since, data, model, models_dir, log, site)
    for path in write_drift_report(checked, out):
        say(f"wrote {path}")
    if store:
        database = open_log(log)
        with database.translate_errors():
            database.prepare()
            store_result(database, checked)
        say("stored; the service shows it at /drift")
    _show(checked.check, as_json)


@app.command()
def check(
    last: LastOption = None,
    since: SinceOption = None,
    data: FilesOption = None,
    model: options.ModelOption = "champion",
    models_dir: options.ModelsDirOption = "models",
    log: LogOption = None,
    site: SiteOption = None,
    fail_on: Annotated[Literal["warning", "drift"], typer.Option(help="Mildest verdict that exits 1.")] = "drift",
    as_json: options.JsonOption = False,
) -> None:
    """Check for drift in cron or CI. Exits 0 without drift, 1 on drift, 4 with too few images; 2 and 3 are errors."""
    from pneumo.pipeline.drift.check import TooFewError
    from pneumo.serving.drift.verdict import Verdict

    result = _check_images(last, since, data, model, models_dir, log, site).check
    _show(result, as_json)
    if result.verdict is Verdict.TOO_FEW:
        raise TooFewError(f"{result.summary}; wait, or take a longer --since or a larger --last")
    if result.verdict in {Verdict.DRIFT, Verdict(fail_on)}:
        raise CheckFailedError(f"{result.verdict}: {result.summary}")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Parquet file.")], since: SinceOption = None, log: LogOption = None
) -> None:
    """Export the prediction log of all models as Parquet. Holds the ground truth if there is feedback."""
    from pneumo.pipeline.drift.check import open_log, parse_time
    from pneumo.pipeline.drift.log_export import export_log

    store = open_log(log)
    rows = export_log(store, out, since=None if since is None else parse_time(since))
    say(f"wrote {format_count(rows, 'row')} to {out}")


@app.command()
def simulate(
    data: options.DataOption,
    model: options.ModelOption = "champion",
    models_dir: options.ModelsDirOption = "models",
    split: Annotated[
        Literal["validation", "test"], typer.Option(help="Images to change; validation is the reference.")
    ] = "test",
    windows: Annotated[int, typer.Option(min=1, help="Windows per change and grade.")] = 100,
    size: Annotated[int, typer.Option(min=1, help="Images per window.")] = 100,
    images: Annotated[
        int, typer.Option(min=1, help="Most images to change, evenly over the split. Each is predicted 74 times.")
    ] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the windows.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the plot and the JSON.")] = Path("drift-simulation"),
    as_json: options.JsonOption = False,
) -> None:
    """Simulate drift of increasing strength. Shows if the alarm comes before the model's errors increase."""
    from pneumo.pipeline.data import manifest
    from pneumo.pipeline.data.manifest import Split
    from pneumo.pipeline.drift.grades import list_grades, load_photographs
    from pneumo.pipeline.drift.simulation import Plan, simulate_drift, write_simulation

    bundle = options.open_bundle(model, models_dir)
    dataset = manifest.read_dataset(data)
    chosen = Split[split.upper()]
    if chosen is Split.VALIDATION and dataset.info.fingerprint == bundle.info.data_fingerprint:
        say("these images are the reference itself, so alarms are too rare; use --split test")
    try:
        photographs = load_photographs(bundle.info.preparation.size)
    except ModuleNotFoundError:
        photographs = []
        say("leaving out 'no radiographs': scikit-image, which has photographs, is not installed")
    titles = {grade.change.title for grade in list_grades() if grade.change is not None}
    with count_bar("changing images", len(titles) + 2) as bar:
        plan = Plan(chosen, windows, size, images, seed)
        simulation = simulate_drift(bundle, dataset, plan, photographs=photographs, progress=bar.begin)
    for path in write_simulation(simulation, out):
        say(f"wrote {path}")
    if as_json:
        print_json(simulation.model_dump(mode="json"))
    else:
        _show_simulation(simulation)


def _check_images(
    last: int | None,
    since: str | None,
    data: list[Path] | None,
    model: str,
    models_dir: str,
    log: str | None,
    site: str | None,
) -> "DriftResult":
    from pneumo.pipeline.drift import check
    from pneumo.serving.inference.offline import find_images

    bundle = options.open_bundle(model, models_dir)
    if data:
        if any(option is not None for option in (last, since, log, site)):
            raise InputError(
                "--data checks files; --last, --since, --log and --site are about the log: give one of them"
            )
        with count_bar(f"predicting with {bundle.info.id}", len(find_images(data))) as bar:
            result, unreadable = check.check_files(bundle, data, progress=bar.advance)
        for path, reason in unreadable.items():
            say(f"{path}: {reason}")
        return result
    store = check.open_log(log)
    lane = None if model == "challenger" else "champion"
    result = check.check_log(bundle, store, last=last, since=since, lane=lane, site=site)
    if not result.check.images and (others := check.count_other_rows(store, bundle)):
        say(
            f"no image of {bundle.info.id} in the window; the log holds {others:,} of other models: choose with --model"
        )
    return result


def _show(result: "DriftCheck", as_json: bool) -> None:
    from pneumo.serving.drift.wording import SITE_HEADS, describe_classes, list_sites

    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    lines = [
        f"{result.verdict}: {result.summary}",
        f"{format_count(result.images, 'image')} ({result.window}) against {result.reference_images} of the reference "
        f"of {result.model}:{result.version}",
    ]
    for column in (column for column in result.columns if column.name in result.top):
        values = ""
        if column.reference is not None and column.window is not None:
            values = f", {column.reference.median:.4g} before, {column.window.median:.4g} now"
        lines.append(f"  {column.name}: {column.words} (p {column.adjusted:.2g}{values})")
    if shares := describe_classes(result.columns):
        lines.append(f"  predicted, reference to window: {shares}")
    print_lines(*lines)
    if result.sites:
        print_table(SITE_HEADS, list_sites(result), right=SITE_HEADS[1:3])
    print_lines(result.notice)


def _show_simulation(simulation: "Simulation") -> None:
    from pneumo.pipeline.drift.simulation_result import HARM, SURE, find_sure_alarm

    rows = []
    for kind, points in simulation.group_by_kind().items():
        alarm, harm = find_sure_alarm(points), simulation.find_harm(points)
        rows.append(
            [
                kind,
                alarm.label if alarm else f"not by {points[-1].label} ({points[-1].alarms:.0%})",
                harm.label if harm else "not in this range",
                f"{harm.alarms:.0%}" if harm else "",
            ]
        )
    print_table(
        ["change", f"alarm in {SURE:.0%} of windows from", f"AUROC {HARM:g} lower from", "alarms there"],
        rows,
        title=f"{simulation.model}:{simulation.version}, {simulation.windows} windows of {simulation.size} images",
    )
    print_lines(f"false alarms: {simulation.unchanged.alarms:.1%}", simulation.notice)
