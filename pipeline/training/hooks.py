"""Hooks of a training: progress, its data, and experiment tracking."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Row
from pneumo.pipeline.runs.history import read_history
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.pipeline.training.tracking.interface import Plot, TrackedRun
from pneumo.pipeline.training.tracking.tracker import Tracker
from pneumo.serving.images.types import Gray

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Hooks:
    """Options of a training that its caller decides."""

    reporter: Reporter = SILENT
    frame: "Callable[[], pd.DataFrame] | None" = None  # returns images, labels and splits; else the data set is read
    stored: Callable[[Sequence[Row]], Sequence[Gray]] | None = None  # returns images as stored; else they are read
    measures: Callable[[], bool] = lambda: True  # asked after training whether to predict every split and measure
    tracking: str = ""  # as `parse_trackers` returns it
    group: str | None = None  # of the tracked run
    parameters: Mapping[str, object] | None = None  # more values for the tracked run's config
    profile: bool = False


class _TrackedReporter(Reporter):
    """Passes progress on, and evaluation rounds to a tracker as well."""

    def __init__(self, reporter: Reporter, tracker: Tracker, run: Run) -> None:
        super().__init__()
        self.step = reporter.step  # type: ignore[method-assign]  # called after every step
        self.message, self.warning = reporter.message, reporter.warning  # type: ignore[method-assign]
        self.inner = reporter
        self.tracker = tracker
        self.run = run

    def round(self, entry: dict[str, Any], seconds: float) -> None:
        self.track_history()
        self.inner.round(entry, seconds)

    def track_history(self) -> None:
        """Track the rounds that are not tracked yet; some are from before a resume or from a cluster's workers."""
        if self.tracker.trackers:
            for entry in read_history(self.run):
                self.tracker.round(entry)


@contextmanager
def track_run(run: Run, info: RunInfo, experiment: Experiment, hooks: Hooks) -> Iterator[Reporter]:
    """Track a run while it is trained, if the hooks ask for it; yield a reporter to the tracker and the hooks."""
    facts = {"seed": info.seed, "git_commit": info.git_commit, "versions": info.versions, "config": info.config}
    tracked = TrackedRun(
        run.name,
        {**experiment.config, **({"parameters": hooks.parameters} if hooks.parameters else {}), "provenance": facts},
        info.data_fingerprint,
        group=hooks.group,
        job_type="trial" if hooks.group else "train",
    )
    tracker = Tracker.start(hooks.tracking, tracked, run.folder, hooks.reporter)
    reporter = _TrackedReporter(hooks.reporter, tracker, run)
    status = "failed"
    try:
        yield reporter
        status = "done"
    except SystemExit:  # how Ray Tune stops a trial
        status = "stopped"
        raise
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        reporter.track_history()
        metrics: dict[str, dict[str, float]] = {}
        if tracker.trackers and run.metrics.is_file():
            from pneumo.pipeline.evaluation.results import read_values

            metrics = read_values(run)
            tracker.draw(lambda: _make_plots(run))
        tracker.finish(metrics, status)


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
