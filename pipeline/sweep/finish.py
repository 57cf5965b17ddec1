"""What a sweep ends with: the winner measured, its config, the table and the report."""

from collections.abc import Callable
from pathlib import Path

from pipeline import training
from pipeline.config.document import read as read_document
from pipeline.runs import Run, Status, write_text
from pipeline.sweep import seeds, space, storage
from pipeline.sweep.records import Sweep, SweepFolder, Trial
from serving.errors import InputError

Say = Callable[[str], None]


def finish(folder: SweepFolder, *, say: Say | None = None, measure: bool = True) -> Sweep:
    """Choose the winner, and write `best.yaml`, `trials.csv` and `sweep.html`.

    Args:
        folder: A sweep, done or interrupted.
        say: Told what goes on, a line at a time.
        measure: Predict and measure the winner where its trial did not.

    Returns:
        The sweep, with its winner.
    """
    from pipeline.sweep.report import write_report
    from pipeline.sweep.table import write_table

    sweep = folder.read()
    choice = seeds.choose(sweep)
    if choice is not None:
        sweep.winner = choice.trial.name
        folder.save(sweep)
        write_text(folder.best, best_config(folder, sweep, choice.trial))
        run = brought(folder, sweep, choice.trial) if measure else None
        if run is not None and not run.metrics.is_file():
            if say:
                say(f"measuring the winner, {choice.trial.name} ...")
            training.complete(run, say=say)
    write_table(folder, sweep)
    write_report(folder, sweep)
    return sweep


def best_config(folder: SweepFolder, sweep: Sweep, trial: Trial) -> str:
    """The complete config of a trial, as `pneumo train` takes it, with where it came from."""
    asked = space.read(read_document(folder.config), Path(sweep.config).stem)
    experiment = asked.experiment(trial.parameters)
    value = trial.value(sweep.goal)
    return (
        f"# Trial {trial.name} of {sweep.name}: validation {sweep.metric} {value:.4f}, seed {trial.seed}.\n"
        + experiment.to_yaml()
    )


def brought(folder: SweepFolder, sweep: Sweep, trial: Trial) -> Run | None:
    """The run of a trial, fetched from the storage where that is elsewhere; None where it has none.

    Raises:
        MachineError: The storage cannot be reached.
    """
    if trial.run and storage.is_address(trial.run):
        run = Run(folder.runs / f"{folder.name}-{trial.name}")
        if not (run.folder / "run.json").is_file():
            folder.runs.mkdir(exist_ok=True)
            storage.fetch(trial.run, run.folder)
        trial.run = f"runs/{run.name}"
        folder.save(sweep)
    return folder.run_of(trial)


def best_run(folder: SweepFolder) -> Run:
    """The run of a sweep's winner, measured.

    Raises:
        InputError: The sweep has no winner yet, or its run is not here.
    """
    sweep = folder.read()
    trial = sweep.trial(sweep.winner) if sweep.winner else None
    if trial is None:
        raise InputError(f"{folder.folder}: no trial finished an epoch yet; `pneumo sweep --resume {folder.folder}`")
    run = brought(folder, sweep, trial)
    if run is None:
        raise InputError(f"{folder.folder}: the run of its winner {trial.name} is not here ({trial.run or 'nowhere'})")
    if not run.metrics.is_file() or run.info().status is not Status.DONE:
        training.complete(run)
    return run
