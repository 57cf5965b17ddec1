"""`pneumo drift`: whether the images that come still look like those that the model knows."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli.models import ModelsDirOption
from pneumo.pipeline.cli.output import JsonOption, print_json, progress_bar, say, stdout
from pneumo.serving.contracts.errors import CheckFailedError, InputError, MachineError

if TYPE_CHECKING:
    from pneumo.pipeline.drift.simulation_result import Simulation
    from pneumo.serving.drift.check import DriftResult
    from pneumo.serving.drift.verdict import DriftCheck
    from pneumo.serving.model.bundle import Bundle

app = typer.Typer(help="Whether the images that come still look like those that the model knows.", no_args_is_help=True)

ModelOption = Annotated[str, typer.Option(help="Alias, version, or bundle folder written with a slash.")]
LastOption = Annotated[
    int | None,
    typer.Option("--last", min=1, help="The newest images of the log.", show_default="500, or all with --since"),
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="How far back: 90m, 24h, 7d, 2w, or a date.")
]
DataOption = Annotated[
    list[Path] | None, typer.Option("--data", metavar="PATH", help="Image files or folders instead of the log.")
]
LogOption = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="URL",
        help="Database of the prediction log.",
        show_default="PNEUMO_LOG_URL or sqlite:///predictions.sqlite3",
    ),
]


class FailOn(StrEnum):
    """From which verdict on a check fails."""

    WARNING = "warning"
    DRIFT = "drift"


class SplitName(StrEnum):
    """Images that a simulation may change."""

    VALIDATION = "validation"
    TEST = "test"


@app.command("report")
def report_command(
    last: LastOption = None,
    since: SinceOption = None,
    data: DataOption = None,
    model: ModelOption = "champion",
    models_dir: ModelsDirOption = "models",
    log: LogOption = None,
    out: Annotated[Path, typer.Option(help="Folder of report.html and report.json.")] = Path("drift-report"),
    store: Annotated[bool, typer.Option("--store", help="Keep it in the log too, where the page /drift shows it.")] = (
        False
    ),
    as_json: JsonOption = False,
) -> None:
    """Compare a window with the model's reference, and write Evidently's page and the verdict as JSON."""
    from pneumo.pipeline.drift.check import open_log, write_drift_report

    if store and data:
        raise InputError("--store keeps checks of the log; images of --data are none of it: leave one out")
    checked = _check(last, since, data, model, models_dir, log)
    for path in write_drift_report(checked, out):
        say(f"wrote {path}")
    if store:
        from pneumo.pipeline.drift.evidently_ui import store_check

        store_check(open_log(log), checked)
        say("stored; /drift of the service shows it")
    _show(checked.check, as_json)


@app.command("check")
def check_command(
    last: LastOption = None,
    since: SinceOption = None,
    data: DataOption = None,
    model: ModelOption = "champion",
    models_dir: ModelsDirOption = "models",
    log: LogOption = None,
    fail_on: Annotated[FailOn, typer.Option(help="The verdict from which on to exit 1.")] = FailOn.DRIFT,
    as_json: JsonOption = False,
) -> None:
    """The same verdict for cron and CI: exit 0 ok, 1 drift, 4 too few images to say (2 and 3 are mistakes)."""
    from pneumo.pipeline.drift.check import TooFewError
    from pneumo.serving.drift.verdict import Verdict

    made = _check(last, since, data, model, models_dir, log).check
    _show(made, as_json)
    if made.verdict is Verdict.TOO_FEW:
        raise TooFewError(f"{made.summary}; wait, or take a longer --since or a larger --last")
    failing = {Verdict.DRIFT} if fail_on is FailOn.DRIFT else {Verdict.DRIFT, Verdict.WARNING}
    if made.verdict in failing:
        raise CheckFailedError(f"{made.verdict}: {made.summary}")


@app.command("dashboard")
def dashboard_command(
    log: LogOption = None,
    workspace: Annotated[
        Path | None,
        typer.Option(help="Keep Evidently's workspace in this new folder.", show_default="none is kept"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; it asks for no key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8001,
) -> None:
    """Open Evidently's own pages on the checks that the log holds, until Ctrl-C. The service has its own at /drift."""
    import tempfile

    from pneumo.pipeline.drift.check import open_log
    from pneumo.pipeline.drift.evidently_ui import serve_workspace, write_workspace

    store = open_log(log)
    with tempfile.TemporaryDirectory(prefix="pneumo-evidently-") as temporary:
        folder = workspace or Path(temporary)
        count = write_workspace(store, folder)
        say(f"{count} checks; Evidently starts on http://{host}:{port} in a few seconds; Ctrl-C stops it")
        say("research software, not a medical device")
        code = serve_workspace(folder, host=host, port=port)
    if code:
        raise MachineError(f"Evidently's user interface ended with exit {code}; is port {port} taken?")


@app.command("export")
def export_command(
    out: Annotated[Path, typer.Option(help="The Parquet file.")],
    since: SinceOption = None,
    log: LogOption = None,
) -> None:
    """Write the prediction log, of all models, with true labels that came, as Parquet."""
    from sqlalchemy.exc import SQLAlchemyError

    from pneumo.pipeline.drift.check import open_log, parse_time
    from pneumo.pipeline.drift.log_export import export_log
    from pneumo.serving.predictions.store import describe_error

    store = open_log(log)
    try:
        rows = export_log(store, out, since=None if since is None else parse_time(since))
    except SQLAlchemyError as error:
        raise MachineError(f"{store.shown}: {describe_error(error)}") from None
    say(f"wrote {rows:,} rows to {out}")


@app.command("simulate")
def simulate_command(
    data: Annotated[Path, typer.Option(help="A data set that `pneumo data import` made.")],
    model: ModelOption = "champion",
    models_dir: ModelsDirOption = "models",
    split: Annotated[SplitName, typer.Option(help="Images that are changed; the reference is validation.")] = (
        SplitName.TEST
    ),
    windows: Annotated[int, typer.Option(min=1, help="Windows for each change and strength.")] = 100,
    size: Annotated[int, typer.Option(min=1, help="Images in a window.")] = 100,
    images: Annotated[
        int,
        typer.Option(min=1, help="Most images that are changed, evenly over the split: each is predicted 74 times."),
    ] = 400,
    seed: Annotated[int, typer.Option(help="Of the windows.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the picture, the CSV and the JSON.")] = Path("drift-simulation"),
    as_json: JsonOption = False,
) -> None:
    """Change real images more and more: does the alarm come before the model errs?"""
    from pneumo.pipeline.data import manifest
    from pneumo.pipeline.data.manifest import Split
    from pneumo.pipeline.drift.grades import list_grades, photographs
    from pneumo.pipeline.drift.simulation import simulate_drift, write_simulation

    bundle = _bundle(model, models_dir)
    dataset = manifest.read_dataset(data)
    chosen = Split[split.upper()]
    if chosen is Split.VALIDATION and dataset.info.fingerprint == bundle.info.data_fingerprint:
        say("these images are the reference itself: alarms are too rare; --split test says more")
    try:
        strangers = photographs(bundle.info.preparation.size)
    except ModuleNotFoundError:
        strangers = []
        say("without 'no radiographs': scikit-image, which holds photographs, is not installed")
    titles = {grade.change.title for grade in list_grades() if grade.change is not None}
    with progress_bar("changing images", total=len(titles) + 2) as bar:

        def told(title: str) -> None:
            bar.update(bar.task_ids[0], advance=1, description=title)
            if not bar.console.is_terminal:
                say(title)

        simulation = simulate_drift(
            bundle,
            dataset,
            split=chosen,
            windows=windows,
            size=size,
            images=images,
            strangers=strangers,
            seed=seed,
            progress=told,
        )
    for path in write_simulation(simulation, out):
        say(f"wrote {path}")
    if as_json:
        print_json(simulation.model_dump(mode="json"))
    else:
        _show_simulation(simulation)


def _bundle(model: str, models_dir: str) -> "Bundle":
    from pneumo.serving.contracts.setting_types import parse_root
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.model.registry import resolve

    return Bundle.open(resolve(model, parse_root(models_dir)))


def _check(
    last: int | None, since: str | None, data: list[Path] | None, model: str, models_dir: str, log: str | None
) -> "DriftResult":
    from pneumo.pipeline.drift import check as windows
    from pneumo.serving.inference.offline import find_images

    bundle = _bundle(model, models_dir)
    if data:
        if last is not None or since is not None or log is not None:
            raise InputError("--data is about files; --last, --since and --log are about the log: give one of them")
        with progress_bar(f"predicting with {bundle.info.id}", len(find_images(data))) as bar:
            checked, unreadable = windows.check_files(
                bundle, data, progress=lambda count: bar.advance(bar.task_ids[0], count)
            )
        for path, reason in unreadable.items():
            say(f"{path}: {reason}")
        return checked
    store = windows.open_log(log)
    checked = windows.check_log(
        bundle, store, last=last, since=since, lane=None if model == "challenger" else "champion"
    )
    if not checked.check.images and (others := windows.others(store, bundle)):
        say(f"no image of {bundle.info.id} there; the log holds {others:,} of other models: choose one with --model")
    return checked


def _show(check: "DriftCheck", as_json: bool) -> None:
    if as_json:
        print_json(check.model_dump(mode="json"))
        return
    console = stdout()
    console.print(f"{check.verdict}: {check.summary}", markup=False, soft_wrap=True)
    console.print(
        f"{check.images} images ({check.window}) against {check.reference_images} of the reference of "
        f"{check.model}:{check.version}",
        markup=False,
        soft_wrap=True,
    )
    shown = [column for column in check.columns if column.name in check.top]
    for column in shown:
        values = ""
        if column.reference is not None and column.window is not None:
            values = f", {column.reference.median:.4g} before, {column.window.median:.4g} now"
        console.print(
            f"  {column.name}: {column.words} (p {column.adjusted:.2g}{values})", markup=False, soft_wrap=True
        )
    console.print(check.notice, markup=False, soft_wrap=True)


def _show_simulation(simulation: "Simulation") -> None:
    from rich.table import Table
    from rich.text import Text

    from pneumo.pipeline.drift.simulation_result import HARM, SURE, find_sure_alarm

    title = f"{simulation.model}:{simulation.version}, {simulation.windows} windows of {simulation.size} images"
    table = Table(title=Text(title), title_justify="left")
    for name in ("change", f"alarm in {SURE:.0%} of windows from", f"AUROC {HARM:g} lower from", "alarms there"):
        table.add_column(name)
    for kind, points in simulation.kinds().items():
        alarm, harm = find_sure_alarm(points), simulation.harm(points)
        table.add_row(
            kind,
            alarm.label if alarm else f"not by {points[-1].label} ({points[-1].alarms:.0%})",
            harm.label if harm else "not in this range",
            f"{harm.alarms:.0%}" if harm else "",
        )
    console = stdout()
    console.print(table)
    console.print(f"false alarms: {simulation.unchanged.alarms:.1%}", markup=False, soft_wrap=True)
    console.print(simulation.notice, markup=False, soft_wrap=True)
