"""Hooks of a training: progress, its data, and experiment tracking."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.runs.reporter import SILENT, Reporter, TrackingMode
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.pipeline.training.tracking.tracker import Plot, TrackedRun, Tracker

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Hooks:
    """Options of a training that its caller decides."""

    reporter: Reporter = SILENT
    frame: "Callable[[], pd.DataFrame] | None" = None  # returns images, labels and splits; else the data set is read
    measures: Callable[[], bool] = lambda: True  # asked after training whether to predict every split and measure
    tracking: TrackingMode = TrackingMode.DISABLED
    group: str | None = None  # of the tracked run
    parameters: Mapping[str, object] | None = None  # more values for the tracked run's config
    profile: bool = False


class _TrackedReporter(Reporter):
    """Passes progress on, and evaluation rounds to a tracker as well."""

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
    """Track a run while it is trained, if the hooks ask for it; yield a reporter to the tracker and the hooks."""
    tracked = TrackedRun(
        run.name,
        {**experiment.config, **({"parameters": hooks.parameters} if hooks.parameters else {})},
        info.data_fingerprint,
        group=hooks.group,
        job_type="trial" if hooks.group else "train",
    )
    tracker = Tracker.start(hooks.tracking, tracked, run.folder, hooks.reporter)
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
            for entry in json.loads(run.history.read_text(encoding="utf-8")) if run.history.is_file() else ():
                if entry["step"] not in reporter.tracked:  # a round on a cluster's workers, or before a resume
                    tracker.round(entry)
            if run.metrics.is_file():
                from pneumo.pipeline.evaluation.results import values_by_split

                tracker.draw(lambda: _make_plots(run))
                tracker.finish(values_by_split(json.loads(run.metrics.read_text(encoding="utf-8"))), status)
            else:
                tracker.finish(status=status)


def _make_plots(run: Run) -> list[Plot]:
    """Return the ROC and reliability curves of the validation images."""
    from pneumo.pipeline.evaluation.report.points import read_cases, reliability_points, roc_points

    cases = read_cases(run, "validation")
    if not len(cases.truth):
        return []
    plots = [Plot("reliability", "claimed", "came true", reliability_points(cases, cases.probabilities))]
    if roc := roc_points(cases):
        plots.append(Plot("roc", "1 - specificity", "sensitivity", roc))
    return plots
