"""The end of a sweep: its winner measured, the winner's config, the table and the report."""

from pathlib import Path

from pneumo.pipeline import training
from pneumo.pipeline.config.document import read_document
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import Run, Status
from pneumo.pipeline.sweep import seed_repeats, space, storage
from pneumo.pipeline.sweep.record import Sweep, SweepFolder, Trial
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text


def finish_sweep(folder: SweepFolder, *, reporter: Reporter = SILENT, measure: bool = True) -> Sweep:
    """Choose the winner of a finished or interrupted sweep, and write `best.yaml`, `trials.csv` and `sweep.html`.

    With `measure` the winner is predicted and measured, unless its trial did that.
    """
    from pneumo.pipeline.sweep.report.sweep_report import write_report
    from pneumo.pipeline.sweep.report.table import write_table

    sweep = folder.read()
    choice = seed_repeats.choose_winner(sweep)
    if choice is not None:
        sweep.winner = choice.trial.name
        folder.save(sweep)
        write_text(folder.best, _best_config(folder, sweep, choice.trial))
    write_table(folder, sweep)
    write_report(folder, sweep)
    run = fetch_run(folder, sweep, choice.trial) if measure and choice is not None else None
    if run is not None and not run.metrics.is_file():
        reporter.message(f"measuring the winner, {sweep.winner} ...")
        training.complete(run, reporter=reporter)
        write_report(folder, sweep)  # with a link to the winner's report
    return sweep


def is_finished(folder: SweepFolder) -> bool:
    """Return True if nothing is left to do: search done, and winner measured."""
    sweep = folder.read()
    trial = sweep.trial(sweep.winner)
    run = folder.run_of(trial) if trial else None
    return sweep.status == "done" and run is not None and run.metrics.is_file() and folder.report.is_file()


def _best_config(folder: SweepFolder, sweep: Sweep, trial: Trial) -> str:
    """Return the complete config of a trial, as `pneumo train` takes it, under a comment with its origin."""
    searched = space.read_space(read_document(folder.config), Path(sweep.config).stem)
    origin = f"Trial {trial.name} of {sweep.name}: {sweep.metric_name} {trial.value(sweep.goal):.3f}"
    return f"# {origin}, seed {trial.seed}.\n{searched.experiment(trial.parameters).to_yaml()}"


def fetch_run(folder: SweepFolder, sweep: Sweep, trial: Trial) -> Run | None:
    """Return the run of a trial, fetched from its storage if it is elsewhere; None if it has no run."""
    if trial.run and storage.is_address(trial.run):
        run = Run(folder.runs / f"{folder.name}-{trial.name}")
        if not run.record_file.is_file():
            folder.runs.mkdir(exist_ok=True)
            storage.fetch_folder(trial.run, run.folder)
            correct_run_info(run, Path(sweep.data), trial.error)
        trial.run = f"runs/{run.name}"
        folder.save(sweep)
    return folder.run_of(trial)


def correct_run_info(run: Run, data: Path, error: str | None) -> None:
    """Correct what a worker wrote into `run.json`: its name, the data set's folder, and the status "running"."""
    info = run.info()
    update: dict[str, object] = {"name": run.name, "data": str(data)}
    if info.status is Status.RUNNING:
        update |= {"status": Status.FAILED if error else Status.INTERRUPTED, "error": error}
    run.save(info.model_copy(update=update))


def best_run(folder: SweepFolder) -> Run:
    """Return the run of a sweep's winner, measured; raise an `InputError` without a winner, or if its run is gone."""
    sweep = folder.read()
    trial = sweep.trial(sweep.winner)
    if trial is None:
        raise InputError(f"{folder.folder}: no trial finished an epoch yet; `pneumo sweep --resume {folder.folder}`")
    run = fetch_run(folder, sweep, trial)
    if run is None:
        raise InputError(f"{folder.folder}: the run of its winner {trial.name} is missing ({trial.run or 'no folder'})")
    if not run.metrics.is_file() or run.info().status is not Status.DONE:
        training.complete(run)
    return run
