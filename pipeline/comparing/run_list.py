"""List of runs with their status and AUROC."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pneumo.pipeline.evaluation.results import read_metrics
from pneumo.pipeline.runs.run import RUNS, Run, RunInfo, Status
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.models import FrozenModel


class RunSummary(FrozenModel):
    """A run in a list; None for values that are unknown or undefined.

    The status is `interrupted` if the run is recorded as running and its process is gone, `damaged` if `run.json`
    cannot be read; `error` says why. `seconds` is the duration, until now for a run that is running.
    """

    name: str
    status: str
    config: str | None = None
    auroc_validation: float | None = None
    auroc_test: float | None = None
    started: datetime | None = None
    seconds: float | None = None
    error: str | None = None


def summarise_runs(root: Path = RUNS, *, now: datetime | None = None) -> list[RunSummary]:
    """Summarise every run in a folder, newest first."""
    return [_summarise(run, now or datetime.now(UTC)) for run in reversed(Run.list_folders(root))]


def find_best_run(runs: Iterable[Run]) -> Run:
    """Return the finished run with the highest validation AUROC, of those on the newest run's data (newer first).

    Refits do not take part: they were trained on their validation images. Raises an `InputError` if no run was
    evaluated.
    """
    finished = [(run, info) for run in runs if (info := _read_finished(run)) and not info.refit_of]
    if not finished:
        raise InputError("best: no run is finished yet; `pneumo train CONFIG` or `pneumo sweep CONFIG` makes one")
    newest = max(finished, key=lambda each: each[1].started)[1].data_fingerprint
    ranked = [
        (auroc, info.started, run.name, run)
        for run, info in finished
        if info.data_fingerprint == newest and (auroc := _read_aurocs(run).get("validation")) is not None
    ]
    if not ranked:
        raise InputError("best: no finished run has a validation AUROC; `pneumo evaluate RUN` measures one")
    return max(ranked, key=lambda each: each[:3])[3]


def current_status(run: Run, info: RunInfo) -> Status:
    """Return the status of a run: interrupted if no process holds one that is recorded as running (kill -9)."""
    return Status.INTERRUPTED if info.status is Status.RUNNING and not run.is_locked() else info.status


def _read_finished(run: Run) -> RunInfo | None:
    try:
        info = run.info()
    except InputError:
        return None
    return info if info.status is Status.DONE else None


def _summarise(run: Run, now: datetime) -> RunSummary:
    try:
        info = run.info()
    except InputError as error:
        return RunSummary(name=run.name, status="damaged", error=str(error))
    status, aurocs = current_status(run, info), _read_aurocs(run)
    seconds: float | None = info.durations.get("total", sum(info.durations.values()))
    if status is Status.RUNNING:
        seconds = (now - info.started).total_seconds()
    return RunSummary(
        name=run.name,
        status=status.value,
        config=info.config,
        auroc_validation=aurocs.get("validation"),
        auroc_test=aurocs.get("test"),
        started=info.started,
        seconds=seconds or None,
        error=info.error,
    )


def _read_aurocs(run: Run) -> dict[str, float | None]:
    """Return the AUROC by split; empty if the run was not evaluated."""
    try:
        return {split: result.metrics["auroc"].value for split, result in read_metrics(run).splits.items()}
    except InputError:
        return {}
