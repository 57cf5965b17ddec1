"""`pneumo drift`."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import print_json, print_lines, print_table, say
from pneumo.pipeline.cli.progress import count_bar
from pneumo.serving.contracts.errors import CheckFailedError, InputError, MachineError

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
    out: Annotated[Path, typer.Option(help="Folder of report.html and report.json.")] = Path("drift-report"),
    store: Annotated[
        bool, typer.Option("--store", help="Also store the check in the log; the service shows it at /drift.")
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Write a drift report: Evidently's page and the verdict as JSON."""
    from pneumo.pipeline.drift.check import open_log, write_drift_report

    if store and data:
        raise InputError("--store keeps checks of the log; images of --data are not in it: leave one out")
    checked = _check_images(last, since, data, model, models_dir, log)
    for path in write_drift_report(checked, out):
        say(f"wrote {path}")
    if store:
        from pneumo.pipeline.drift.evidently_ui import store_check

        store_check(open_log(log), checked)
        other = "too" if checked.check.columns else "does not, since there are too few images to draw"
        say(f"stored; the service shows it at /drift, `pneumo drift dashboard` {other}")
    _show(checked.check, as_json)


@app.command()
def check(
    last: LastOption = None,
    since: SinceOption = None,
    data: FilesOption = None,
    model: options.ModelOption = "champion",
    models_dir: options.ModelsDirOption = "models",
    log: LogOption = None,
    fail_on: Annotated[Literal["warning", "drift"], typer.Option(help="Mildest verdict that exits 1.")] = "drift",
    as_json: options.JsonOption = False,
) -> None:
    """Check for drift in cron or CI. Exits 0 without drift, 1 on drift, 4 with too few images; 2 and 3 are errors."""
    from pneumo.pipeline.drift.check import TooFewError
    from pneumo.serving.drift.verdict import Verdict

    result = _check_images(last, since, data, model, models_dir, log).check
    _show(result, as_json)
    if result.verdict is Verdict.TOO_FEW:
        raise TooFewError(f"{result.summary}; wait, or take a longer --since or a larger --last")
    if result.verdict in {Verdict.DRIFT, Verdict(fail_on)}:
        raise CheckFailedError(f"{result.verdict}: {result.summary}")


@app.command()
def dashboard(
    log: LogOption = None,
    workspace: Annotated[
        Path | None, typer.Option(help="New folder that keeps Evidently's workspace.", show_default="none is kept")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on. No API key is required.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8001,
) -> None:
    """Open Evidently's dashboard of stored checks, until Ctrl-C. The service has its own at /drift."""
    from pneumo.pipeline.drift.check import open_log
    from pneumo.pipeline.drift.evidently_ui import NOT_DRAWN, serve_workspace, write_workspace

    store = open_log(log)
    with tempfile.TemporaryDirectory(prefix="pneumo-evidently-") as temporary:
        folder = workspace or Path(temporary)
        count, others = write_workspace(store, folder)
        if others:
            say(f"not shown: {others} checks {NOT_DRAWN}")
        say(f"{count} checks; Evidently starts on http://{host}:{port} in a few seconds; Ctrl-C stops it")
        say("research software, not a medical device")
        code = serve_workspace(folder, host=host, port=port)
    if code:
        raise MachineError(f"Evidently's user interface ended with exit {code}; is port {port} in use?")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Parquet file.")], since: SinceOption = None, log: LogOption = None
) -> None:
    """Export the prediction log of all models as Parquet. Holds the ground truth if there is feedback."""
    from pneumo.pipeline.drift.check import open_log, parse_time
    from pneumo.pipeline.drift.log_export import export_log

    store = open_log(log)
    rows = export_log(store, out, since=None if since is None else parse_time(since))
    say(f"wrote {rows:,} rows to {out}")


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
    out: Annotated[Path, typer.Option(help="Folder of the plot, the CSV and the JSON.")] = Path("drift-simulation"),
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
    last: int | None, since: str | None, data: list[Path] | None, model: str, models_dir: str, log: str | None
) -> "DriftResult":
    from pneumo.pipeline.drift import check
    from pneumo.serving.inference.offline import find_images

    bundle = options.open_bundle(model, models_dir)
    if data:
        if last is not None or since is not None or log is not None:
            raise InputError("--data checks files; --last, --since and --log are about the log: give one of them")
        with count_bar(f"predicting with {bundle.info.id}", len(find_images(data))) as bar:
            result, unreadable = check.check_files(bundle, data, progress=bar.advance)
        for path, reason in unreadable.items():
            say(f"{path}: {reason}")
        return result
    store = check.open_log(log)
    result = check.check_log(bundle, store, last=last, since=since, lane=None if model == "challenger" else "champion")
    if not result.check.images and (others := check.count_other_rows(store, bundle)):
        say(
            f"no image of {bundle.info.id} in the window; the log holds {others:,} of other models: choose with --model"
        )
    return result


def _show(result: "DriftCheck", as_json: bool) -> None:
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    lines = [
        f"{result.verdict}: {result.summary}",
        f"{result.images} images ({result.window}) against {result.reference_images} of the reference of "
        f"{result.model}:{result.version}",
    ]
    for column in (column for column in result.columns if column.name in result.top):
        values = ""
        if column.reference is not None and column.window is not None:
            values = f", {column.reference.median:.4g} before, {column.window.median:.4g} now"
        lines.append(f"  {column.name}: {column.words} (p {column.adjusted:.2g}{values})")
    print_lines(*lines, result.notice)


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
