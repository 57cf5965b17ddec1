"""What a sweep ends with: the winner measured, its config, the table and the report."""

from pathlib import Path
from typing import Any

from pneumo.pipeline import training
from pneumo.pipeline.config.document import read_document as read_document
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import Run, Status
from pneumo.pipeline.sweep import seed_repeats, space, storage
from pneumo.pipeline.sweep.record import Sweep, SweepFolder, Trial
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text


def finish_sweep(folder: SweepFolder, *, reporter: Reporter = SILENT, measure: bool = True) -> Sweep:
    """Choose the winner, and write `best.yaml`, `trials.csv` and `sweep.html`.

    Args:
        folder: A sweep, done or interrupted.
        reporter: Receives progress.
        measure: Predict and measure the winner where its trial did not.

    Returns:
        The sweep, with its winner.
    """
    from pneumo.pipeline.sweep.report.sweep_report import write_report
    from pneumo.pipeline.sweep.report.table import write_table

    sweep = folder.read()
    choice = seed_repeats.choose_winner(sweep)
    if choice is not None:
        sweep.winner = choice.trial.name
        folder.save(sweep)
        write_text(folder.best, best_config(folder, sweep, choice.trial))
    write_table(folder, sweep)
    write_report(folder, sweep)
    run = fetch_run(folder, sweep, choice.trial) if measure and choice is not None else None
    if run is not None and not run.metrics.is_file():
        if choice is not None:
            reporter.message(f"measuring the winner, {choice.trial.name} ...")
        training.complete(run, reporter=reporter)
        write_report(folder, sweep)  # links to what was measured
    return sweep


def is_finished(folder: SweepFolder) -> bool:
    """Whether nothing is left to do: the search is over, its winner measured, and refitted where that was asked."""
    sweep = folder.read()
    trial = sweep.trial(sweep.winner) if sweep.winner else None
    run = folder.run_of(trial) if trial else None
    if sweep.status != "done" or run is None or not run.metrics.is_file() or not folder.report.is_file():
        return False
    return not sweep.refit or folder.refit_run(run.name).is_done()


def best_config(folder: SweepFolder, sweep: Sweep, trial: Trial) -> str:
    """The complete config of a trial, as `pneumo train` takes it, with where it came from."""
    asked = space.read_space(read_document(folder.config), Path(sweep.config).stem)
    experiment = asked.experiment(trial.parameters)
    value = trial.value(sweep.goal)
    return (
        f"# Trial {trial.name} of {sweep.name}: validation {sweep.metric} {value:.4f}, seed {trial.seed}.\n"
        + experiment.to_yaml()
    )


def fetch_run(folder: SweepFolder, sweep: Sweep, trial: Trial) -> Run | None:
    """The run of a trial, fetched from the storage where that is elsewhere; None where it has none.

    Raises:
        MachineError: The storage cannot be reached.
    """
    if trial.run and storage.is_address(trial.run):
        run = Run(folder.runs / f"{folder.name}-{trial.name}")
        if not (run.folder / "run.json").is_file():
            folder.runs.mkdir(exist_ok=True)
            storage.fetch(trial.run, run.folder)
            correct_run_info(run, Path(sweep.data), trial.error)
        trial.run = f"runs/{run.name}"
        folder.save(sweep)
    return folder.run_of(trial)


def correct_run_info(run: Run, data: Path, error: str | None) -> None:
    """Correct what a run says of itself that comes from a worker: where the data set is, and that it is running."""
    info = run.info()
    update: dict[str, Any] = {"name": run.name, "data": str(data)}
    if info.status is Status.RUNNING:
        update |= {"status": Status.FAILED if error else Status.INTERRUPTED, "error": error}
    run.save(info.model_copy(update=update))


def best_run(folder: SweepFolder) -> Run:
    """The run of a sweep's winner, measured.

    Raises:
        InputError: The sweep has no winner yet, or its run is not here.
    """
    sweep = folder.read()
    trial = sweep.trial(sweep.winner) if sweep.winner else None
    if trial is None:
        raise InputError(f"{folder.folder}: no trial finished an epoch yet; `pneumo sweep --resume {folder.folder}`")
    run = fetch_run(folder, sweep, trial)
    if run is None:
        raise InputError(f"{folder.folder}: the run of its winner {trial.name} is not here ({trial.run or 'nowhere'})")
    if not run.metrics.is_file() or run.info().status is not Status.DONE:
        training.complete(run)
    return run
