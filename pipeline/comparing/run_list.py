"""What was tried: one line a run."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pneumo.pipeline.evaluation.results import Metrics, read_metrics
from pneumo.pipeline.runs.run import RUNS, Run, RunInfo, Status, list_runs
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.models import FrozenModel


class RunSummary(FrozenModel):
    """A run in a list.

    Attributes:
        name: Its folder's name.
        status: Where it stands; `interrupted` where it says running and its process is gone, `damaged` where `run.json`
            cannot be read.
        config: Name of the config file.
        auroc_validation: AUROC by split, None where it was not measured or is undefined.
        auroc_test: As above.
        started: When training began.
        seconds: How long it took, or has taken up to now; None where nobody knows.
        error: Why it failed or cannot be read.
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
    """Summarise every run under a folder, newest first."""
    now = now or datetime.now(UTC)
    return [_summary(run, now) for run in reversed(list_runs(root))]


def find_best_run(runs: Iterable[Run]) -> Run:
    """The finished run with the highest validation AUROC, of those on the newest one's data; of two alike the newer.

    Refits do not take part: their validation images were trained on.

    Raises:
        InputError: None of them is finished and measured.
    """
    known = [(run, info) for run, info in map(_done, runs) if info is not None and not info.refit_of]
    if not known:
        raise InputError("best: no run is finished yet; `pneumo train CONFIG` or `pneumo sweep CONFIG` makes one")
    newest = max(known, key=lambda each: each[1].started)[1].data_fingerprint
    measured = [
        (_auroc(_metrics(run), "validation"), info.started, run.name, run)
        for run, info in known
        if info.data_fingerprint == newest
    ]
    ranked = [each for each in measured if each[0] is not None]
    if not ranked:
        raise InputError("best: no finished run has a validation AUROC; `pneumo evaluate RUN` measures one")
    return max(ranked, key=lambda each: each[:3])[3]


def _done(run: Run) -> tuple[Run, RunInfo | None]:
    try:
        info = run.info()
    except InputError:
        return run, None
    return run, info if info.status is Status.DONE else None


def standing(run: Run, info: RunInfo) -> Status:
    """Where a run stands: one that says running while no process holds it was interrupted (power cut, kill -9)."""
    return Status.INTERRUPTED if info.status is Status.RUNNING and not run.is_locked() else info.status


def _summary(run: Run, now: datetime) -> RunSummary:
    try:
        info = run.info()
    except InputError as error:
        return RunSummary(name=run.name, status="damaged", error=str(error))
    metrics = _metrics(run)
    status = standing(run, info)
    seconds: float | None = info.durations.get("total", sum(info.durations.values()))
    if status is Status.RUNNING:
        seconds = (now - info.started).total_seconds()
    return RunSummary(
        name=run.name,
        status=status.value,
        config=info.config,
        auroc_validation=_auroc(metrics, "validation"),
        auroc_test=_auroc(metrics, "test"),
        started=info.started,
        seconds=seconds or None,
        error=info.error,
    )


def _metrics(run: Run) -> Metrics | None:
    try:
        return read_metrics(run)
    except InputError:
        return None


def _auroc(metrics: Metrics | None, split: str) -> float | None:
    if metrics is None or split not in metrics.splits:
        return None
    return metrics.splits[split].metrics["auroc"].value
