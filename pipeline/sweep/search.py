"""A whole sweep: search the space, measure the winner, write the report, and refit. Importing this module loads Ray."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pneumo.pipeline.config import build_experiment, load_config
from pneumo.pipeline.config.document import parse_document, read_document
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.runs.provenance import read_hardware
from pneumo.pipeline.sweep import driver
from pneumo.pipeline.sweep.auto import plan as auto_plan
from pneumo.pipeline.sweep.driver import Plan, SweepError, SweepInterruptedError
from pneumo.pipeline.sweep.record import SWEEPS, SweepFolder
from pneumo.pipeline.sweep.refit import refit as refit_winner
from pneumo.pipeline.sweep.reporter import SWEEP_SILENT, SweepReporter
from pneumo.pipeline.sweep.space import Space, read_space
from pneumo.pipeline.sweep.winner import finish_sweep, is_finished
from pneumo.serving.contracts.errors import InputError

__all__ = ["Plan", "SweepError", "SweepInterruptedError", "plan_search", "read_search", "resume_sweep", "run_sweep"]

AUTO_BUDGET = 1800.0
"""Seconds that an automatic space is planned for if no time budget is given."""


def run_sweep(
    space: Space,
    dataset: Dataset,
    *,
    plan: Plan | None = None,
    root: Path = SWEEPS,
    command: Sequence[str] = (),
    reporter: SweepReporter = SWEEP_SILENT,
) -> SweepFolder:
    """Search a space, measure the winner, write `best.yaml`, `trials.csv` and `sweep.html`; return the folder.

    The validation split ranks the trials. Settings of the plan override or complete those of the config.

    Raises:
        InputError: Config, space or data are wrong; nothing was started.
        MachineError: There is no cluster, or it is too small.
        SweepInterruptedError: Ctrl-C or SIGTERM; finished trials are in its folder, and `resume_sweep` continues.
        SweepError: Every trial failed.
    """
    with _reporting():
        folder = driver.sweep(space, dataset, plan=plan or Plan(), root=root, command=command, reporter=reporter)
    return _finish(folder, refit=False, reporter=reporter)


def resume_sweep(
    folder: SweepFolder, *, address: str | None = None, refit: bool = False, reporter: SweepReporter = SWEEP_SILENT
) -> SweepFolder:
    """Continue an interrupted sweep: its search, the measuring of its winner, or its refit.

    The cluster is the sweep's earlier one by default. With `refit` the winner is trained again on training and
    validation images, even if the sweep began without a refit. Raises the errors of `run_sweep`, and an `InputError` if
    nothing is left to do or the data set has changed.
    """
    with _reporting():
        if folder.read().status != "done" or is_finished(folder):
            driver.resume(folder, address=address, reporter=reporter)
    return _finish(folder, refit=refit, reporter=reporter)


def read_search(config: Path, overrides: Sequence[str] = ()) -> Space:
    """Read the search space of a config with overrides applied; raise an `InputError` if a value is wrong."""
    document = read_document(config).override(overrides)
    build_experiment(document, config.stem)
    return read_space(document, config.stem)


def plan_search(
    dataset: Dataset,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    time_budget: float | None = None,
    reporter: SweepReporter = SWEEP_SILENT,
) -> Space:
    """Choose a search space from data set, machine and time budget in seconds, `AUTO_BUDGET` by default.

    Without a config to search around, a network is chosen too. The reporter receives the config line by line, as YAML.

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
    return read_space(parse_document(text, "auto.yaml"), "auto" if config is None else f"auto-{config.stem}")


@contextmanager
def _reporting() -> Iterator[None]:
    """Write the report of a search that ends early."""
    try:
        yield
    except (SweepInterruptedError, SweepError) as error:
        finish_sweep(error.folder, measure=isinstance(error, SweepError))
        raise


def _finish(folder: SweepFolder, *, refit: bool, reporter: SweepReporter) -> SweepFolder:
    """Measure the winner, write the report, and refit."""
    try:
        record = finish_sweep(folder, reporter=reporter)
        if refit or record.refit:
            reporter.message("training the winner again on training and validation images ...")
            run = refit_winner(folder, reporter=reporter)
            reporter.message(f"trained again: {run.folder}")
    except KeyboardInterrupt:
        raise SweepInterruptedError(folder) from None
    return folder
