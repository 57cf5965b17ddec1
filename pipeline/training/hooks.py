"""Who is told, and asked, while a run is carried out; tracking among them."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.runs.reporter import SILENT, Reporter, TrackingMode
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.pipeline.training.tracking.tracker import Plot, Tracker

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to know and to decide.

    Attributes:
        reporter: Receives progress.
        frame: Gives images, labels and splits instead of reading the data set.
        measures: Asked after training whether to predict every split and measure.
        tracking: Where Weights & Biases goes; as part of a `group`, with `parameters` in its config.
    """

    reporter: Reporter = SILENT
    frame: "Callable[[], pd.DataFrame] | None" = None
    measures: Callable[[], bool] = lambda: True
    tracking: TrackingMode = TrackingMode.DISABLED
    group: str | None = None
    parameters: Mapping[str, Any] | None = None


class _TrackedReporter(Reporter):
    """Passes the progress of training on; evaluation rounds go to a tracker as well."""

    def __init__(self, reporter: Reporter, tracker: Tracker) -> None:
        super().__init__()
        self.step = reporter.step  # type: ignore[method-assign]  # called after every step
        self.inner = reporter
        self.tracker = tracker
        self.tracked: set[int] = set()

    def round(self, entry: dict[str, Any], seconds: float) -> None:
        self.tracked.add(entry["step"])
        self.tracker.round(entry)
        self.inner.round(entry, seconds)


@contextmanager
def track_run(run: Run, info: RunInfo, experiment: Experiment, hooks: Hooks) -> Iterator[Reporter]:
    """Track a run while it is trained, if the hooks ask for it.

    Yields:
        The reporter of the training: what it receives goes to the tracker and to the hooks' reporter.
    """
    tracker = Tracker.start(
        hooks.tracking,
        run_name=run.name,
        group=hooks.group,
        job_type="trial" if hooks.group else "train",
        config={**experiment.config, **({"parameters": hooks.parameters} if hooks.parameters else {})},
        folder=run.folder,
        data_fingerprint=info.data_fingerprint,
        reporter=hooks.reporter,
    )
    reporter = _TrackedReporter(hooks.reporter, tracker)
    status = "failed"
    try:
        yield reporter
        status = "done"
    except SystemExit:  # how Ray Tune stops a trial
        status = "stopped"
        raise
    finally:
        if tracker.active:
            for entry in _history(run):
                if entry["step"] not in reporter.tracked:  # of rounds on a cluster's workers, or before a resume
                    tracker.round(entry)
            if run.metrics.is_file():
                tracker.draw(lambda: _curves(run))
            tracker.finish(_measured(run), status)


def _history(run: Run) -> list[dict[str, Any]]:
    if not run.history.is_file():
        return []
    known: list[dict[str, Any]] = json.loads(run.history.read_text(encoding="utf-8"))
    return known


def _measured(run: Run) -> dict[str, dict[str, float]] | None:
    """Value of each metric by split, where the run was measured."""
    if not run.metrics.is_file():
        return None
    from pneumo.pipeline.evaluation.results import values_by_split

    return values_by_split(json.loads(run.metrics.read_text(encoding="utf-8")))


def _curves(run: Run) -> list[Plot]:
    """ROC and reliability curves of the validation images."""
    from pneumo.pipeline.evaluation.report.points import read_cases, reliability_points, roc_points

    cases = read_cases(run, "validation")
    if not len(cases.truth):
        return []
    plots = [Plot("reliability", "claimed", "came true", reliability_points(cases, cases.probabilities))]
    if roc := roc_points(cases):
        plots.append(Plot("roc", "1 - specificity", "sensitivity", roc))
    return plots
