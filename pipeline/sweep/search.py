"""A whole sweep: search the space, then measure the winner, write the report, and refit. Importing this loads Ray."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pneumo.pipeline.config import Document, load_config
from pneumo.pipeline.config.document import parse_document, read_document
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.runs.provenance import read_hardware
from pneumo.pipeline.sweep import driver
from pneumo.pipeline.sweep.auto import plan as auto_plan
from pneumo.pipeline.sweep.driver import Plan, SweepError, SweepInterruptedError
from pneumo.pipeline.sweep.record import SWEEPS, SweepFolder
from pneumo.pipeline.sweep.refit import refit as refit_winner
from pneumo.pipeline.sweep.reporter import SWEEP_SILENT, SweepReporter
from pneumo.pipeline.sweep.winner import finish_sweep, is_finished
from pneumo.serving.contracts.errors import InputError

__all__ = ["Plan", "SweepError", "SweepInterruptedError", "plan_search", "read_search", "resume_sweep", "run_sweep"]

AUTO_BUDGET = 1800.0
"""Seconds that a space chosen automatically is planned for if no time budget is given."""


def run_sweep(
    document: Document,
    name: str,
    dataset: Dataset,
    *,
    plan: Plan | None = None,
    root: Path = SWEEPS,
    command: Sequence[str] = (),
    reporter: SweepReporter = SWEEP_SILENT,
) -> SweepFolder:
    """Search a config's space, measure the winner, and write `best.yaml`, `trials.csv` and `sweep.html`.

    Args:
        document: A config with a `hyperopt` section, overrides applied.
        name: The config file's stem.
        dataset: What to train on; its validation split decides.
        plan: What the config leaves open.
        root: Folder that gets the sweep's folder.
        command: The command line, for the record.
        reporter: Receives progress.

    Returns:
        The folder, with status `done`.

    Raises:
        InputError: Config, space or data are wrong; nothing was started.
        MachineError: No cluster, or one that is too small.
        SweepInterruptedError: Ctrl-C or SIGTERM; what is done is in its folder, and `resume_sweep` goes on.
        SweepError: Every trial failed.
    """

    def search() -> SweepFolder:
        return driver.sweep(document, name, dataset, plan=plan, root=root, command=command, reporter=reporter)

    return _complete(search, refit=False, reporter=reporter)


def resume_sweep(
    folder: SweepFolder,
    *,
    address: str | None = None,
    refit: bool = False,
    reporter: SweepReporter = SWEEP_SILENT,
) -> SweepFolder:
    """Continue an interrupted sweep: its search, the measuring of its winner, or its refit.

    Args:
        folder: The sweep.
        address: Ray cluster to join; the one it had before where None.
        refit: Train the winner again on training and validation images, also if the sweep was begun without.
        reporter: Receives progress.

    Raises:
        InputError: Nothing is left to do, or its data set has changed since.
        MachineError: No cluster, or one that is too small.
        SweepInterruptedError: Ctrl-C or SIGTERM.
        SweepError: Every trial failed.
    """

    def search() -> SweepFolder:
        if folder.read().status != "done" or is_finished(folder):
            driver.resume(folder, address=address, reporter=reporter)
        return folder

    return _complete(search, refit=refit, reporter=reporter)


def read_search(config: Path, overrides: Sequence[str] = ()) -> tuple[Document, str]:
    """Return a config with overrides applied, and its name, as `run_sweep` takes them.

    Raises:
        InputError: No such file, no YAML, or an override that is no assignment.
    """
    return read_document(config).override(overrides), config.stem


def plan_search(
    dataset: Dataset,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    time_budget: float | None = None,
    reporter: SweepReporter = SWEEP_SILENT,
) -> tuple[Document, str]:
    """Choose a space from data set, machine and time budget; return it as `run_sweep` takes it.

    Args:
        dataset: What to train on.
        config: What to vary; a network is chosen too where None.
        overrides: `key=value` assignments to the config.
        time_budget: Seconds that the sweep should take; `AUTO_BUDGET` where None.
        reporter: Receives the chosen config line by line: YAML that can be kept and edited.

    Raises:
        InputError: The config is wrong, there are overrides without a config, or the time is too short.
    """
    if config is None and overrides:
        raise InputError("-o: sets a key of a CONFIG; give one, or leave it out")
    base = None if config is None else load_config(config, overrides)
    hardware = auto_plan.Hardware.from_description(read_hardware())
    text = auto_plan.to_yaml(auto_plan.make_plan(dataset, hardware, budget=time_budget or AUTO_BUDGET, base=base))
    for line in text.splitlines():
        reporter.message(line)
    return parse_document(text, "auto.yaml"), "auto" if config is None else f"auto-{config.stem}"


def _complete(search: Callable[[], SweepFolder], *, refit: bool, reporter: SweepReporter) -> SweepFolder:
    """Search, then measure, report and refit; a search that ended early is reported too."""
    try:
        folder = search()
    except SweepInterruptedError as interrupted:
        finish_sweep(interrupted.folder, measure=False)
        raise
    except SweepError as error:
        finish_sweep(error.folder)
        raise
    try:
        record = finish_sweep(folder, reporter=reporter)
        if refit or record.refit:
            reporter.message("training the winner again on training and validation images ...")
            run = refit_winner(folder, reporter=reporter)
            reporter.message(f"trained again: {run.folder}")
    except KeyboardInterrupt:
        raise SweepInterruptedError(folder) from None
    return folder
