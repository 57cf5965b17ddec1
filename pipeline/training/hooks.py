"""Who is told, and asked, while a run is carried out; tracking among them."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.pipeline.training.tracking.tracker import Mode, Plot, Tracker

if TYPE_CHECKING:
    import pandas as pd

    from pneumo.pipeline.ludwig.callback import Step

AfterRound = Callable[[dict[str, Any], float], None]


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to know and to decide.

    Attributes:
        say: Told what goes on, a line at a time.
        report: Told after each step.
        after_round: Told of each evaluation round once its checkpoint is whole: the entry of `history.json`, and the
            seconds since training began.
        frame: Gives images, labels and splits instead of reading the data set.
        measures: Asked after training whether to predict every split and measure.
        tracking: Where Weights & Biases goes; as part of a `group`, with `parameters` in its config.
    """

    say: Callable[[str], None] | None = None
    report: "Callable[[Step], None] | None" = None
    after_round: AfterRound | None = None
    frame: "Callable[[], pd.DataFrame] | None" = None
    measures: Callable[[], bool] = lambda: True
    tracking: Mode = Mode.DISABLED
    group: str | None = None
    parameters: Mapping[str, Any] | None = None


@contextmanager
def tracked(run: Run, info: RunInfo, experiment: Experiment, hooks: Hooks) -> Iterator[AfterRound]:
    """Track a run while it is carried out, where the hooks want it.

    Yields:
        What each evaluation round is to be told to: the tracker, and then the hooks.
    """
    tracker = Tracker.start(
        hooks.tracking,
        run_name=run.name,
        group=hooks.group,
        job_type="trial" if hooks.group else "train",
        config={**experiment.config, **({"parameters": hooks.parameters} if hooks.parameters else {})},
        folder=run.folder,
        data_fingerprint=info.data_fingerprint,
        say=hooks.say,
    )
    told: set[int] = set()

    def after_round(entry: dict[str, Any], seconds: float) -> None:
        told.add(entry["step"])
        tracker.round(entry)
        if hooks.after_round:
            hooks.after_round(entry, seconds)

    status = "failed"
    try:
        yield after_round
        status = "done"
    except SystemExit:  # how Ray Tune stops a trial
        status = "stopped"
        raise
    finally:
        if tracker.active:
            for entry in _history(run):
                if entry["step"] not in told:  # of rounds on a cluster's workers, or before a resume
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
